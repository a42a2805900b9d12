package engine

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Tx is a transaction of the single writer. Reads see what the transaction has written so far.
type Tx struct {
	View
	Rev   uint64 // the revision that this transaction will have
	Epoch uint64 // of the leadership, 0 outside of one

	recorded  []Statement
	next      uint64
	committed []func()
	check     func(query string, args []any) error
}

// Statement is one that changes data, with its arguments.
type Statement struct {
	Query string
	Args  []any
	key   string // if not empty, a later statement of the batch with the same key takes this one's place
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

// ExecLast runs a statement that replaces what an earlier one of the same key has set: however many requests of a batch
// run it, dqlite is told the last one only, after all others.
func (t *Tx) ExecLast(key, query string, args ...any) error {
	n, err := t.Exec(query, args...)
	if err == nil && n > 0 {
		t.recorded[len(t.recorded)-1].key = key
	}
	return err
}

// Changed reports whether the transaction has changed anything so far.
func (t *Tx) Changed() bool { return len(t.recorded) > 0 }

// Next numbers what the transactions of a revision write, from 1 on, in the order in which they write it.
func (t *Tx) Next() uint64 {
	n := t.next
	t.next++
	return n
}

// OnCommit has the writer call f once a majority has the transaction, before anybody can see that.
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

// Time is the one text form of times in the database: UTC, whole seconds, so that texts order as times do.
func Time(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// TableOf names the table that a statement changes; the key of the change feed.
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

// Errors that callers tell apart. All else is internal and its text is for the log only.
var (
	// ErrNotLeader: this member does not lead; the request belongs to the leader. Nothing happened.
	ErrNotLeader = errors.New("not the leader")
	// ErrNoLeader: there is no leader that a majority follows. Nothing happened.
	ErrNoLeader = errors.New("no cluster leader")
	// ErrUnknownOutcome: leadership was lost, or the caller's time was up, while the transaction was being committed, and
	// it could not be found out in time whether it was. Repeating the request with the same Idempotency-Key, or the same
	// join token and key, is safe.
	ErrUnknownOutcome = errors.New("the outcome is unknown: leadership changed during the commit")
	// ErrClosed: the member is shutting down.
	ErrClosed = errors.New("shutting down")
)

// Code classifies a refusal.
type Code int

// The classes of refusals that every API family knows how to express.
const (
	Invalid Code = iota + 1
	Unauthorized
	Forbidden
	NotFound
	Conflict
	Exhausted
	Full // there are as many of something as a setting allows
)

// Refusal is an error that is meant for the caller: Message names what was wrong and the rule, and never holds
// a secret, a path or SQL.
type Refusal struct {
	Code    Code
	Message string
}

func (r *Refusal) Error() string { return r.Message }

// Refuse makes a refusal.
func Refuse(code Code, format string, args ...any) error {
	return &Refusal{Code: code, Message: fmt.Sprintf(format, args...)}
}
