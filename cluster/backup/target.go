package backup

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// target is a place for files of backups.
type target interface {
	// check tries to write a file.
	check() error
	// Create begins a file. It gets its name when it is committed.
	Create(name string) (file, error)
	// Open opens a file and returns its size in bytes.
	Open(name string) (r io.ReadCloser, size int64, err error)
	// Remove deletes a file. A missing file is no error.
	Remove(name string) error
	Close() error
}

// file is a file that is being written.
type file interface {
	io.Writer
	// Reread stores the written data durably and reads the file from its beginning.
	Reread() (io.Reader, error)
	// Commit gives the file its name and replaces a file of that name.
	Commit() error
	// Discard closes the file and deletes it if it was not committed.
	Discard()
}

// directory is a target on this machine. It follows no symbolic links, and only this process's user may write to it.
type directory struct {
	root *os.Root
	tag  string // of the member, in temporary names
}

const partial = ".muster-*.partial" // the star stands for the tag and a number

// openDirectory opens a directory. Its errors are clauses about what is wrong with it.
func openDirectory(path, tag string) (*directory, error) {
	seen, err := os.Lstat(path)
	if err != nil {
		return nil, plain(err)
	}
	switch {
	case seen.Mode()&fs.ModeSymlink != 0:
		return nil, errors.New("it is a symbolic link")
	case !seen.IsDir():
		return nil, errors.New("it is not a directory")
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, plain(err)
	}
	is, err := root.Stat(".")
	if err == nil && !os.SameFile(seen, is) {
		err = errors.New("it was replaced while it was being opened")
	}
	if err == nil {
		err = owned(is)
	}
	if err != nil {
		root.Close()
		return nil, plain(err)
	}
	return &directory{root, tag}, nil
}

// owned rejects a directory in which another user may replace files.
func owned(info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok:
		return errors.New("its owner is not known")
	case int(st.Uid) != os.Geteuid():
		return fmt.Errorf("it belongs to user %d, and muster runs as user %d", st.Uid, os.Geteuid())
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("others may write to it: its mode is %04o, and 0700 is right", info.Mode().Perm())
	}
	return nil
}

// plain returns the meaning of a file system error in a clause; nil for nil.
func plain(err error) error {
	var text string
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		text = "there is no such directory"
	case errors.Is(err, syscall.ENOSPC):
		text = "there is no room left on it"
	case errors.Is(err, syscall.EDQUOT):
		text = "the quota on it is used up"
	case errors.Is(err, syscall.EROFS):
		text = "it is read-only"
	case errors.Is(err, fs.ErrPermission):
		text = "muster may not write to it"
	default:
		return err
	}
	return errors.New(text)
}

// check tries to write a file.
func (d *directory) check() error {
	d.sweep()
	f, err := d.create()
	if err != nil {
		return err
	}
	defer f.Discard()
	if _, err := f.Write([]byte("muster")); err != nil {
		return err
	}
	return plain(f.Sync())
}

// sweep deletes temporary files that a killed process of this member has left.
func (d *directory) sweep() {
	left, _ := fs.Glob(d.root.FS(), strings.Replace(partial, "*", d.tag+"-*", 1))
	for _, name := range left {
		_ = d.root.Remove(name)
	}
}

func (d *directory) Create(name string) (file, error) {
	f, err := d.create()
	if err != nil {
		return nil, err
	}
	f.name = name
	return f, nil
}

func (d *directory) create() (*partialFile, error) {
	temporary := strings.Replace(partial, "*", fmt.Sprintf("%s-%d", d.tag, time.Now().UnixNano()), 1)
	f, err := d.root.OpenFile(temporary, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, plain(err)
	}
	return &partialFile{File: f, in: d, temporary: temporary, since: time.Now()}, nil
}

func (d *directory) Open(name string) (io.ReadCloser, int64, error) {
	info, err := d.root.Lstat(name)
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a file")
	}
	if err != nil {
		return nil, 0, noFile(err)
	}
	f, err := d.root.Open(name)
	if err != nil {
		return nil, 0, noFile(err)
	}
	return f, info.Size(), nil
}

// errNoFile: the file no longer exists.
var errNoFile = errors.New("the file is gone")

func noFile(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errNoFile
	}
	return err
}

func (d *directory) Remove(name string) error {
	if err := d.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return plain(err)
	}
	return d.sync()
}

func (d *directory) sync() error {
	self, err := d.root.Open(".")
	if err != nil {
		return plain(err)
	}
	defer self.Close()
	return plain(self.Sync())
}

func (d *directory) Close() error { return d.root.Close() }

// A file is written in pieces. Each is synced before the next one begins, and a rest follows: one large sync at the end
// would delay the syncs of the Raft log on the same disk.
const (
	pieceBytes = 1 << 20
	pieceRest  = 3 // times as long as the piece took
	longRest   = time.Second
)

// partialFile is a file of a directory that has no name yet.
type partialFile struct {
	*os.File
	in              *directory
	name, temporary string
	since           time.Time // when the piece was begun
	piece           int       // bytes written of it
	committed       bool
}

func (f *partialFile) Write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		part := p[:min(len(p), pieceBytes-f.piece)]
		var m int
		m, err = f.File.Write(part)
		n, f.piece, p = n+m, f.piece+m, p[m:]
		if err == nil && f.piece == pieceBytes {
			err = unix.Fdatasync(int(f.Fd()))
			time.Sleep(min(pieceRest*time.Since(f.since), longRest))
			f.piece, f.since = 0, time.Now()
		}
	}
	return n, plain(err)
}

// Reread reads from the disk if possible, because the page cache proves little.
func (f *partialFile) Reread() (io.Reader, error) {
	if err := f.Sync(); err != nil {
		return nil, plain(err)
	}
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, plain(err)
	}
	return struct{ io.Reader }{f.File}, nil
}

func (f *partialFile) Commit() error {
	if err := f.in.root.Rename(f.temporary, f.name); err != nil {
		return plain(err)
	}
	f.committed = true
	return f.in.sync()
}

func (f *partialFile) Discard() {
	f.Close()
	if !f.committed {
		_ = f.in.root.Remove(f.temporary)
	}
}

// fileNames matches the names of backup files: muster-CLUSTER-TIME-ID.tgz, with .age where they are encrypted.
var fileNames = regexp.MustCompile(`^muster-[0-9a-f]{8}-\d{8}T\d{6}Z-[0-9a-f]{12}\.tgz(\.age)?$`)

// validName reports whether a name is one of a backup file.
func validName(name string) bool { return fileNames.MatchString(name) }
