package engine

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const workingName = "leader.db"

// working is the leader's own copy of the database, a local SQLite file in WAL mode.
//
// Transactions run on it at the cost of a function call, where dqlite needs a round trip for each statement; only their
// changes are then sent to dqlite. Readers see them after a majority has committed them.
type working struct {
	dir     string
	writer  *session
	readers chan *session
	closed  chan struct{}
	dbs     []*sql.DB
}

const readerCount = 4

// openWorking makes a working copy of the file that dump writes.
func openWorking(dir string, latest int64, dump func(path string) error) (*working, error) {
	if err := removeWorking(dir); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, workingName)
	if err := dump(path); err != nil {
		return nil, fmt.Errorf("copy the database: %w", err)
	}
	w := &working{dir: dir, readers: make(chan *session, readerCount), closed: make(chan struct{})}
	open := func(params string) (*session, error) {
		db, err := sql.Open("sqlite3", FileURL(path, params))
		if err != nil {
			return nil, err
		}
		w.dbs = append(w.dbs, db)
		return newSession(db, latest)
	}
	// The copy need not survive a crash: each leadership makes its own.
	var err error
	discard := func(err error) (*working, error) {
		for _, db := range w.dbs {
			db.Close()
		}
		return nil, fmt.Errorf("open the leader's working copy: %w", err)
	}
	if w.writer, err = open("_journal_mode=WAL&_synchronous=OFF&_foreign_keys=1&_busy_timeout=2000"); err != nil {
		return discard(err)
	}
	for range readerCount {
		r, err := open("mode=ro&_query_only=1&_busy_timeout=2000")
		if err != nil {
			return discard(err)
		}
		w.readers <- r
	}
	return w, nil
}

// warm makes the readers read the schema, which each would do at its first statement.
func (w *working) warm() error {
	for range readerCount {
		r := <-w.readers
		_, err := (&View{s: r}).position()
		w.readers <- r
		if err != nil {
			return err
		}
	}
	return nil
}

// close waits for active readers; later ones get ErrNotLeader. It deletes the files first: SQLite would checkpoint the
// database when its last connection is closed.
func (w *working) close() {
	_ = removeWorking(w.dir)
	close(w.closed)
	for range readerCount {
		r := <-w.readers
		_ = r.close()
	}
	_ = w.writer.close()
	for _, db := range w.dbs {
		db.Close()
	}
}

// withReader lends f one of the readers.
func (w *working) withReader(ctx context.Context, f func(*session) error) error {
	select {
	case r := <-w.readers:
		defer func() { w.readers <- r }()
		return f(r)
	case <-w.closed:
		return ErrNotLeader
	case <-ctx.Done():
		return ErrNoLeader
	}
}

// read runs f inside one read transaction.
func (w *working) read(ctx context.Context, now time.Time, f func(*View) error) error {
	return w.withReader(ctx, func(r *session) error {
		if _, err := r.exec("BEGIN"); err != nil {
			return err
		}
		defer func() { _, _ = r.exec("COMMIT") }()
		return f(&View{s: r, Now: now})
	})
}

func removeWorking(dir string) error {
	for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
		if err := os.Remove(filepath.Join(dir, workingName+suffix)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("the data directory cannot be used: %w", err)
		}
	}
	return nil
}
