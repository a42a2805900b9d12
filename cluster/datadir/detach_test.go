package datadir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// detachDir is a directory of a member with the new cluster complete beside it.
func detachDir(t *testing.T) (*Dir, *Dir) {
	t.Helper()
	path := t.TempDir()
	for _, name := range []string{"node.key", "muster.db", "tls/http.key", "raft/open-1", "node.json"} {
		put(t, filepath.Join(path, name), "old")
		if name == "raft/open-1" || name == "muster.db" {
			continue
		}
		put(t, filepath.Join(path, detachingDir, name), "new")
	}
	put(t, filepath.Join(path, detachingDir, restoreFile), "new")
	put(t, filepath.Join(path, lockFile), "")
	put(t, filepath.Join(path, "member.log"), "kept")
	return &Dir{Path: path}, &Dir{Path: filepath.Join(path, detachingDir)}
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func move(t *testing.T, from, to string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o700), os.Rename(from, to)); err != nil {
		t.Fatal(err)
	}
}

// TestDetachInterrupted kills a detachment after each of its steps: the directory does not open in between, and the
// next run ends where an undisturbed one does.
func TestDetachInterrupted(t *testing.T) {
	before := func(d *Dir, name string) string { return filepath.Join(d.Path, beforeDetach+"then", name) }
	steps := []func(t *testing.T, d, next *Dir){
		func(t *testing.T, _, next *Dir) { put(t, next.file(beforeFile), beforeDetach+"then") },
		func(t *testing.T, d, _ *Dir) { move(t, d.file("muster.db"), before(d, "muster.db")) },
		func(t *testing.T, d, _ *Dir) { move(t, d.file("node.key"), before(d, "node.key")) },
		func(t *testing.T, d, _ *Dir) { move(t, d.file("raft"), before(d, "raft")) },
		func(t *testing.T, d, _ *Dir) { move(t, d.file("tls"), before(d, "tls")) },
		func(t *testing.T, d, _ *Dir) { put(t, before(d, nodeFile), "old") },
		func(t *testing.T, d, next *Dir) { move(t, next.file("node.key"), d.file("node.key")) },
		func(t *testing.T, d, next *Dir) { move(t, next.file("tls"), d.file("tls")) },
		func(t *testing.T, d, next *Dir) { move(t, next.file(restoreFile), d.file(restoreFile)) },
	}
	for n := range len(steps) + 1 {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			d, next := detachDir(t)
			for _, step := range steps[:n] {
				step(t, d, next)
			}
			if _, err := Open(d.Path); !errors.Is(err, errDetaching) {
				t.Errorf("it opens in between: %v", err)
			}
			aside, err := d.replaceBy(next, time.Unix(0, 0))
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]string{
				"node.json": "new", "node.key": "new", "tls/http.key": "new", restoreFile: "new", "member.log": "kept",
			}
			old := []string{"node.json", "node.key", "muster.db", "tls/http.key", "raft/open-1"}
			for name, text := range want {
				if got, err := os.ReadFile(d.file(name)); err != nil || string(got) != text {
					t.Errorf("%s is %q, %v", name, got, err)
				}
			}
			for _, name := range old {
				if got, err := os.ReadFile(filepath.Join(aside, name)); err != nil || string(got) != "old" {
					t.Errorf("%s of before is %q, %v", name, got, err)
				}
			}
			left, err := filepath.Glob(d.file("*"))
			if err != nil || len(left) != 7 || slices.Contains(left, next.Path) {
				t.Errorf("in the directory are %v", left)
			}
		})
	}
}
