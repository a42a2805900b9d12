package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/mattn/go-sqlite3"
)

// A dump is the database as the local server has applied it, with or without a leader. It is requested in dqlite's wire
// protocol (dqlite.io, "Wire protocol") rather than with go-dqlite's client, which holds all of it in memory twice:
// here it goes straight from the server's socket into a file. Schema 1 of the request is ours (scripts/dqlite/0011): it
// asks for the pages that have changed.

const (
	wireVersion     = 1
	wireDump        = 15 // request: the name of a database, and a point
	wireDumpChanges = 1  // schema of that request
	wireFailure     = 0  // answer: a code and a text
	wireFiles       = 9  // answer: how many files; of each the name, the size and the contents

	changesSuffix = "-changes" // of the file that says which pages the answer has
)

var errNoReplica = errors.New("the replica is empty")

// point is a state of the local replica: a number of dqlite's transactions in one history of it. A new process begins a
// new history, and so does a snapshot from the leader. The zero point is none.
type point struct{ history, change uint64 }

// copyReplica writes the local replica to a new file with mode 0600, and returns the point that it is at. It copies the
// mirror and brings the copy up to date, which costs what has changed since; without a mirror of this process it
// requests all pages.
func (e *Engine) copyReplica(ctx context.Context, path string) (point, error) {
	os.Remove(path)
	since, err := e.Mirror.cloneTo(path)
	if err != nil {
		e.log.Debug("the mirror cannot be copied; the whole replica is", "err", err)
		since = point{}
	}
	return e.node.dumpInto(ctx, path, since)
}

// base says that a file is the local replica at a point, but for its first page, as long as nobody else writes to it.
type base struct {
	at   point
	info os.FileInfo // when it was complete
	head [100]byte   // SQLite's header, in which each of its writers counts (SQLite file format, bytes 24 to 27)
}

func baseOf(path string, at point) (base, error) {
	f, err := os.Open(path)
	if err != nil {
		return base{}, err
	}
	defer f.Close()
	return readBase(f, at)
}

func readBase(f *os.File, at point) (b base, err error) {
	if b.info, err = f.Stat(); err != nil {
		return base{}, err
	}
	if _, err = f.ReadAt(b.head[:], 0); err != nil {
		return base{}, err
	}
	b.at = at
	return b, nil
}

// in reports whether a file is the one, and unchanged. Times can be whole seconds, so they alone prove nothing.
func (b base) in(f *os.File) bool {
	now, err := readBase(f, b.at)
	return err == nil && b.info != nil && os.SameFile(b.info, now.info) && b.info.Size() == now.info.Size() &&
		b.info.ModTime().Equal(now.info.ModTime()) && b.head == now.head
}

// cloneTo copies the mirror to a new file with mode 0600 and returns the point of the local replica that the copy is
// at, but for its first page. It returns the zero point, and copies nothing, when that is not known: the mirror is of
// another process or another member, or somebody else has written to it.
func (m *Mirror) cloneTo(path string) (point, error) {
	m.mu.Lock()
	b := m.base
	src, err := os.Open(m.path)
	m.mu.Unlock()
	if err != nil {
		return point{}, err
	}
	defer src.Close()
	if !b.in(src) {
		return point{}, nil
	}
	if err := copyFile(src, path); err != nil || !b.in(src) {
		return point{}, err
	}
	return b.at, nil
}

// dumpInto brings a file with mode 0600 that holds the replica at a point up to date, and returns the new point. For
// the zero point it makes the file, or empties it. It returns errNoReplica when the server has not received any state.
func (n *node) dumpInto(ctx context.Context, path string, since point) (at point, err error) {
	conn, err := n.dialLocal(ctx, "")
	if err != nil {
		return at, fmt.Errorf("%w: %w", errNoConnection, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	flags := os.O_WRONLY
	if since == (point{}) {
		flags |= os.O_CREATE | os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return at, err
	}
	at, err = dumpFrom(conn, f, since)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return at, errors.Join(err, f.Close())
}

func dumpFrom(conn net.Conn, f *os.File, since point) (at point, err error) {
	name := append([]byte(databaseName), make([]byte, 8-len(databaseName)%8)...)
	request := binary.LittleEndian.AppendUint64(nil, wireVersion)
	request = binary.LittleEndian.AppendUint32(request, uint32(len(name)/8+2))
	request = append(request, wireDump, wireDumpChanges, 0, 0)
	request = append(request, name...)
	request = binary.LittleEndian.AppendUint64(request, since.history)
	request = binary.LittleEndian.AppendUint64(request, since.change)
	if _, err := conn.Write(request); err != nil {
		return at, err
	}
	var head [8]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return at, err
	}
	body := &io.LimitedReader{R: conn, N: int64(binary.LittleEndian.Uint32(head[:])) * 8}
	switch head[4] {
	case wireFiles:
	case wireFailure:
		text, err := io.ReadAll(io.LimitReader(body, 1<<10))
		if err != nil || len(text) < 8 {
			return at, errors.Join(errNoReplica, err)
		}
		return at, fmt.Errorf("%w: %s", errNoReplica, bytes.Trim(text[8:], "\x00"))
	default:
		return at, fmt.Errorf("engine: dqlite answers a dump with %d", head[4])
	}
	if _, err := readWord(body); err != nil { // how many files
		return at, err
	}
	c, err := readChangedPages(body)
	if err != nil {
		return at, err
	}
	return c.at, c.apply(body, conn, f)
}

// changedPages says which pages an answer has.
type changedPages struct {
	at        point
	pageSize  int64
	pageCount int64
	pages     []uint64 // their numbers, from 1, in order
}

func readChangedPages(body *io.LimitedReader) (c changedPages, err error) {
	name, size, err := fileHead(body)
	if err != nil {
		return c, err
	}
	if name != databaseName+changesSuffix || size < 4*8 || size > uint64(body.N) {
		return c, fmt.Errorf("engine: dqlite's dump begins with %q of %d bytes", name, size)
	}
	words := make([]byte, size)
	if _, err := io.ReadFull(body, words); err != nil {
		return c, err
	}
	word := func(i int) uint64 { return binary.LittleEndian.Uint64(words[8*i:]) }
	c = changedPages{at: point{word(0), word(1)}, pageSize: int64(word(2)), pageCount: int64(word(3))}
	if c.pageCount == 0 {
		return c, errNoReplica
	}
	for i := 4; i < len(words)/8; i++ {
		c.pages = append(c.pages, word(i))
	}
	return c, nil
}

// apply writes the pages to their places, neighbours at once, and makes the file as long as the database.
func (c *changedPages) apply(body *io.LimitedReader, conn net.Conn, f *os.File) error {
	name, size, err := fileHead(body)
	if err != nil {
		return err
	}
	if name != databaseName || int64(size) != int64(len(c.pages))*c.pageSize || int64(size) > body.N {
		return fmt.Errorf("engine: dqlite's dump has %q of %d bytes for %d pages", name, size, len(c.pages))
	}
	for i := 0; i < len(c.pages); {
		first, n := c.pages[i], 1
		for i+n < len(c.pages) && c.pages[i+n] == first+uint64(n) {
			n++
		}
		if first < 1 || first+uint64(n)-1 > uint64(c.pageCount) {
			return fmt.Errorf("engine: dqlite's dump has page %d of %d", first, c.pageCount)
		}
		if _, err := f.Seek(int64(first-1)*c.pageSize, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.CopyN(f, conn, int64(n)*c.pageSize); err != nil {
			return err
		}
		i += n
	}
	return f.Truncate(c.pageCount * c.pageSize)
}

// fileHead reads the name of a file, which ends with a zero and fills whole words, and its size.
func fileHead(r io.Reader) (name string, size uint64, err error) {
	var b strings.Builder
	for {
		var word [8]byte
		if _, err := io.ReadFull(r, word[:]); err != nil {
			return "", 0, err
		}
		if end := bytes.IndexByte(word[:], 0); end >= 0 {
			b.Write(word[:end])
			break
		}
		b.Write(word[:])
	}
	size, err = readWord(r)
	return b.String(), size, err
}

func readWord(r io.Reader) (uint64, error) {
	var word [8]byte
	_, err := io.ReadFull(r, word[:])
	return binary.LittleEndian.Uint64(word[:]), err
}

// dumpTo writes the local replica to a new file with mode 0600, for the mirror.
func (e *Engine) dumpTo(ctx context.Context, path string) (point, error) {
	ctx, cancel := context.WithTimeout(ctx, dumpTimeout)
	defer cancel()
	if err := e.decided(ctx); err != nil && e.Mirror.Revision() > 0 {
		return point{}, err // the present mirror serves until then
	}
	at, err := e.copyReplica(ctx, path)
	if err != nil {
		return point{}, err
	}
	return at, plainHeader(path)
}

var errUndecided = errors.New("this member has just lost its leadership: what becomes of its last entries is not " +
	"decided yet")

// undecidedAtMost is how long a member that has lost its leadership waits for another leader before it dumps its
// replica all the same. Without a majority nothing decides its last entries, and by then its Raft server no longer
// leads.
var undecidedAtMost = 2 * time.Second

// losesNow notes that this member's leadership ends.
func (e *Engine) losesNow() {
	now := time.Now()
	e.lost.Store(&now)
}

// decided returns errUndecided on a member that has lost its leadership and follows no other leader yet. Its Raft
// server may hold entries that the next leader keeps or replaces, so a dump could lack a committed entry.
func (e *Engine) decided(ctx context.Context) error {
	lost := e.lost.Load()
	if lost == nil {
		return nil
	}
	if id, err := e.FollowsNow(ctx); err == nil && id != 0 && id != e.cfg.NodeID {
		e.lost.CompareAndSwap(lost, nil)
		return nil
	}
	if time.Since(*lost) > undecidedAtMost {
		return nil
	}
	return errUndecided
}

// plainHeader marks the file as not being in WAL mode (SQLite file format, bytes 18 and 19). For a WAL database the
// sqlite3 shell leaves files beside it, which would corrupt the next file of that name.
func plainHeader(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte{1, 1}, 18)
	return errors.Join(err, f.Close())
}

func (w *working) copyTo(ctx context.Context, path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	f.Close()
	dst, err := (&sqlite3.SQLiteDriver{}).Open(FileURL(path, "_synchronous=OFF"))
	if err != nil {
		return err
	}
	defer dst.Close()
	return w.withReader(ctx, func(r *session) error {
		return r.conn.Raw(func(src any) error {
			b, err := dst.(*sqlite3.SQLiteConn).Backup("main", src.(*sqlite3.SQLiteConn), "main")
			if err != nil {
				return err
			}
			_, err = b.Step(-1)
			return errors.Join(err, b.Finish())
		})
	})
}
