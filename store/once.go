package store

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/google/uuid"
)

// makeOnce runs fn like Write and returns what it made. When the actor's request carries an Idempotency-Key, the result is
// remembered, sealed, in the same transaction. A repetition within a day gets it again, and leaves an audit row of its own.
func makeOnce[T any](ctx context.Context, s *Store, actor Actor, fn func(*Tx) (T, error)) (T, error) {
	return makeOnceUnless(ctx, s, actor, nil, fn)
}

// doOnce is makeOnce for requests whose answer says nothing but that they were carried out.
func doOnce(ctx context.Context, s *Store, actor Actor, fn func(*Tx) error) error {
	_, err := makeOnce(ctx, s, actor, func(tx *Tx) (struct{}, error) { return struct{}{}, fn(tx) })
	return err
}

// makeOnceUnless is makeOnce for results that may have lost their worth: again refuses to return one once more.
func makeOnceUnless[T any](ctx context.Context, s *Store, actor Actor, again func(*Tx, *T) error, fn func(*Tx) (T, error)) (result T, err error) {
	err = s.Write(ctx, actor, func(tx *Tx) error {
		if actor.IdempotencyKey == "" {
			result, err = fn(tx)
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
				if err := again(tx, &result); err != nil {
					return err
				}
			}
			return tx.auditReplay()
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
	if err := tx.boundAnswers(); err != nil {
		return err
	}
	text, err := json.Marshal(result)
	if err != nil {
		return err
	}
	plain, err := json.Marshal(remembrance{RequestHash: actor.RequestHash, Result: text})
	if err != nil {
		return err
	}
	sealed, generation, err := s.keys.seal(idempotencySeal(actor), plain)
	if err != nil {
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
	return t.auditRow(AuditRow{Actor: t.actor.String(), NodeID: t.actor.NodeID, Remote: t.actor.Remote, Action: "access.replayed",
		Object: t.actor.Request, Outcome: outcomeReplayed})
}

func idempotencySeal(actor Actor) string {
	return "idempotency/" + actor.Accessor + "/" + actor.IdempotencyKey
}

// answered finds what a request of this key was answered before; nil when there was none.
func (s *Store) answered(v *View, actor Actor) (*remembrance, error) {
	var sealed []byte
	var generation uint64
	known, err := v.get("SELECT sealed, dek_generation FROM idempotency WHERE accessor = ? AND key = ? AND created_at >= ?",
		[]any{actor.Accessor, actor.IdempotencyKey, rfc3339(v.Now.Add(-rememberFor))}, &sealed, &generation)
	if err != nil || !known {
		return nil, err
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

// Answered reports whether the request was carried out before, so that what must be done once outside the database is not
// done again.
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
