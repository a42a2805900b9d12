package store

import (
	"fmt"
	"strings"
	"time"
)

// Tx is a transaction of the single writer. Reads see what the transaction has written so far.
type Tx struct {
	View
	Rev uint64 // the revision that this transaction will have

	actor     Actor
	recorded  []statement
	audits    []AuditRow
	nextSeq   uint64
	committed []func() // what the leader has to know before anybody can see that the transaction is committed
}

type statement struct {
	query string
	args  []any
	key   string // if not empty, a later statement of the batch with the same key takes this one's place
}

// exec runs a statement that changes data and records it for dqlite. It must not return rows and must be
// deterministic: no random(), no datetime('now').
func (t *Tx) exec(query string, args ...any) error {
	_, err := t.execCount(query, args...)
	return err
}

func (t *Tx) execCount(query string, args ...any) (int64, error) {
	for i, a := range args {
		n, err := normal(a)
		if err != nil {
			return 0, err
		}
		args[i] = n
	}
	if err := checkSizes(query, args); err != nil {
		return 0, err
	}
	res, err := t.s.exec(query, args...)
	if err != nil {
		return 0, err
	}
	n, err := res.RowsAffected()
	if err == nil && n > 0 {
		t.recorded = append(t.recorded, statement{query: query, args: args})
	}
	return n, err
}

// execLast runs a statement that replaces what an earlier one of the same key has set: however many requests of a batch
// run it, dqlite is told the last one only, after all others.
func (t *Tx) execLast(key, query string, args ...any) error {
	if err := t.exec(query, args...); err != nil {
		return err
	}
	t.recorded[len(t.recorded)-1].key = key
	return nil
}

// setSequence moves a counter.
func (t *Tx) setSequence(name string, value uint64) error {
	return t.execLast("sequence/"+name, updateSequence, value, name)
}

const updateSequence = "UPDATE sequences SET value = ? WHERE name = ?"

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
		return rfc3339(v), nil
	case *time.Time:
		if v == nil {
			return nil, nil
		}
		return rfc3339(*v), nil
	case Role:
		return string(v), nil
	default:
		return nil, fmt.Errorf("store: %T is not a type that a statement takes", v)
	}
}

// rfc3339 is the one text form of times in the database: UTC, whole seconds, so that texts order as times do.
func rfc3339(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// parseTime reads what rfc3339 wrote.
func parseTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}
	}
	return t
}

// optional turns "" and 0 into NULL.
func optional[T comparable](v T) any {
	var zero T
	if v == zero {
		return nil
	}
	return v
}

// tableOf names the table that a statement changes; the key of the change feed.
func tableOf(query string) string {
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
