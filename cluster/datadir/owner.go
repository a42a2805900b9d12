package datadir

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// giveBack gives files that root has made in a directory to the directory's owner; the member could not be started as
// its user otherwise. It changes only files of root with one name in the directory, and ignores errors.
func giveBack(dir string) {
	info, err := os.Stat(dir)
	if err != nil || os.Geteuid() != 0 {
		return
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 {
		return
	}
	root, err := os.OpenRoot(dir) // symbolic links must not lead root out of it
	if err != nil {
		return
	}
	defer root.Close()
	_ = fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return nil
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid == 0 && (e.IsDir() || e.Type().IsRegular() && st.Nlink == 1) {
			_ = root.Lchown(name, int(owner.Uid), int(owner.Gid))
		}
		return nil
	})
}

// owners looks for files of other users than the directory's owner, such as root, and reports whether it found some.
// The member's user cannot use them.
func (x *doctor) owners() bool {
	uid := func(info fs.FileInfo, err error) (uint32, bool) {
		if err != nil {
			return 0, false
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		return st.Uid, ok
	}
	owner, ok := uid(os.Stat(x.d.Path))
	if !ok {
		return false
	}
	others, first := 0, ""
	_ = filepath.WalkDir(x.d.Path, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if its, ok := uid(e.Info()); ok && its != owner {
			if others++; first == "" {
				first, _ = filepath.Rel(x.d.Path, path)
			}
		}
		return nil
	})
	if others > 0 {
		x.say("owner", FindingFail, fmt.Sprintf("as root, chown -R %d %s", owner, x.d.Path),
			"%s in it belong to other users than user %d, whose it is (%s)", count(others, "file"), owner, first)
	}
	return others > 0
}
