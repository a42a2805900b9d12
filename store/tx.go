package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"muster/store/engine"
	"muster/store/sizes"
)

// Actor is who causes a mutation; it goes into the audit row.
type Actor struct {
	Accessor  string // id of the API token, empty for the member itself
	Name      string // its name, or the name of a loop
	NodeID    uint64 // the member that received the request
	Remote    string // address of the caller
	RequestID string // chosen by the caller or made here
	Request   string // method and path pattern
	Peer      bool   // the cause is a message of another cluster

	IdempotencyKey string   // of the request, or empty
	RequestHash    string   // of the request of the key: a repetition must be equal
	Attempt        *Attempt // of a request that another member forwards under a generated key, or nil
}

// Attempt is one attempt at a request that a member forwards to the leader and repeats under the same key until its
// outcome is known. The leader sends its result to that member before the commit, instead of storing it in the
// database. If the leader is lost, the next one finds in the audit whether the attempt was committed, and the member
// has the answer.
type Attempt struct {
	Epoch uint64            // of the leadership that it is for; another one rejects it
	Again bool              // an earlier attempt may have been carried out
	Since uint64            // a revision committed before the first attempt was sent
	Made  []byte            // result of an earlier attempt; nil: none received
	Tell  func(made []byte) // sends the result; may be nil. It must not block
}

type attemptKey struct{}

// WithAttempt returns the context of a forwarded request.
func WithAttempt(ctx context.Context, a *Attempt) context.Context {
	return context.WithValue(ctx, attemptKey{}, a)
}

// AttemptOf returns the attempt of a request, or nil.
func AttemptOf(ctx context.Context) *Attempt {
	a, _ := ctx.Value(attemptKey{}).(*Attempt)
	return a
}

// ErrAnswerLost: the request was carried out, but its answer is lost.
var ErrAnswerLost = fmt.Errorf("%w: it was carried out, and its answer was lost with the leader", ErrUnknownOutcome)

// claim rejects an attempt for another leadership, or one that its member has given up and repeated since. It only
// needs to remember the repeated ones of this leadership: the next one sees everything that was committed before it.
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

// carriedOut returns the result of an earlier attempt, or nil when none was committed.
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

// Auto reports whether a member generated the Idempotency-Key.
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

// View reads one consistent state. It is valid only inside the function that gets it.
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

// SchemaVersion returns the newest applied schema step.
func (v *View) SchemaVersion() (int64, error) { return v.v.SchemaVersion() }

// Tx is a transaction of the single writer. Its reads see its own writes.
type Tx struct {
	View
	Rev uint64 // the revision that this transaction creates

	tx      *engine.Tx
	actor   Actor
	audits  []AuditRow
	counts  *counts     // nil: no cache of counts
	rejoins *rejoinings // nil: not counted
	self    uint64      // the member that carries it out; 0 outside a cluster
}

func newTx(t *engine.Tx, actor Actor) *Tx {
	return &Tx{View: View{&t.View, t.Now}, Rev: t.Rev, tx: t, actor: actor}
}

// localTx returns a transaction on a database outside the cluster.
func localTx(v *View) *Tx { return newTx(v.v.Offline(0, sizes.CheckStatement), Actor{}) }

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

// execCount is exec and returns the number of changed rows.
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

// execLast is exec for a statement that overwrites earlier ones of the same key: of a batch, only the last goes to
// dqlite.
func (t *Tx) execLast(key, query string, args ...any) error {
	return t.tx.ExecLast(key, query, args...)
}

// setSequence sets a counter.
func (t *Tx) setSequence(name string, value uint64) error {
	return t.execLast("sequence/"+name, updateSequence, value, name)
}

const updateSequence = "UPDATE sequences SET value = ? WHERE name = ?"

// rfc3339 formats times for the database.
func rfc3339(t time.Time) string { return engine.Time(t) }

// parseTime parses what rfc3339 returns.
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

// makeOnce runs fn like Write and returns its result. With an Idempotency-Key the result is stored, sealed, in the same
// transaction; a repetition within a day gets the same result and writes an audit row of its own.
func makeOnce[T any](ctx context.Context, s *Store, actor Actor, fn func(*Tx) (T, error)) (T, error) {
	return makeOnceUnless(ctx, s, actor, nil, fn)
}

// doOnce is makeOnce for requests without a result.
func doOnce(ctx context.Context, s *Store, actor Actor, fn func(*Tx) error) error {
	_, err := makeOnce(ctx, s, actor, func(tx *Tx) (struct{}, error) { return struct{}{}, fn(tx) })
	return err
}

// errOutdated, returned by the check of a repetition, means to carry the request out again, which must be safe.
var errOutdated = errors.New("store: the remembered answer is outdated")

// makeOnceUnless is makeOnce for results that can become outdated: again returns an error for a result that must not be
// returned again.
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
			return nil // nothing has changed, so a repetition is harmless
		}
		return s.remember(tx, result)
	})
	return result, err
}

// remember stores the result of a request.
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

// AutoKey is the prefix of the Idempotency-Keys that members generate for requests that they forward.
const AutoKey = "auto-"

// auditReplay writes the audit row of a repeated answer.
func (t *Tx) auditReplay() error {
	if t.actor.Auto() || t.actor.Request == "" {
		return nil
	}
	return t.auditRow(AuditRow{
		Actor:   t.actor.String(),
		NodeID:  t.actor.NodeID,
		Remote:  t.actor.Remote,
		Action:  "access.replayed",
		Object:  t.actor.Request,
		Outcome: outcomeReplayed,
	})
}

func idempotencySeal(actor Actor) string {
	return "idempotency/" + actor.Accessor + "/" + actor.IdempotencyKey
}

// answered returns the stored result for the actor's key, or nil.
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
	case !known && a != nil: // an older leader would have stored it
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

// Answered reports whether the request was carried out before, for callers with effects outside the database.
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

// remembrance is the value stored, sealed, for an Idempotency-Key. It includes the hash of the request, because a
// request may contain a secret that could be guessed from its hash.
type remembrance struct {
	RequestHash string          `json:"requestHash"`
	Result      json.RawMessage `json:"result"`
}

// rememberFor is how long a result is stored for an Idempotency-Key. Results for members' generated keys ("auto-…") are
// needed for seconds only.
const (
	rememberFor     = 24 * time.Hour
	rememberAutoFor = 10 * time.Minute
)

// NewID returns a new id of 32 lower hex digits that increases with time (UUID version 7, RFC 9562). dqlite replicates
// whole pages: with ordered keys a batch is several times smaller than with random ones.
func NewID() string { return strings.ReplaceAll(uuid.Must(uuid.NewV7()).String(), "-", "") }
