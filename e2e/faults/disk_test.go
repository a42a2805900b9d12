package faults

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Each member has a small ext4 of its own where this machine can give it one. Their images are in memory: how fast the
// machine's disk is decides nothing.

const (
	diskSize = 192 << 20 // enough for a small member with its log and its snapshots
	allDisks = "8g"
	filler   = "filler"
)

// Requests of ioctl(2) that let every write to a file system wait, and go on (linux/fs.h).
const (
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
)

// makeRoom prepares for the members' disks; it reports whether this machine can have them.
func (c *campaign) makeRoom() bool {
	if os.Getuid() != 0 {
		return false
	}
	dir := filepath.Join(c.root, "disks")
	if err := os.Mkdir(dir, 0o700); err != nil {
		c.t.Fatal(err)
	}
	return syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+allDisks+",mode=700") == nil
}

// ownDisk gives a member that has not been started a disk.
func (c *campaign) ownDisk(m *member) {
	image := filepath.Join(c.root, "disks", m.name)
	f, err := os.Create(image)
	if err == nil {
		err = errors.Join(f.Truncate(diskSize), f.Close(), os.MkdirAll(m.dir, 0o700))
	}
	if err != nil {
		c.t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", image).CombinedOutput(); err != nil {
		c.note("%s has no disk of its own: %v: %s", m.name, err, out)
		return
	}
	if out, err := exec.Command("mount", "-o", "loop,discard", image, m.dir).CombinedOutput(); err != nil {
		c.note("%s has no disk of its own: %v: %s", m.name, err, out)
		return
	}
	if err := os.Chmod(m.dir, 0o700); err != nil {
		c.t.Fatal(err)
	}
	m.disk = image
}

// takeDisk takes the disk of a member away that has ended.
func (c *campaign) takeDisk(m *member) {
	if m.disk == "" {
		return
	}
	if err := c.host.Within(20*time.Second, func() error { return syscall.Unmount(m.dir, 0) }); err != nil {
		c.t.Errorf("the disk of %s: %v", m.name, err)
		return
	}
	_ = os.Remove(m.disk)
	m.disk = ""
}

// unmount takes all disks away, at the very end: what is on them is kept first.
func (c *campaign) unmount() {
	if !c.disks {
		return
	}
	for _, m := range c.members() {
		c.takeDisk(m)
	}
	if err := c.host.Within(20*time.Second, func() error {
		return syscall.Unmount(filepath.Join(c.root, "disks"), 0)
	}); err != nil {
		c.t.Error(err)
	}
}

// freezeDisk lets every write to the member's disk wait, or go on.
func (m *member) freezeDisk(on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.disk == "" || m.stuck == on {
		return
	}
	request := map[bool]uint{true: fiFreeze, false: fiThaw}[on]
	f, err := os.Open(m.dir)
	if err != nil {
		return
	}
	defer f.Close()
	m.disturbed.Add(1)
	if err := unix.IoctlSetInt(int(f.Fd()), request, 0); err == nil {
		m.stuck = on
	}
}

// stopDisk has a member's disk not answer. A member without a disk of its own is frozen.
func (c *campaign) stopDisk(m *member) (undo func()) {
	if m.disk == "" {
		m.freeze(true)
		return func() { m.freeze(false) }
	}
	m.freezeDisk(true)
	return func() { m.freezeDisk(false) }
}

// fillDisk leaves no room to a member. One without a disk of its own is killed.
func (c *campaign) fillDisk(m *member) (undo func()) {
	if m.disk == "" {
		m.kill()
		return func() { _ = m.start() }
	}
	f, err := os.Create(filepath.Join(m.dir, filler))
	if err != nil {
		return func() {}
	}
	defer f.Close()
	zeros := make([]byte, 1<<20)
	for err == nil {
		_, err = f.Write(zeros)
	}
	return func() { c.emptyDisk(m) }
}

func (c *campaign) emptyDisk(m *member) {
	if m.disk == "" {
		return
	}
	m.freezeDisk(false)
	if err := os.Remove(filepath.Join(m.dir, filler)); err != nil && !errors.Is(err, os.ErrNotExist) {
		c.violate("the disk of %s: %v", m.name, err)
	}
	if p := m.current(); p != nil && !p.running() { // without room a member may end; it must come back
		_ = m.start()
	}
}
