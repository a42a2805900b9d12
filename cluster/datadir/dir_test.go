package datadir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestDataDirectoryOfFileSystem: what a file system makes at its root does not keep a member from beginning there; what
// somebody else has put there does.
func TestDataDirectoryOfFileSystem(t *testing.T) {
	for name, ok := range map[string]bool{"lost+found/": true, ".snapshot/": true, ".snapshots/": true, ".zfs/": true,
		"aquota.user": true, "quota.group": true,
		"lost+found": false, "aquota.user/": false, "lost+found2/": false, "photos.txt": false, ".git/": false,
		".hidden": false} {
		d := &Dir{Path: t.TempDir()}
		path := filepath.Join(d.Path, strings.TrimSuffix(name, "/"))
		err := os.Mkdir(path, 0o700)
		if !strings.HasSuffix(name, "/") {
			_ = os.Remove(path)
			err = os.WriteFile(path, nil, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := d.checkUnused(); (err == nil) != ok {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(path); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestUnmounted: a directory below a mount point of fstab(5) on which nothing is mounted is told from all others.
func TestUnmounted(t *testing.T) {
	const fstab = `# comment
UUID=1 /              ext4 defaults 0 1
UUID=2 /srv/data      ext4 nofail 0 2
UUID=3 /srv/data/deep xfs  defaults 0 2
UUID=4 /srv/with\040space/ ext4 defaults 0 2
tmpfs  /memory        tmpfs defaults 0 0
UUID=5 none           swap sw 0 0
/dev/x /auto          ext4 noauto
short
`
	const root, data = "21 1 254:0 / / rw - ext4 /dev/vda rw\n", "30 21 254:1 / /srv/data rw,relatime shared:1 - ext4 " +
		"/dev/vdb rw\n"
	for _, x := range []struct{ path, mounts, want string }{
		{"/srv/data", root, "/srv/data"},
		{"/srv/data/muster", root, "/srv/data"},
		{"/srv/data/muster", root + data, ""},
		{"/srv/data/deep/muster", root + data, "/srv/data/deep"},
		{"/srv/database", root, ""},
		{"/srv", root, ""},
		{"/srv/with space/muster", root, "/srv/with space"},
		{"/srv/with space/muster", root + "31 21 254:2 / /srv/with\\040space rw - ext4 /dev/vdc rw\n", ""},
		{"/memory/muster", root, ""},
		{"/auto/muster", root, "/auto"},
		{"/", root, ""},
	} {
		if got := unmounted([]string{x.path}, []byte(fstab), []byte(x.mounts)); got != x.want {
			t.Errorf("%s with\n%s: %q, want %q", x.path, x.mounts, got, x.want)
		}
	}
	if got := unmounted([]string{"/link", "/srv/data/muster"}, []byte(fstab), []byte(root)); got != "/srv/data" {
		t.Errorf("through a symbolic link: %q", got)
	}
}

// TestGiveBack: what root makes in the directory of another user becomes that user's, and nothing outside of it.
func TestGiveBack(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can")
	}
	const user = 54321
	base := t.TempDir()
	dir, outside := filepath.Join(base, "data"), filepath.Join(base, "outside")
	for _, name := range []string{dir, outside, filepath.Join(dir, "raft")} {
		if err := os.Mkdir(name, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{filepath.Join(outside, "secret"), filepath.Join(outside, "linked"),
		filepath.Join(dir, "raft", "segment")} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	err := errors.Join(os.Symlink(outside, filepath.Join(dir, "away")),
		os.Link(filepath.Join(outside, "linked"), filepath.Join(dir, "hard")),
		os.Chown(dir, user, user))
	if err != nil {
		t.Fatal(err)
	}
	owner := func(name string) uint32 {
		info, err := os.Lstat(name)
		if err != nil {
			t.Fatal(err)
		}
		return info.Sys().(*syscall.Stat_t).Uid
	}
	x := &doctor{d: &Dir{Path: dir}}
	if !x.owners() || len(x.list) != 1 || x.list[0].State != FindingFail ||
		!strings.Contains(x.list[0].Next, "chown -R 54321") {
		t.Errorf("doctor says %+v", x.list)
	}
	giveBack(dir)
	for name, want := range map[string]uint32{"raft": user, "raft/segment": user, "away": 0, "away/secret": 0, "hard": 0} {
		if got := owner(filepath.Join(dir, name)); got != want {
			t.Errorf("%s belongs to %d, want %d", name, got, want)
		}
	}
}
