package store

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"database/sql"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster/store/engine"
)

// archiveOf packs a state file as a snapshot is.
func archiveOf(t *testing.T, state string, change func(*ArchiveMeta)) []byte {
	t.Helper()
	meta := ArchiveMeta{Version: archiveVersion, Schema: LatestSchema(), ClusterID: "x", Index: 1}
	info, err := os.Stat(state)
	if err != nil {
		t.Fatal(err)
	}
	meta.Size = info.Size()
	if change != nil { // of what describes a good state
		good, err := describe(state)
		if err != nil {
			t.Fatal(err)
		}
		good.Size = meta.Size
		change(&good)
		meta = good
	}
	var out bytes.Buffer
	if err := WriteArchive(&out, meta, state, nil); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// changed makes a copy of a state and runs SQL on it.
func changed(t *testing.T, state string, statements ...string) string {
	t.Helper()
	data, err := os.ReadFile(state)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "state.bin")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite3", engine.FileURL(path, ""))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	for _, query := range statements {
		if _, err := db.Exec(query); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
	return path
}

type tarFile struct {
	tar.Header
	data []byte
}

// packed makes an archive of any files.
func packed(t testing.TB, files ...tarFile) []byte {
	t.Helper()
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	w := tar.NewWriter(zip)
	for _, f := range files {
		if f.Size == 0 {
			f.Size = int64(len(f.data))
		}
		if err := w.WriteHeader(&f.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f.data); err != nil {
			t.Fatal(err)
		}
	}
	w.Close() // an archive that announces more than it holds is meant
	zip.Close()
	return out.Bytes()
}

func regular(name string, data []byte) tarFile {
	return tarFile{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o600}, data}
}

var testLimits = ArchiveLimits{State: 16 << 20}

// refusedArchive reads an archive that must be refused at once, and checks that nothing is left.
func refusedArchive(t *testing.T, name string, archive io.Reader, limits ArchiveLimits, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(bg, 30*time.Second)
	defer cancel()
	dir := t.TempDir()
	a, err := ReadArchive(ctx, archive, dir, limits)
	if err == nil {
		x, oerr := openScratch(ctx, a, LatestSchema())
		if err = oerr; oerr == nil {
			x.close()
		}
		a.Close()
	}
	var refusal *Refusal
	if err == nil || !strings.Contains(err.Error(), want) || want != "" && !errors.As(err, &refusal) ||
		strings.Contains(err.Error(), dir) {
		t.Errorf("%s: %v, want %q", name, err, want)
	}
	if ctx.Err() != nil {
		t.Errorf("%s: took until the deadline", name)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("%s: %s is left", name, left[0].Name())
	}
}

// repacked replaces bytes of an archive's tar.
func repacked(t *testing.T, archive []byte, old, by string) []byte {
	t.Helper()
	zip, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(zip)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	again := gzip.NewWriter(&out)
	_, _ = again.Write(bytes.ReplaceAll(plain, []byte(old), []byte(by)))
	again.Close()
	return out.Bytes()
}

func emptyGzip(t *testing.T) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := gzip.NewWriter(&out).Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// repeated reads the same bytes without end.
type repeated struct {
	part []byte
	at   int
}

func (r *repeated) Read(p []byte) (n int, err error) {
	for n < len(p) {
		k := copy(p[n:], r.part[r.at:])
		n, r.at = n+k, (r.at+k)%len(r.part)
	}
	return n, nil
}

// TestUnlockIsBounded: what lies in a state as wraps of its keys is looked at while somebody waits, and not at any
// length.
func TestUnlockIsBounded(t *testing.T) {
	identity := mustIdentity(t)
	path := changed(t, queryBench(t), "UPDATE dek_wraps SET wrap = zeroblob(100000)")
	a := &Archive{State: path}
	if deks, err := a.Unlock(bg, identity); err != nil || len(deks) > 0 {
		t.Errorf("%d keys, %v", len(deks), err)
	}
	ctx, cancel := context.WithCancel(bg)
	cancel()
	if _, err := a.Unlock(ctx, identity); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
