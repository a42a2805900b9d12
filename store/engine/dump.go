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
// here it goes straight from the server's socket into a file.

const (
	wireVersion = 1
	wireDump    = 15 // request: the name of a database
	wireFailure = 0  // answer: a code and a text
	wireFiles   = 9  // answer: how many files; of each the name, the size and the contents
)

var errNoReplica = errors.New("the replica is empty")

// dumpInto writes the replica to a new file with mode 0600. It returns errNoReplica when the server has not received
// any state.
func (n *node) dumpInto(ctx context.Context, path string) error {
	conn, err := n.dialLocal(ctx, "")
	if err != nil {
		return fmt.Errorf("%w: %w", errNoConnection, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = dumpFrom(conn, f)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return errors.Join(err, f.Close())
}

func dumpFrom(conn net.Conn, f *os.File) error {
	name := append([]byte(databaseName), make([]byte, 8-len(databaseName)%8)...)
	request := binary.LittleEndian.AppendUint64(nil, wireVersion)
	request = binary.LittleEndian.AppendUint32(request, uint32(len(name)/8))
	request = append(request, wireDump, 0, 0, 0)
	if _, err := conn.Write(append(request, name...)); err != nil {
		return err
	}
	var head [8]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return err
	}
	body := &io.LimitedReader{R: conn, N: int64(binary.LittleEndian.Uint32(head[:])) * 8}
	switch head[4] {
	case wireFiles:
	case wireFailure:
		text, err := io.ReadAll(io.LimitReader(body, 1<<10))
		if err != nil || len(text) < 8 {
			return errors.Join(errNoReplica, err)
		}
		return fmt.Errorf("%w: %s", errNoReplica, bytes.Trim(text[8:], "\x00"))
	default:
		return fmt.Errorf("engine: dqlite answers a dump with %d", head[4])
	}
	files, err := readWord(body)
	if err != nil {
		return err
	}
	found := false
	for range files {
		name, size, err := fileHead(body)
		switch {
		case err != nil:
			return err
		case name == databaseName:
			if size < 100 || size > uint64(body.N) {
				return errNoReplica
			}
			if _, err := io.CopyN(f, conn, int64(size)); err != nil {
				return err
			}
			body.N -= int64(size)
			found = true
		case size > 0:
			return errors.New("engine: dqlite's dump has a write-ahead log, which muster cannot read")
		}
	}
	if !found {
		return errNoReplica
	}
	return nil
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

// dumpTo writes the local replica to a file with mode 0600.
func (e *Engine) dumpTo(ctx context.Context, path string) error {
	os.Remove(path)
	if l := e.current(); l != nil {
		// The leader copies its working copy: during a dump dqlite holds up commits.
		if err := l.work.copyTo(ctx, path); err != nil {
			return err
		}
		return plainHeader(path)
	}
	ctx, cancel := context.WithTimeout(ctx, dumpTimeout)
	defer cancel()
	if err := e.decided(ctx); err != nil && e.Mirror.Revision() > 0 {
		return err // the present mirror serves until then
	}
	if err := e.node.dumpInto(ctx, path); err != nil {
		return err
	}
	return plainHeader(path)
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
