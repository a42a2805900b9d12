package datadir

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"muster/certs"
)

// The directory of a member whose disk is not mounted is empty or missing: to a start it looks like that of a new
// machine. The checks here distinguish the two by what is known outside of the directory.

// fewestBytes is the least free space for a new member: its Raft log and its database.
const fewestBytes = 8 << 20

// CheckFresh rejects a directory for a new member: it has no space, or its disk is not mounted.
func (d *Dir) CheckFresh() error {
	table, _ := os.ReadFile("/etc/fstab") // without one there is nothing to check
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	if point := unmounted(d.places(), table, mounts); point != "" && len(mounts) > 0 {
		return fmt.Errorf("the data directory %s is empty, and %s, where it is to be by /etc/fstab, is not mounted: "+
			"nothing begins in its place. Mount it and start again, or take the line out of /etc/fstab", d.Path, point)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(d.Path, &st); err != nil {
		return nil // the first write reports it better
	}
	switch free := st.Bavail * uint64(st.Bsize); {
	case free < fewestBytes:
		return fmt.Errorf("there is no space left for the data directory %s: %d KiB are free, and a member needs %d MiB to "+
			"begin with", d.Path, free>>10, fewestBytes>>20)
	case st.Files > 0 && st.Ffree < FewInodes:
		return fmt.Errorf("there are only %d inodes left for the data directory %s (df -i)", st.Ffree, d.Path)
	}
	return nil
}

// places returns the paths of the directory that /etc/fstab may have: as given, and without symbolic links.
func (d *Dir) places() (list []string) {
	path, err := filepath.Abs(d.Path)
	if err != nil {
		return nil
	}
	list = append(list, path)
	if real, err := filepath.EvalSymlinks(path); err == nil && real != path {
		list = append(list, real)
	}
	return list
}

// inMemory lists file systems that are empty after each boot and hold no data.
var inMemory = []string{"tmpfs", "ramfs", "proc", "sysfs", "devtmpfs", "devpts", "swap", "overlay"}

// unmounted returns the mount point of fstab(5) at or above one of the paths at which nothing is mounted by mountinfo
// (proc_pid_mountinfo(5)); empty without one. A mount point below another counts for itself.
func unmounted(paths []string, fstab, mountinfo []byte) string {
	mounted := map[string]bool{"/": true}
	for line := range lines(mountinfo) {
		if fields := strings.Fields(line); len(fields) > 4 {
			mounted[unescape(fields[4])] = true
		}
	}
	for line := range lines(fstab) {
		fields := strings.Fields(line)
		if len(fields) < 3 || strings.HasPrefix(fields[0], "#") || !strings.HasPrefix(fields[1], "/") ||
			slices.Contains(inMemory, fields[2]) {
			continue
		}
		point := filepath.Clean(unescape(fields[1]))
		for _, path := range paths {
			if !mounted[point] && (path == point || strings.HasPrefix(path, point+"/")) {
				return point
			}
		}
	}
	return ""
}

func lines(text []byte) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
			if !yield(s.Text()) {
				return
			}
		}
	}
}

// unescape decodes the octal escapes of both files.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// machineMark is the content of a file outside of the data directory that says which member this machine is.
type machineMark struct {
	ClusterID string `json:"clusterId"`
	NodeID    uint64 `json:"nodeId"`
	Name      string `json:"name"`
	Data      string `json:"data"`
}

// CheckMark rejects founding a cluster on a machine that is a member by the mark at path, or whose mark cannot be read.
func (d *Dir) CheckMark(path string) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var m machineMark
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil || m.NodeID == 0 {
		return fmt.Errorf("--mark %s cannot be read, and may say that this machine is a member: no cluster is founded; "+
			"delete it if this machine is none", path)
	}
	return fmt.Errorf("this machine is node %d (%s) of cluster %s, as %s says, and the data directory %s is empty: no "+
		"cluster is founded. Mount its disk and start again; if the member is gone for good, join with --join TOKEN, or "+
		"delete %s to found a new cluster", m.NodeID, m.Name, m.ClusterID, path, d.Path, path)
}

// Mark writes the mark of this machine's member to path, if it is not there yet.
func (d *Dir) Mark(path string, n *Node) error {
	data, err := json.MarshalIndent(machineMark{n.ClusterID, n.NodeID, n.Name, d.places()[0]}, "", "  ")
	if err != nil {
		return err
	}
	data = append(data, '\n')
	if there, err := os.ReadFile(path); err == nil && bytes.Equal(there, data) {
		return nil
	}
	return certs.WriteFile(path, data, 0o644)
}
