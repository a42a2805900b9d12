package engine

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Tx is a transaction of the single writer. Its reads see its own writes.
type Tx struct {
	View
	Rev   uint64 // the revision that this transaction creates
	Epoch uint64 // of the leadership, 0 outside of one

	recorded  []Statement
	next      uint64
	committed []func()
	check     func(query string, args []any) error
}

// Statement is a statement that changes data, with its arguments.
type Statement struct {
	Query string
	Args  []any
	key   string // if not empty, a later statement of the batch with the same key replaces this one
}

// Exec runs a statement that changes data, records it for dqlite and returns how many rows it has changed. It must not
// return rows and must be deterministic: no random(), no datetime('now').
func (t *Tx) Exec(query string, args ...any) (int64, error) {
	for i, a := range args {
		n, err := normal(a)
		if err != nil {
			return 0, err
		}
		args[i] = n
	}
	if t.check != nil {
		if err := t.check(query, args); err != nil {
			return 0, err
		}
	}
	res, err := t.s.exec(query, args...)
	if err != nil {
		return 0, err
	}
	n, err := res.RowsAffected()
	if err == nil && n > 0 {
		t.recorded = append(t.recorded, Statement{Query: query, Args: args})
	}
	return n, err
}

// ExecLast is Exec for a statement that overwrites earlier ones of the same key: of a batch, only the last one goes to
// dqlite, after all others.
func (t *Tx) ExecLast(key, query string, args ...any) error {
	n, err := t.Exec(query, args...)
	if err == nil && n > 0 {
		t.recorded[len(t.recorded)-1].key = key
	}
	return err
}

// Changed reports whether the transaction has changed anything so far.
func (t *Tx) Changed() bool { return len(t.recorded) > 0 }

// Next returns 1, 2, … for what the transactions of one revision write, in order.
func (t *Tx) Next() uint64 {
	n := t.next
	t.next++
	return n
}

// OnCommit registers f. The writer calls it once a majority has committed the transaction, before any reader can see
// it.
func (t *Tx) OnCommit(f func()) { t.committed = append(t.committed, f) }

// normal reduces an argument to one of the types of SQLite that the schema uses.
func normal(v any) (any, error) {
	switch v := v.(type) {
	case nil, int64, string:
		return v, nil
	case []byte:
		if v == nil {
			return nil, nil
		}
		return v, nil
	case int:
		return int64(v), nil
	case uint16:
		return int64(v), nil
	case uint64:
		return int64(v), nil
	case bool:
		if v {
			return int64(1), nil
		}
		return int64(0), nil
	case time.Time:
		return Time(v), nil
	case *time.Time:
		if v == nil {
			return nil, nil
		}
		return Time(*v), nil
	case Role:
		return string(v), nil
	default:
		return nil, fmt.Errorf("engine: %T is not a type that a statement takes", v)
	}
}

// Time formats times for the database: UTC, whole seconds, so that texts order as times do.
func Time(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// TableOf returns the table that a statement changes. It is the key of the change feed.
func TableOf(query string) string {
	f := strings.Fields(query)
	for i, w := range f {
		switch strings.ToUpper(w) {
		case "INTO", "UPDATE", "FROM":
			if i+1 < len(f) {
				return strings.Trim(f[i+1], "(")
			}
		}
	}
	return ""
}

// Errors that callers distinguish. All others are internal, with texts for the log only.
var (
	// ErrNotLeader: this member does not lead; the request belongs to the leader. Nothing happened.
	ErrNotLeader = errors.New("not the leader")
	// ErrNoLeader: no leader has a majority. Nothing happened.
	ErrNoLeader = errors.New("no cluster leader")
	// ErrUnknownOutcome: leadership was lost, or the caller's context ended, during the commit, and its outcome could not
	// be found out in time. Repeating the request with the same Idempotency-Key, or the same join token and key, is safe.
	ErrUnknownOutcome = errors.New("the outcome is unknown: leadership changed during the commit")
	// ErrClosed: the member is shutting down.
	ErrClosed = errors.New("shutting down")
)

// Code classifies a refusal.
type Code int

// Codes that every API family can express.
const (
	Invalid Code = iota + 1
	Unauthorized
	Forbidden
	NotFound
	Conflict
	Exhausted
	Full // a setting allows no more
)

// Refusal is an error for the caller. Message names the fault and the rule; it never holds a secret, a path or SQL.
type Refusal struct {
	Code    Code
	Message string
}

func (r *Refusal) Error() string { return r.Message }

// Refuse returns a Refusal.
func Refuse(code Code, format string, args ...any) error {
	return &Refusal{Code: code, Message: fmt.Sprintf(format, args...)}
}
