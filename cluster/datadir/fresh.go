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

// The directory of a member whose disk is not mounted is empty, or not there: to a start it looks like that of a
// machine that never was a member. What follows tells the two apart by what is known outside of the directory.

// fewestBytes is how much room a directory must have in which a member begins: its Raft log and its database.
const fewestBytes = 8 << 20

// CheckFresh refuses a directory in which nothing is to begin: it has no room, or it is to be on a disk that is not
// mounted.
func (d *Dir) CheckFresh() error {
	table, _ := os.ReadFile("/etc/fstab") // none: nothing is said
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	if point := unmounted(d.places(), table, mounts); point != "" && len(mounts) > 0 {
		return fmt.Errorf("the data directory %s is empty, and %s, where it is to be by /etc/fstab, is not mounted: "+
			"nothing begins in its place. Mount it and start again, or take the line out of /etc/fstab", d.Path, point)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(d.Path, &st); err != nil {
		return nil // what is written first says it better
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

// places are the names under which the directory may stand in /etc/fstab: as it was given, and without symbolic links.
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

// inMemory are file systems that are empty after each boot anyway: nobody's data is on them.
var inMemory = []string{"tmpfs", "ramfs", "proc", "sysfs", "devtmpfs", "devpts", "swap", "overlay"}

// unmounted returns the mount point of fstab(5) above, or at, one of the paths where nothing is mounted by mountinfo
// (proc_pid_mountinfo(5)); empty when there is none. A mount point that is below another counts for itself.
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

// unescape undoes the octal escapes of both files.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// machineMark is the contents of the file that says which member a machine is. It lies outside of the data directory.
type machineMark struct {
	ClusterID string `json:"clusterId"`
	NodeID    uint64 `json:"nodeId"`
	Name      string `json:"name"`
	Data      string `json:"data"`
}

// CheckMark refuses to found a cluster on a machine that is a member by the mark at path. A mark that cannot be read
// refuses, too.
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

// Mark notes at path which member this machine is, if that is not there yet.
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
