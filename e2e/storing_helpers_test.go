package e2e

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// ownDisk gives a member that has not been started an ext4 of its own, which a test can freeze.
func (m *member) ownDisk(t *testing.T) {
	t.Helper()
	image := m.dir + ".img"
	f, err := os.Create(image)
	if err == nil {
		err = f.Truncate(diskSize)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
	m.mount(t)
	t.Cleanup(func() {
		m.freeze(t, false) // a process that waits for a frozen disk does not die before it is thawed
		if m.up() {
			m.stop(t)
		}
		unmount(t, m.dir)
	})
	if err := os.Chmod(m.dir, 0o700); err != nil {
		t.Fatal(err)
	}
}

// ownQuota gives a member that has not been started a btrfs of its own with quotas, which hold for root as well.
func (m *member) ownQuota(t *testing.T) {
	t.Helper()
	image := m.dir + ".img"
	f, err := os.Create(image)
	if err == nil {
		err = f.Truncate(2 * diskSize)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.btrfs", "-q", "-f", image).CombinedOutput(); err != nil {
		t.Skipf("mkfs.btrfs: %v: %s", err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop", image, m.dir).CombinedOutput(); err != nil {
		t.Skipf("this machine cannot mount a btrfs: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if m.up() {
			m.stop(t)
		}
		unmount(t, m.dir)
	})
	m.btrfs(t, "quota", "enable", m.dir)
	if err := os.Chmod(m.dir, 0o700); err != nil {
		t.Fatal(err)
	}
}

func (m *member) btrfs(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("btrfs", args...).CombinedOutput(); err != nil {
		t.Skipf("btrfs %v: %v: %s", args, err, out)
	}
}

// mount mounts the member's own disk.
func (m *member) mount(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("mount", "-o", "loop,errors=remount-ro", m.dir+".img",
		m.dir).CombinedOutput(); err != nil {
		t.Skipf("this machine cannot give a member a disk of its own: %v: %s", err, out)
	}
}

// ownMemory gives a member that has not been started a tmpfs of its own.
func (m *member) ownMemory(t *testing.T, options string) {
	t.Helper()
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", m.dir, "tmpfs", 0, "size=192m,mode=700,"+options); err != nil {
		t.Skipf("this machine cannot mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if m.up() {
			m.stop(t)
		}
		unmount(t, m.dir)
	})
}

func unmount(t *testing.T, dir string) {
	if err := within(20*time.Second, func() error { return syscall.Unmount(dir, 0) }); err != nil {
		t.Error(err)
	}
}

// freeze lets every write to the member's disk wait, or go on.
func (m *member) freeze(t *testing.T, frozen bool) {
	t.Helper()
	flag := map[bool]string{true: "-f", false: "-u"}[frozen]
	if out, err := exec.Command("fsfreeze", flag, m.dir).CombinedOutput(); err != nil && frozen {
		t.Fatalf("fsfreeze: %v: %s", err, out)
	}
}
