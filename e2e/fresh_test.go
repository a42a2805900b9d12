package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestDiskNotMounted: a founder whose disk is not mounted at its next start founds no second cluster, because the mark
// outside of the directory says who the machine is. With the disk it is the member that it was; without the mark it may
// begin.
func TestDiskNotMounted(t *testing.T) {
	t.Parallel()
	c := &cluster{t: t, root: t.TempDir(), secrets: map[string]string{}}
	t.Cleanup(c.end)
	m := c.add()
	mark := filepath.Join(c.root, "mark.json")
	m.env = []string{"MUSTER_MARK=" + mark}
	image := m.dir + "-disk" // what is mounted; bound to the directory, so that it outlives an unmount
	m.ownMemory(t, "")
	if err := os.Mkdir(image, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount(m.dir, image, "", syscall.MS_BIND, ""); err != nil {
		t.Skipf("this machine cannot bind a directory: %v", err)
	}
	t.Cleanup(func() { unmount(t, image) })
	m.start(t)
	m.awaitReady(t)
	c.adopt(t)
	if text, err := os.ReadFile(mark); err != nil || !strings.Contains(string(text), c.id) {
		t.Errorf("the mark is %s, %v", text, err)
	}
	m.stop(t)
	unmount(t, m.dir)
	cmd := command{env: m.env}
	refusal(t, "its disk is not mounted", m.dir, "this machine is node 1 (node-1) of cluster "+c.id, cmd, m.args[3:]...)
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refusal(t, "the mark is damaged", m.dir, "cannot be read", cmd, m.args[3:]...)
	if err := syscall.Mount(image, m.dir, "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	m.start(t)
	m.awaitReady(t)
	if id := m.status(t).Cluster.ClusterID; id != c.id {
		t.Errorf("cluster %s instead of %s", id, c.id)
	}
	if text, err := os.ReadFile(mark); err != nil || !strings.Contains(string(text), c.id) {
		t.Errorf("the mark is %s, %v", text, err)
	}
}

// TestLimitsOfTheProcess: a umask that takes the owner's own rights away is not followed, and limits with which no
// member can begin are said in a sentence before anything is made.
func TestLimitsOfTheProcess(t *testing.T) {
	t.Parallel()
	c := &cluster{t: t, root: t.TempDir(), secrets: map[string]string{}}
	t.Cleanup(c.end)
	m := c.add()
	plain := m.args
	m.binary, m.args = "/bin/sh", append([]string{"-c", `umask 0777; exec "$0" "$@"`, self()}, plain...)
	m.start(t)
	m.awaitReady(t)
	c.adopt(t)
	for _, name := range []string{"", "raft", "tls", "muster.db", "node.json", "node.key"} {
		if info, err := os.Stat(m.file(name)); err != nil || info.Mode().Perm()&0o600 != 0o600 {
			t.Errorf("%q: %v, %v", name, info, err)
		}
	}
	dir := filepath.Join(c.root, "other")
	few := command{wrap: []string{"/bin/sh", "-c", `ulimit -n 40; exec "$0" "$@"`}}
	refusal(t, "40 open files", dir, "this process may open 40 files, and a member needs at least 64", few,
		listenFlags()...)
	thin := command{wrap: []string{"/bin/sh", "-c", `ulimit -s 256; exec "$0" "$@"`}}
	refusal(t, "thin stacks", dir, "a thread of this process may have 256 KiB of stack", thin, listenFlags()...)
	full := filepath.Join(c.root, "small")
	if err := os.Mkdir(full, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", full, "tmpfs", 0, "size=1m,mode=700"); err != nil {
		t.Skipf("this machine cannot mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { unmount(t, full) })
	refusal(t, "a disk of 1 MiB", full, fmt.Sprintf("there is no space left for the data directory %s", full), command{},
		listenFlags()...)
}
