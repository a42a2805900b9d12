package store

import (
	"archive/tar"
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"muster/store/engine"
	"muster/store/foreign"
)

// ArchiveLimits bound the resources for reading an archive.
type ArchiveLimits struct {
	State int64        // bytes of the uncompressed state
	Room  func() int64 // returns the bytes that may be written to the disk now; nil: no limit
	Carry int64        // bytes that a restore holds in memory and in one transaction; 0: maxCarried
}

// MaxArchiveState is the default limit of the uncompressed state in bytes.
const MaxArchiveState = 16 << 30

// scratchCopies is the number of copies of the state on disk during a restore: the unpacked file, and the database made
// from it.
const scratchCopies = 2

// admits checks the announced size of an archive's state before any of it is written.
func (l ArchiveLimits) admits(size int64) error {
	if size > l.State {
		return refuse(Invalid, "the archive's state has %d bytes uncompressed, and this member accepts at most %d", size,
			l.State)
	}
	if l.Room != nil && size > l.Room()/scratchCopies {
		return refuse(Invalid,
			"the archive's state has %d bytes uncompressed: the member that restores it does not have this much "+
				"disk space beyond its reserve", size)
	}
	return nil
}

// ReadArchive reads an archive into a new directory below dir and checks everything that does not need the cluster:
// sizes, checksums, format, and that the state is an intact database with a schema of muster's. No SQL of the archive
// (views, triggers) is executed. It blocks until that is done or ctx ends. Errors are refusals in a sentence.
func ReadArchive(ctx context.Context, r io.Reader, dir string, limits ArchiveLimits) (_ *Archive, err error) {
	tmp, err := os.MkdirTemp(dir, temporary)
	if err != nil {
		return nil, err
	}
	a := &Archive{dir: tmp, State: filepath.Join(tmp, archiveState)}
	defer func() {
		if err != nil {
			_ = a.Close()
		}
		if ctx.Err() != nil && err != nil {
			err = refuse(Invalid, "reading the archive takes too long")
		}
	}()
	x := unpacking{a: a, limits: limits, have: map[string]string{}, want: map[string]string{}}
	if err := x.extract(ctx, r); err != nil {
		return nil, err
	}
	for _, name := range []string{archiveMeta, archiveState, archiveSums} {
		if x.have[name] == "" {
			return nil, refuse(Invalid, "the archive is not a snapshot of muster: it has no %s", name)
		}
	}
	for name, sum := range x.have {
		if name != archiveSums && x.want[name] != sum {
			return nil, refuse(Invalid, "the archive is damaged: the checksum of %s does not match", name)
		}
	}
	if a.Meta.Version != archiveVersion {
		return nil, refuse(Invalid, "the archive has format %d and this binary knows %d", a.Meta.Version, archiveVersion)
	}
	if err := foreign.Check(ctx, a.State, a.Meta.Schema); err != nil {
		return nil, err
	}
	if err := a.small(ctx, cmp.Or(limits.Carry, maxCarried)); err != nil {
		return nil, err
	}
	inside, err := describe(a.State)
	if err != nil {
		return nil, foreign.ErrNoDatabase
	}
	if inside.ClusterID != a.Meta.ClusterID || inside.Index != a.Meta.Index || inside.Schema != a.Meta.Schema ||
		x.size != a.Meta.Size {
		return nil, refuse(Invalid, "the archive contradicts itself: meta.json does not describe its state")
	}
	return a, nil
}

// unpacking is an archive that is being read.
type unpacking struct {
	a          *Archive
	limits     ArchiveLimits
	have, want map[string]string // sums
	size       int64             // of the state
	packed     int64             // bytes received so far, compressed
}

// A database of muster's compresses to a tenth or so, free pages included, because they keep what was in them. Zeros
// compress to a thousandth: three megabytes would keep a member busy for minutes.
const (
	plainState = 256 << 20 // bytes that may come from any number of received ones
	mostPlain  = 100       // bytes from each received one beyond that
)

// stateFile writes the state to a file as long as it can be one of muster's.
type stateFile struct {
	*unpacking
	file    io.Writer
	written int64
}

// Write writes, and fails with a Refusal for a state that compresses too well.
func (f *stateFile) Write(p []byte) (int, error) {
	if f.written += int64(len(p)); f.written > plainState && f.written > mostPlain*f.packed {
		return 0, refuse(Invalid, "the archive is not a snapshot of muster: its state compresses better than 1 to %d",
			mostPlain)
	}
	return f.file.Write(p)
}

// packedReader counts the bytes of an archive as they are received.
type packedReader struct {
	*unpacking
	r io.Reader
}

func (r *packedReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.packed += int64(n)
	return n, err
}

// maxPadding bounds the padding after the end of the tar.
const maxPadding = 1 << 20

func damaged(err error) error {
	return refuse(Invalid, "failed to decompress snapshot: %s", strings.TrimPrefix(err.Error(), "gzip: "))
}

func (x *unpacking) extract(ctx context.Context, r io.Reader) error {
	zip, err := gzip.NewReader(whileIn(ctx, &packedReader{x, r})) // empty members yield nothing for as long as they come
	if err != nil {
		return damaged(eofIsUnexpected(err))
	}
	plain := whileIn(ctx, zip)
	for in := tar.NewReader(plain); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return damaged(err)
		}
		if err := x.member(h, whileIn(ctx, in)); err != nil {
			return err
		}
	}
	n, err := io.Copy(io.Discard, io.LimitReader(plain, maxPadding)) // the checksum of the compressed data comes last
	if err != nil {
		return damaged(err)
	}
	if n == maxPadding {
		return refuse(Invalid, "the archive is not a snapshot of muster: there is data after its end")
	}
	return nil
}

// member reads one file of the archive. It rejects names, types and sizes that a snapshot does not have.
func (x *unpacking) member(h *tar.Header, in io.Reader) error {
	var into io.Writer
	var text bytes.Buffer
	switch h.Name {
	case archiveState, archiveMeta, archiveKeys, archiveSums:
	default:
		return refuse(Invalid, "the archive is not a snapshot of muster: it holds %.64q", h.Name)
	}
	if x.have[h.Name] != "" || h.Typeflag != tar.TypeReg || sparse(h) || h.Size < 0 ||
		h.Name != archiveState && h.Size > maxArchiveMeta {
		return refuse(Invalid, "the archive is not a snapshot of muster: %s has a wrong type or size", h.Name)
	}
	into = &text
	if h.Name == archiveState {
		if err := x.limits.admits(h.Size); err != nil {
			return err
		}
		f, err := os.OpenFile(x.a.State, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		into, x.size = &stateFile{unpacking: x, file: f}, h.Size
	}
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(into, sum), in); err != nil {
		var refusal *Refusal
		if errors.As(err, &refusal) {
			return refusal
		}
		return damaged(err)
	}
	x.have[h.Name] = hex.EncodeToString(sum.Sum(nil))
	var err error
	switch h.Name {
	case archiveMeta:
		err = json.Unmarshal(text.Bytes(), &x.a.Meta)
	case archiveKeys:
		err = json.Unmarshal(text.Bytes(), &x.a.Keys)
	case archiveSums:
		for lines := bufio.NewScanner(&text); lines.Scan(); {
			if sum, name, ok := strings.Cut(lines.Text(), "  "); ok {
				x.want[name] = sum
			}
		}
	}
	if err != nil {
		return refuse(Invalid, "the archive is damaged: %s cannot be read", h.Name)
	}
	return nil
}

// sparse reports whether a file has holes, for which nothing lies in the archive.
func sparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

const (
	// maxCarried is how many bytes of a state a restore takes into memory and into one transaction: what people have put
	// into a cluster.
	maxCarried = 512 << 20
	// perRow is what a row takes beside its values.
	perRow = 64
)

// small refuses a state with more than a restore can carry. It blocks while it is counted, or until ctx ends.
func (a *Archive) small(ctx context.Context, most int64) error {
	o, err := openFile(a.State)
	if err != nil {
		return foreign.ErrNoDatabase
	}
	defer o.Close()
	v, sum := viewOf(o), int64(0)
	for i := range registry {
		r := &registry[i]
		if r.fate == kept && r.sealed == nil && r.name != "members" && r.name != "dek_wraps" {
			continue
		}
		t, err := v.v.Table(r.name)
		if errors.Is(err, engine.ErrNoTable) { // of a later step
			continue
		}
		if err != nil {
			return foreign.ErrNoDatabase
		}
		n, err := foreign.Measure(ctx, a.State, t.Bytes(perRow))
		if err != nil {
			return foreign.ErrNoDatabase
		}
		if sum += n; sum > most {
			return refuse(Invalid, "the archive's state holds more than %d bytes in its tables up to %s, which a restore would "+
				"have to carry at once", most, r.name)
		}
	}
	return nil
}

func eofIsUnexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// whileIn returns a reader that fails when ctx ends: decompressing a few bytes can go on for long without reading any.
func whileIn(ctx context.Context, r io.Reader) io.Reader { return &contextReader{ctx, r} }

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
