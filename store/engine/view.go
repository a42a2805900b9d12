package engine

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mattn/go-sqlite3"
)

// session is one connection with its prepared statements.
type session struct {
	conn   *sql.Conn
	stmts  map[string]*sql.Stmt
	latest int64 // version of the schema that the statements are written for
}

func newSession(db *sql.DB, latest int64) (*session, error) {
	conn, err := db.Conn(context.Background())
	if err != nil {
		return nil, err
	}
	return &session{conn: conn, stmts: make(map[string]*sql.Stmt), latest: latest}, nil
}

// close returns the connection to its database and closes its statements: an open statement keeps the file open.
func (s *session) close() error {
	var errs []error
	for _, st := range s.stmts {
		errs = append(errs, st.Close())
	}
	return errors.Join(append(errs, s.conn.Close())...)
}

// stmt prepares a statement once. Contexts are not used: the file is local, statements are short, and go-sqlite3 starts
// a goroutine for every call whose context can end.
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

// View reads one consistent state. It is valid only inside the function that gets it.
type View struct {
	s   *session
	Now time.Time // the time of the transaction or read
}

// Query reads rows, which the caller closes.
func (v *View) Query(query string, args ...any) (*sql.Rows, error) {
	st, err := v.s.stmt(query)
	if err != nil {
		return nil, err
	}
	return st.Query(args...)
}

// Get scans the single row of a query into dest and reports whether there was one.
func (v *View) Get(query string, args []any, dest ...any) (bool, error) {
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

// Collect reads all rows of a query through scan.
func Collect[T any](v *View, scan func(*sql.Rows) (T, error), query string, args ...any) ([]T, error) {
	rows, err := v.Query(query, args...)
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

// revision reads the revision of the state.
func (v *View) revision() (rev uint64, err error) {
	_, err = v.Get("SELECT revision FROM cluster", nil, &rev)
	return rev, err
}

// position identifies the last batch of a state: two states of one cluster with the same position are equal.
type position struct {
	Revision uint64
	Batch    string
}

const selectPosition = "SELECT revision, batch_id FROM cluster"

func (v *View) position() (at position, err error) {
	_, err = v.Get(selectPosition, nil, &at.Revision, &at.Batch)
	return at, err
}

// SchemaVersion returns the newest applied schema step.
func (v *View) SchemaVersion() (n int64, err error) {
	_, err = v.Get(selectSchema, nil, &n)
	return n, err
}

const selectSchema = "SELECT max(version_id) FROM goose_db_version"

// outdated reports whether a statement may have failed because a schema step is missing.
func (s *session) outdated(err error) bool {
	if !strings.Contains(err.Error(), "no such") {
		return false
	}
	var have int64
	e := s.conn.QueryRowContext(context.Background(), selectSchema).Scan(&have)
	return e == nil && have < s.latest
}

// IsUnique reports whether err is the violation of a primary key or UNIQUE constraint.
func IsUnique(err error) bool {
	var e sqlite3.Error
	return errors.As(err, &e) &&
		(e.ExtendedCode == sqlite3.ErrConstraintUnique || e.ExtendedCode == sqlite3.ErrConstraintPrimaryKey)
}

// Local is a database of this member outside the cluster.
type Local struct{ s *session }

// Offline returns a transaction of a revision on a database outside the cluster. The caller begins and ends it. check
// is Hooks.Check.
func (v *View) Offline(rev uint64, check func(query string, args []any) error) *Tx {
	return &Tx{View: *v, Rev: rev, next: 1, check: check}
}

// NewLocal takes one connection of a database. latest is the schema version that the caller's statements are written
// for.
func NewLocal(db *sql.DB, latest int64) (*Local, error) {
	s, err := newSession(db, latest)
	if err != nil {
		return nil, err
	}
	return &Local{s}, nil
}

// View reads the database; its transactions have the time now.
func (l *Local) View(now time.Time) *View { return &View{s: l.s, Now: now} }

// Exec runs a statement that returns no rows.
func (l *Local) Exec(query string, args ...any) error {
	_, err := l.s.exec(query, args...)
	return err
}

// Conn returns the connection.
func (l *Local) Conn() *sql.Conn { return l.s.conn }

// Close gives the connection back. The database stays open.
func (l *Local) Close() error { return l.s.close() }
