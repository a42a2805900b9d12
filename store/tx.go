package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
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

	IdempotencyKey string   // of the request, or empty
	RequestHash    string   // what the key stands for: a repetition must be the same request
	Attempt        *Attempt // of a request that another member has passed on under a key of its own, or nil
}

// Attempt is one of the attempts at a request that a member passes on to the leader, and repeats under the same key until
// its outcome is known. What it makes is told to that member ahead of the commit, instead of being remembered in the
// database: when the leader is lost on the way, the audit tells the next one whether it was committed, and the member
// has the answer.
type Attempt struct {
	Epoch uint64            // of the leadership that it is meant for; another one refuses it
	Again bool              // an earlier one may have been carried out
	Since uint64            // a revision that was committed before the first one was sent
	Made  []byte            // what an earlier one has told; nil: nothing
	Tell  func(made []byte) // nil: nobody wants to know. It must not block
}

type attemptKey struct{}

// WithAttempt returns the context of a request that is passed on.
func WithAttempt(ctx context.Context, a *Attempt) context.Context {
	return context.WithValue(ctx, attemptKey{}, a)
}

// AttemptOf returns the attempt of a request, nil for one that is none.
func AttemptOf(ctx context.Context) *Attempt {
	a, _ := ctx.Value(attemptKey{}).(*Attempt)
	return a
}

// ErrAnswerLost is for a request that was carried out and whose answer nobody has any more.
var ErrAnswerLost = fmt.Errorf("%w: it was carried out, and its answer was lost with the leader", ErrUnknownOutcome)

// claim refuses an attempt that is meant for another leadership, or that its member has given up and repeated since. The
// next leadership knows of all that was committed before it, so it is enough to remember the repeated ones of this one.
func (s *Store) claim(t *Tx, actor Actor) error {
	a := actor.Attempt
	switch {
	case a == nil:
	case a.Epoch != t.tx.Epoch:
		return ErrNotLeader
	case a.Again:
		if s.repeated == nil || len(s.repeated) >= maxRepeated {
			s.repeated = map[string]bool{}
		}
		s.repeated[actor.IdempotencyKey] = true
	case s.repeated[actor.IdempotencyKey]:
		return ErrNotLeader
	}
	return nil
}

const maxRepeated = 100_000

// carriedOut finds what an earlier attempt has made, nil when there was none that was committed.
func (v *View) carriedOut(actor Actor) (*remembrance, error) {
	a := actor.Attempt
	found, err := v.get("SELECT revision FROM audit WHERE revision > ? AND request_id = ? LIMIT 1",
		[]any{a.Since, actor.IdempotencyKey}, new(uint64))
	switch {
	case err != nil || !found:
		return nil, err
	case a.Made == nil:
		return nil, ErrAnswerLost
	}
	return &remembrance{RequestHash: actor.RequestHash, Result: a.Made}, nil
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

// View reads one consistent state. It is valid only inside that function.
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

	tx      *engine.Tx
	actor   Actor
	audits  []AuditRow
	counts  *counts     // nil: what is bounded is counted each time
	rejoins *rejoinings // nil: they are not counted
	self    uint64      // the member that carries it out; 0 outside a cluster
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

// makeOnce runs fn like Write and returns what it made. When the actor's request carries an Idempotency-Key, the result
// is remembered, sealed, in the same transaction. A repetition within a day gets it again, and leaves an audit row of
// its own.
func makeOnce[T any](ctx context.Context, s *Store, actor Actor, fn func(*Tx) (T, error)) (T, error) {
	return makeOnceUnless(ctx, s, actor, nil, fn)
}

// doOnce is makeOnce for requests whose answer says nothing but that they were carried out.
func doOnce(ctx context.Context, s *Store, actor Actor, fn func(*Tx) error) error {
	_, err := makeOnce(ctx, s, actor, func(tx *Tx) (struct{}, error) { return struct{}{}, fn(tx) })
	return err
}

// errOutdated of a check has a request carried out once more, which is safe, in place of its former answer.
var errOutdated = errors.New("store: the answer has lost its worth")

// makeOnceUnless is makeOnce for results that may have lost their worth: again refuses to return one once more.
func makeOnceUnless[T any](ctx context.Context, s *Store, actor Actor, again func(*Tx, *T) error,
	fn func(*Tx) (T, error)) (result T, err error) {
	if actor.IdempotencyKey != "" && actor.Attempt != nil {
		actor.RequestID = actor.IdempotencyKey
	}
	err = s.Write(ctx, actor, func(tx *Tx) error {
		if actor.IdempotencyKey == "" {
			result, err = fn(tx)
			return err
		}
		if err := s.claim(tx, actor); err != nil {
			return err
		}
		old, err := s.answered(&tx.View, actor)
		switch {
		case err != nil:
			return err
		case old != nil:
			result = *new(T)
			if err := json.Unmarshal(old.Result, &result); err != nil {
				return err
			}
			if again != nil {
				err = again(tx, &result)
			}
			if err == nil {
				return tx.auditReplay()
			}
			if !errors.Is(err, errOutdated) {
				return err
			}
			result = *new(T)
		}
		if result, err = fn(tx); err != nil {
			return err
		}
		if !tx.tx.Changed() {
			return nil // nothing has changed: there is nothing that must not be done twice
		}
		return s.remember(tx, result)
	})
	return result, err
}

// remember keeps what a request is answered.
func (s *Store) remember(tx *Tx, result any) error {
	actor := tx.actor
	text, err := json.Marshal(result)
	if err != nil {
		return err
	}
	if a := actor.Attempt; a != nil {
		if a.Tell != nil {
			a.Tell(text)
		}
		return nil
	}
	plain, err := json.Marshal(remembrance{RequestHash: actor.RequestHash, Result: text})
	if err != nil {
		return err
	}
	sealed, generation, err := s.keys.seal(idempotencySeal(actor), plain)
	if err != nil {
		return err
	}
	if err := tx.boundAnswers(len(sealed)); err != nil {
		return err
	}
	return tx.exec(`INSERT INTO idempotency (accessor, key, sealed, dek_generation, created_at) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (accessor, key) DO UPDATE SET sealed = excluded.sealed, dek_generation = excluded.dek_generation,
		created_at = excluded.created_at`,
		actor.Accessor, actor.IdempotencyKey, sealed, generation, tx.Now)
}

// AutoKey begins the Idempotency-Keys that members make themselves when they pass a request on: nobody has repeated it.
const AutoKey = "auto-"

// auditReplay writes the row that says who was given an answer once more to which request.
func (t *Tx) auditReplay() error {
	if t.actor.Auto() || t.actor.Request == "" {
		return nil
	}
	return t.auditRow(AuditRow{Actor: t.actor.String(), NodeID: t.actor.NodeID, Remote: t.actor.Remote,
		Action: "access.replayed",
		Object: t.actor.Request, Outcome: outcomeReplayed})
}

func idempotencySeal(actor Actor) string {
	return "idempotency/" + actor.Accessor + "/" + actor.IdempotencyKey
}

// answered finds what a request of this key was answered before; nil when there was none.
func (s *Store) answered(v *View, actor Actor) (*remembrance, error) {
	a := actor.Attempt
	if a != nil && !a.Again {
		return nil, nil
	}
	var sealed []byte
	var generation uint64
	known, err := v.get("SELECT sealed, dek_generation FROM idempotency "+
		"WHERE accessor = ? AND key = ? AND created_at >= ?",
		[]any{actor.Accessor, actor.IdempotencyKey, rfc3339(v.Now.Add(-rememberFor))}, &sealed, &generation)
	switch {
	case err != nil:
		return nil, err
	case !known && a != nil: // an older leader would have remembered it
		return v.carriedOut(actor)
	case !known:
		return nil, nil
	}
	plain, err := s.keys.open(idempotencySeal(actor), generation, sealed)
	if err != nil {
		return nil, err
	}
	var old remembrance
	if err := json.Unmarshal(plain, &old); err != nil {
		return nil, err
	}
	if old.RequestHash != actor.RequestHash {
		return nil, refuse(Conflict, "this Idempotency-Key was used for a different request")
	}
	return &old, nil
}

// Answered reports whether the request was carried out before, so that what must be done once outside the database is
// not done again.
func (s *Store) Answered(ctx context.Context, actor Actor) (known bool, err error) {
	if actor.IdempotencyKey == "" {
		return false, nil
	}
	err = s.Read(ctx, Linearisable, func(v *View) error {
		old, err := s.answered(v, actor)
		known = old != nil
		return err
	})
	return known, err
}

// remembrance is what is sealed under an Idempotency-Key. The hash of the request is sealed, too: a request may hold a
// secret that could be guessed from its hash.
type remembrance struct {
	RequestHash string          `json:"requestHash"`
	Result      json.RawMessage `json:"result"`
}

// rememberFor is how long the answer to an Idempotency-Key is kept; the keys that members make themselves when they
// forward a request ("auto-…") serve for seconds.
const (
	rememberFor     = 24 * time.Hour
	rememberAutoFor = 10 * time.Minute
)

// NewID returns a fresh id of 32 lower hex digits that grows with time (UUID version 7, RFC 9562). dqlite
// replicates whole pages: rows that land side by side make a batch several times smaller than random keys do.
func NewID() string { return strings.ReplaceAll(uuid.Must(uuid.NewV7()).String(), "-", "") }

// counts knows of what is bounded how many rows there are at most, so that not every row that is added has all counted.
// It belongs to the leader, whose writer is the only one that adds any.
type counts struct {
	mu   sync.Mutex
	most map[string]*count
}

type count struct {
	rows   uint64 // an upper bound: the last count and every addition since
	checks uint64 // that are left until they are counted again
}

const (
	minCountChecks = 256     // a count is good for that many additions, or for an eighth of what was counted
	maxCounts      = 100_000 // that are remembered
)

// forget is for a leadership that begins: nothing is known of what others have added.
func (c *counts) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.most = nil
}

// add notes that one more is to be added and reports whether there are surely fewer than a limit. If not, they must be
// counted. A row whose transaction fails stays noted until the next count.
func (c *counts) add(key string, limit uint64) bool {
	if c == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.most[key]
	if n == nil || n.checks == 0 || n.rows >= limit {
		return false
	}
	n.rows++
	n.checks--
	return true
}

// set notes what was counted just before one more is added.
func (c *counts) set(key string, rows uint64) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.most == nil || len(c.most) >= maxCounts {
		c.most = map[string]*count{}
	}
	c.most[key] = &count{rows: rows + 1, checks: max(minCountChecks, rows/8)}
}

// bound refuses one more row where a query counts as many as a setting allows.
func (t *Tx) bound(option, what, query string, args ...any) error {
	most, err := t.number(option)
	if err != nil {
		return err
	}
	key := option + fmt.Sprint(args...)
	if t.counts.add(key, most) {
		return nil
	}
	var have uint64
	if _, err := t.get(query, args, &have); err != nil {
		return err
	}
	if have >= most {
		return refuse(Full, "there are %d %s, and the setting %s allows no more", have, what, option)
	}
	t.counts.set(key, have)
	return nil
}
