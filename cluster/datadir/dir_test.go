package datadir

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDataDirectoryOfFileSystem: what a file system makes at its root does not keep a member from beginning there; what
// somebody else has put there does.
func TestDataDirectoryOfFileSystem(t *testing.T) {
	for name, ok := range map[string]bool{"lost+found/": true, ".snapshot/": true, ".snapshots/": true, ".zfs/": true,
		"aquota.user": true, "quota.group": true,
		"lost+found": false, "aquota.user/": false, "lost+found2/": false, "photos.txt": false, ".git/": false, ".hidden": false} {
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
