package certs

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "k")
	for _, tc := range []struct {
		data string
		perm fs.FileMode
	}{{"one", 0o600}, {"two, longer", 0o644}, {"", 0o666}} { // 0666: the umask has no say
		if err := WriteFile(path, []byte(tc.data), tc.perm); err != nil {
			t.Fatal(err)
		}
		if got, info := must(os.ReadFile(path)), must(os.Stat(path)); string(got) != tc.data || info.Mode() != tc.perm {
			t.Errorf("%q, %v", got, info.Mode())
		}
	}
	target := filepath.Join(dir, "target")
	os.WriteFile(target, []byte("keep"), 0o600)
	link := filepath.Join(dir, "link")
	os.Symlink(target, link)
	if err := WriteFile(link, []byte("new"), 0o600); err != nil || string(must(os.ReadFile(target))) != "keep" {
		t.Error("a link was followed", err)
	}
	t.Chdir(dir)
	if err := WriteFile("plain", nil, 0o600); err != nil {
		t.Error(err)
	}

	// Failures leave nothing behind.
	if err := WriteFile(filepath.Join(dir, "no", "k"), nil, 0o600); err == nil {
		t.Error("wrote into a directory that is not there")
	}
	sub := filepath.Join(dir, "d")
	os.MkdirAll(filepath.Join(sub, "full"), 0o700)
	if err := WriteFile(filepath.Join(sub), nil, 0o600); err == nil {
		t.Error("replaced a directory")
	}
	left := must(filepath.Glob(filepath.Join(dir, ".*")))
	if len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
}
