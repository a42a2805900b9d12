package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// archiveParts packs a state with sums and a description that fit it, without asking SQLite what is in it.
func archiveParts(t testing.TB, meta ArchiveMeta, state []byte) []byte {
	t.Helper()
	meta.Size = int64(len(state))
	text, err := json.Marshal(meta)
	if err != nil {
		t.Fatal(err)
	}
	files := []tarFile{regular(archiveMeta, text), regular(archiveState, state)}
	var sums strings.Builder
	for _, f := range files {
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(f.data), f.Name)
	}
	return packed(t, append(files, regular(archiveSums, []byte(sums.String())))...)
}

// FuzzReadArchive reads bytes as an archive or, when there are none, a good archive whose state has been edited.
// Whatever comes, it is refused in a sentence or it is one of ours, soon, and nothing is left.
func FuzzReadArchive(f *testing.F) {
	path := queryBench(f)
	state, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	meta, err := describe(path)
	if err != nil {
		f.Fatal(err)
	}
	good := archiveParts(f, meta, state)
	for _, archive := range [][]byte{good, good[:len(good)/2], good[:20], packed(f), []byte("hello"),
		packed(f, regular(archiveMeta, []byte(`{"Version":1}`)), regular(archiveSums, nil)),
		packed(f, regular("../state.bin", []byte("x")))} {
		f.Add(archive, uint32(0), []byte(nil))
	}
	schema := uint32(bytes.Index(state, []byte("CREATE TABLE")))
	for _, x := range []struct {
		at   uint32
		edit string
	}{
		{0, ""}, {16, "\x00\x01"}, {16, "\x02\x00"}, {28, "\xff\xff\xff\xfe"}, {44, "\x00\x00\x00\x09"},
		{56, "\x00\x00\x00\x02"}, {60, "\x7f"},
		{100, "\x0d"}, {100, "\x02"}, {103, "\xff\xff"}, {108, "\x00\x00\x00\x01"}, {112, "\x00\x64\x00\x64"},
		{schema, "CREATE VIEW "},
		{4096, "\x0a"}, {8192, "\x05\x00\x00\xff\xff"}, {12288, strings.Repeat("\xff", 512)},
		{uint32(len(state)) - 4096, strings.Repeat("\x00", 4096)},
	} {
		f.Add([]byte(nil), x.at, []byte(x.edit))
	}
	own := fmt.Sprint(contents(f, newBench(f, migratedDB(f)).view())["sqlite_master"])
	f.Fuzz(func(t *testing.T, archive []byte, at uint32, edit []byte) {
		if len(archive) == 0 {
			s := bytes.Clone(state)
			copy(s[int(at)%len(s):], edit)
			archive = archiveParts(t, meta, s)
		}
		readFuzzed(t, archive, own)
	})
}

func readFuzzed(t *testing.T, archive []byte, own string) {
	ctx, cancel := context.WithTimeout(bg, 30*time.Second)
	defer cancel()
	dir := t.TempDir()
	a, err := ReadArchive(ctx, bytes.NewReader(archive), dir, ArchiveLimits{State: 8 << 20})
	if err == nil {
		if x, err := openScratch(ctx, a, LatestSchema()); err == nil {
			if got := fmt.Sprint(contents(t, x.view())["sqlite_master"]); got != own {
				t.Errorf("the copy has another schema: %s", got)
			}
			x.close()
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
	var refusal *Refusal
	if err != nil && (!errors.As(err, &refusal) || strings.Contains(err.Error(), dir)) {
		t.Errorf("it says %v", err)
	}
	if ctx.Err() != nil {
		t.Error("it took until the deadline")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}
