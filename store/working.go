package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/mattn/go-sqlite3"
)

const workingName = "leader.db"

// working is the leader's own copy of the database, a local SQLite file in WAL mode.
//
// Transactions are tried out on it at the price of a function call, where dqlite asks for a round trip per
// statement; only what they changed is then sent to dqlite. Readers see it after the commit on the majority.
type working struct {
	dir     string
	writer  *session
	readers chan *session
	closed  chan struct{}
	dbs     []*sql.DB
}

const readerCount = 4

func openWorking(dir string, image []byte) (*working, error) {
	if err := removeWorking(dir); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, workingName)
	if err := os.WriteFile(path, image, 0o600); err != nil {
		return nil, fmt.Errorf("write the leader's working copy: %w", err)
	}
	w := &working{dir: dir, readers: make(chan *session, readerCount), closed: make(chan struct{})}
	open := func(params string) (*session, error) {
		db, err := sql.Open("sqlite3", fileURL(path, params))
		if err != nil {
			return nil, err
		}
		w.dbs = append(w.dbs, db)
		return newSession(db)
	}
	// Nothing here needs to survive a crash: the copy is made anew whenever leadership begins.
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

// close waits for the readers that are under way; reads that come later get ErrNotLeader.
func (w *working) close() {
	close(w.closed)
	for range readerCount {
		r := <-w.readers
		r.conn.Close()
	}
	w.writer.conn.Close()
	for _, db := range w.dbs {
		db.Close()
	}
	_ = removeWorking(w.dir)
}

// session is one connection with its prepared statements.
type session struct {
	conn  *sql.Conn
	stmts map[string]*sql.Stmt
}

func newSession(db *sql.DB) (*session, error) {
	conn, err := db.Conn(context.Background())
	if err != nil {
		return nil, err
	}
	return &session{conn: conn, stmts: make(map[string]*sql.Stmt)}, nil
}

// stmt prepares a statement once. Contexts are left out below: the file is local and statements are short, and
// go-sqlite3 starts a goroutine for every call whose context can end.
func (s *session) stmt(query string) (*sql.Stmt, error) {
	if st := s.stmts[query]; st != nil {
		return st, nil
	}
	st, err := s.conn.PrepareContext(context.Background(), query)
	if err != nil && s.outdated(err) {
		return nil, fmt.Errorf("%w: %w", ErrOldSchema, err)
	}
	if err != nil {
		return nil, fmt.Errorf("prepare %q: %w", query, err)
	}
	s.stmts[query] = st
	return st, nil
}

func (s *session) exec(query string, args ...any) (sql.Result, error) {
	st, err := s.stmt(query)
	if err != nil {
		return nil, err
	}
	return st.Exec(args...)
}

// View reads one consistent state. It is valid only inside the function that it is given to.
type View struct {
	s   *session
	Now time.Time // the time of the transaction or read
}

func (v *View) query(query string, args ...any) (*sql.Rows, error) {
	st, err := v.s.stmt(query)
	if err != nil {
		return nil, err
	}
	return st.Query(args...)
}

// get scans the single row of a query into dest and tells whether there was one.
func (v *View) get(query string, args []any, dest ...any) (bool, error) {
	st, err := v.s.stmt(query)
	if err != nil {
		return false, err
	}
	err = st.QueryRow(args...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// collect reads all rows of a query through scan.
func collect[T any](v *View, scan func(*sql.Rows) (T, error), query string, args ...any) ([]T, error) {
	rows, err := v.query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	list := []T{}
	for rows.Next() {
		t, err := scan(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, t)
	}
	return list, rows.Err()
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

// isUnique tells whether err is the violation of a primary key or UNIQUE constraint.
func isUnique(err error) bool {
	var e sqlite3.Error
	return errors.As(err, &e) && (e.ExtendedCode == sqlite3.ErrConstraintUnique || e.ExtendedCode == sqlite3.ErrConstraintPrimaryKey)
}
