package sumtar

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

func TestWriter(t *testing.T) {
	at := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	var data bytes.Buffer
	w, err := NewWriter(&data, at)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.AddJSON("meta.json", []int{1}), w.Add("a/b", 5, strings.NewReader("bytes")),
		w.Close()); err != nil {
		t.Fatal(err)
	}
	zip, err := gzip.NewReader(&data)
	if err != nil {
		t.Fatal(err)
	}
	want, got := "", ""
	var names []string
	for in := tar.NewReader(zip); ; {
		h, err := in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(in)
		if err != nil || h.Mode != 0o600 || !h.ModTime.Equal(at) {
			t.Errorf("%s: %v, %v, %v", h.Name, err, h.Mode, h.ModTime)
		}
		if names = append(names, h.Name); h.Name == Sums {
			got = string(content)
			continue
		}
		want += fmt.Sprintf("%x  %s\n", sha256.Sum256(content), h.Name)
	}
	if got != want || strings.Join(names, " ") != "meta.json a/b "+Sums {
		t.Errorf("%v:\n%s, want\n%s", names, got, want)
	}
}

// A file that is shorter or longer than announced makes no valid archive.
func TestSizeDiffers(t *testing.T) {
	for _, size := range []int64{4, 6} {
		w, err := NewWriter(io.Discard, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		if w.Add("a", size, strings.NewReader("bytes")) == nil {
			t.Errorf("a file of 5 bytes is taken for one of %d", size)
		}
	}
}
