// Package sumtar writes gzip'ed tar archives whose last file, SHA256SUMS, has the checksums of all others in the format
// of sha256sum. It does not know what the files mean, and it does not read archives: each reader has limits of its own.
package sumtar

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Sums is the name of the last file.
const Sums = "SHA256SUMS"

// Writer writes one archive. Every file has mode 0600 and the same time.
type Writer struct {
	zip  *gzip.Writer
	out  *tar.Writer
	at   time.Time
	sums strings.Builder
}

// NewWriter begins an archive; at is the time of its files. Close ends it.
func NewWriter(w io.Writer, at time.Time) (*Writer, error) {
	zip, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	return &Writer{zip: zip, out: tar.NewWriter(zip), at: at}, nil
}

// Add adds a file of size bytes. It returns io.ErrUnexpectedEOF when r has fewer, and an error of package tar when it
// has more.
func (w *Writer) Add(name string, size int64, r io.Reader) error {
	if err := w.out.WriteHeader(&tar.Header{
		Name:    name,
		Mode:    0o600,
		Size:    size,
		ModTime: w.at,
		Format:  tar.FormatPAX,
	}); err != nil {
		return err
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(w.out, sum), r)
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	fmt.Fprintf(&w.sums, "%x  %s\n", sum.Sum(nil), name)
	return err
}

// AddJSON adds a file with v as indented JSON.
func (w *Writer) AddJSON(name string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return w.Add(name, int64(len(text)), bytes.NewReader(text))
}

// Close adds the checksums and ends the archive. It does not close the writer below.
func (w *Writer) Close() error {
	sums := w.sums.String()
	if err := w.Add(Sums, int64(len(sums)), strings.NewReader(sums)); err != nil {
		return err
	}
	return errors.Join(w.out.Close(), w.zip.Close())
}
