package workload

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"muster/store"
)

// overflowID is the kernel's id for users and groups without an id in this user namespace.
const overflowID = 65534

// caller is the process at the other end of a connection, as of its connection.
type caller struct {
	uid, gid uint32
	groups   []uint32 // supplementary
	pid      int32    // 0: in another PID namespace
	units    []string // of the system's service manager: slices from the root, then the service or scope
}

// unit returns the service or scope, for people.
func (c *caller) unit() string {
	if len(c.units) == 0 {
		return ""
	}
	return c.units[len(c.units)-1]
}

// callerOf asks the kernel for the other end (unix(7), SO_PEERCRED and SO_PEERGROUPS).
func callerOf(conn *net.UnixConn) (c caller, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return c, err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			failed = err
			return
		}
		c.uid, c.gid, c.pid = cred.Uid, cred.Gid, cred.Pid
		if c.groups, failed = peerGroups(int(fd)); failed != nil {
			return
		}
		c.units = peerUnits(int(fd), &c)
	})
	return c, errors.Join(err, failed)
}

// peerGroups reads the supplementary groups of the other end.
func peerGroups(fd int) ([]uint32, error) {
	const most = 65536 // NGROUPS_MAX
	for room := 64; ; room = most {
		list := make([]uint32, room)
		size := uint32(4 * len(list))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&list[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return list[:size/4], nil
		case errno != unix.ERANGE || room == most:
			return nil, fmt.Errorf("the groups of a caller cannot be read: %w", errno)
		}
	}
}

// peerUnits returns the systemd units of the other end; nil when they are not certain. The kernel may reuse the number
// of a process that has ended, so the result counts only if the process that connected still existed afterwards: its
// descriptor shows that or, before Linux 6.5, a process of that number with the same user.
func peerUnits(fd int, c *caller) []string {
	if c.pid <= 0 {
		return nil
	}
	pidfd, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if err != nil {
		if pidfd, err = unix.PidfdOpen(int(c.pid), 0); err != nil {
			return nil
		}
	}
	defer unix.Close(pidfd)
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", c.pid))
	if err != nil {
		return nil
	}
	var st unix.Stat_t
	if unix.Stat(fmt.Sprintf("/proc/%d", c.pid), &st) != nil || st.Uid != c.uid {
		return nil
	}
	if err := unix.PidfdSendSignal(pidfd, 0, nil, 0); err != nil && !errors.Is(err, unix.EPERM) {
		return nil
	}
	return unitsOf(text)
}

// unitsOf parses /proc/PID/cgroup (cgroups(7)). It stops at the first service or scope: names below it are chosen by
// users for their own service managers, and by services for what is delegated to them.
func unitsOf(text []byte) (units []string) {
	for line := range bytes.Lines(text) {
		hierarchy, rest, _ := bytes.Cut(bytes.TrimSpace(line), []byte(":"))
		controllers, path, found := bytes.Cut(rest, []byte(":"))
		if !found || string(hierarchy) != "0" && string(controllers) != "name=systemd" {
			continue
		}
		units = nil
		for name := range strings.SplitSeq(string(path), "/") {
			switch {
			case strings.HasSuffix(name, ".slice"):
				units = append(units, name)
			case strings.HasSuffix(name, ".service"), strings.HasSuffix(name, ".scope"):
				return append(units, name)
			case name != "" && name != "..":
				return units
			}
		}
	}
	return units
}

// is reports whether the caller is a workload: all selectors that are not empty must match.
func (c *caller) is(w *store.Workload) bool {
	if w.User == "" && w.Group == "" && w.Unit == "" {
		return false
	}
	if w.User != "" {
		if id, known := userID(w.User); !known || id != c.uid {
			return false
		}
	}
	if w.Group != "" {
		if id, known := groupID(w.Group); !known || id != c.gid && !slices.Contains(c.groups, id) {
			return false
		}
	}
	return w.Unit == "" || slices.Contains(c.units, w.Unit)
}

// ownsMember reports whether the caller may be the member itself: its user and root can read its files.
func (c *caller) ownsMember() bool { return c.uid == 0 || int(c.uid) == os.Geteuid() }

// userID returns the number of a user, given as a name or a number.
func userID(name string) (uint32, bool) {
	return accountID(name, func(name string) (string, error) {
		u, err := user.Lookup(name)
		if err != nil {
			return "", err
		}
		return u.Uid, nil
	})
}

// groupID is userID for groups.
func groupID(name string) (uint32, bool) {
	return accountID(name, func(name string) (string, error) {
		g, err := user.LookupGroup(name)
		if err != nil {
			return "", err
		}
		return g.Gid, nil
	})
}

func accountID(name string, look func(string) (string, error)) (uint32, bool) {
	id, err := strconv.ParseUint(name, 10, 32)
	if err != nil {
		if name, err = look(name); err != nil {
			return 0, false
		}
		if id, err = strconv.ParseUint(name, 10, 32); err != nil {
			return 0, false
		}
	}
	return uint32(id), id != overflowID
}
