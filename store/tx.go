package store

import (
	"database/sql"
	"strings"
	"time"

	"github.com/google/uuid"

	"muster/store/engine"
)

// Actor is who asks for a mutation; it goes into the audit row.
type Actor struct {
	Accessor  string // id of the API token, empty for the member itself
	Name      string // its name, or what acted
	NodeID    uint64 // the member that took the request
	Remote    string // address of the caller
	RequestID string // chosen by the caller or made here
	Request   string // method and pattern of the path
	Peer      bool   // what another cluster has said is the cause

	IdempotencyKey string // of the request, or empty
	RequestHash    string // what the key stands for: a repetition must be the same request
}

// Auto reports whether the Idempotency-Key is one that a member has made.
func (a Actor) Auto() bool { return strings.HasPrefix(a.IdempotencyKey, AutoKey) }

func (a Actor) String() string {
	switch {
	case a.Accessor != "" && a.Name != "":
		return a.Name + " (" + a.Accessor + ")"
	case a.Accessor != "":
		return a.Accessor
	default:
		return a.Name
	}
}

func newRequestID() string { return uuid.NewString() }

// View reads one consistent state. It is valid only inside the function that it is given to.
type View struct {
	v   *engine.View
	Now time.Time // the time of the transaction or read
}

func view(v *engine.View) *View { return &View{v, v.Now} }

func (v *View) query(query string, args ...any) (*sql.Rows, error) { return v.v.Query(query, args...) }

// get scans the single row of a query into dest and reports whether there was one.
func (v *View) get(query string, args []any, dest ...any) (bool, error) {
	return v.v.Get(query, args, dest...)
}

// collect reads all rows of a query through scan.
func collect[T any](v *View, scan func(*sql.Rows) (T, error), query string, args ...any) ([]T, error) {
	return engine.Collect(v.v, scan, query, args...)
}

// SchemaVersion reads the newest step of the schema that was applied.
func (v *View) SchemaVersion() (int64, error) { return v.v.SchemaVersion() }

// Tx is a transaction of the single writer. Reads see what the transaction has written so far.
type Tx struct {
	View
	Rev uint64 // the revision that this transaction will have

	tx     *engine.Tx
	actor  Actor
	audits []AuditRow
}

func newTx(t *engine.Tx, actor Actor) *Tx {
	return &Tx{View: View{&t.View, t.Now}, Rev: t.Rev, tx: t, actor: actor}
}

// localTx changes a database outside the cluster.
func localTx(v *View) *Tx { return newTx(v.v.Offline(0, checkSizes), Actor{}) }

type statement struct {
	query string
	args  []any
}

// exec runs a statement that changes data and records it for dqlite. It must not return rows and must be
// deterministic: no random(), no datetime('now').
func (t *Tx) exec(query string, args ...any) error {
	_, err := t.tx.Exec(query, args...)
	return err
}

// execCount is exec and returns how many rows the statement has changed.
func (t *Tx) execCount(query string, args ...any) (int64, error) { return t.tx.Exec(query, args...) }

// execAll runs statements one after the other.
func (t *Tx) execAll(list []statement) error {
	for _, st := range list {
		if err := t.exec(st.query, st.args...); err != nil {
			return err
		}
	}
	return nil
}

// execLast is exec for what an earlier statement of the same key has set: of a batch, dqlite is told the last one only.
func (t *Tx) execLast(key, query string, args ...any) error {
	return t.tx.ExecLast(key, query, args...)
}

// setSequence moves a counter.
func (t *Tx) setSequence(name string, value uint64) error {
	return t.execLast("sequence/"+name, updateSequence, value, name)
}

const updateSequence = "UPDATE sequences SET value = ? WHERE name = ?"

// rfc3339 is the one text form of times in the database.
func rfc3339(t time.Time) string { return engine.Time(t) }

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
