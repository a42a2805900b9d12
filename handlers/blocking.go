package handlers

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"muster/certs"
	"muster/store"
)

// A blocking query names the index that its caller has. It is answered when there is a newer one, or after its maximum
// wait (reference consul_peering, section 1.6).

const (
	defaultWait = 300 * time.Second
	maxWait     = 600 * time.Second
	headerWait  = "X-Muster-Wait" // between members: how long the query may still wait
)

// Blocking is what a blocking query waits for. Its methods take nil for a query that does not block.
type Blocking struct {
	Index uint64
	until time.Time
	free  func() // releases its slot; nil while it has none
}

// parseBlocking reads the parameters of a blocking query; it returns nil for other requests. It ignores malformed
// parameters: the route's check reports them.
func parseBlocking(rt *Route, o origin, r *http.Request) *Blocking {
	if !rt.Blocks || r.URL.RawQuery == "" {
		return nil
	}
	query := r.URL.Query()
	index, err := strconv.ParseUint(query.Get("index"), 10, 64)
	if err != nil || index == 0 {
		return nil
	}
	wait, err := time.ParseDuration(query.Get("wait"))
	if err != nil || wait <= 0 {
		wait = defaultWait
	}
	wait = min(wait, maxWait)
	wait += rand.N(wait/16 + 1) // jitter: so that callers do not return all at once
	if o.forwarded {
		if left, err := time.ParseDuration(r.Header.Get(headerWait)); err == nil {
			wait = min(max(left, 0), maxWait+maxWait/16)
		}
	}
	return &Blocking{Index: index, until: time.Now().Add(wait)}
}

// Place takes a slot for waiting, of which each identity has a share. The request's body must have been read.
func (b *Blocking) Place(q *Request) error {
	if b == nil || b.free != nil {
		return nil
	}
	if b.free = q.server.waiting.take(q.identity()); b.free == nil {
		q.server.sentAway.WithLabelValues(refusedBlocking).Inc()
		q.W.Header().Set("Retry-After", "1")
		return Fail(http.StatusTooManyRequests, "too many blocking queries at once; try again")
	}
	recorderOf(q.W).release() // a waiting query needs no request slot
	return nil
}

// identity returns the identity whose share of slots a request uses: the token's, or the credential's where this member
// does not know the token. API keys use their owner's, because an owner can create many.
func (q *Request) identity() string {
	if q.Key != nil {
		return q.Key.OwnerID
	}
	if q.Token != nil {
		return q.Token.ID
	}
	if c, ok := q.route.Family.credential(q.Request); ok {
		return c.ID + "/" + certs.HashSecret(c.Secret)
	}
	return ""
}

func (b *Blocking) done() {
	if b != nil && b.free != nil {
		b.free()
	}
}

// remaining returns how long the query may still wait.
func (b *Blocking) remaining() time.Duration {
	if b == nil {
		return 0
	}
	return max(time.Until(b.until), 0)
}

// Over reports whether the query must be answered now, changed or not.
func (b *Blocking) Over() bool { return b.remaining() == 0 }

// Changes waits for changes of tables: *store.Store.
type Changes interface {
	AwaitChange(ctx context.Context, after uint64, tables ...string) uint64
	AwaitChanges(ctx context.Context, all ...store.Since)
	ChangedAt(tables ...string) uint64
}

// Await blocks until one of the tables has changed after the revision, the wait is over or leadership changes. It
// returns an error as soon as the caller's credential has ended.
func (b *Blocking) Await(q *Request, after uint64, tables ...string) error {
	changes, credentials := q.server.Replica, store.Since{Tables: []string{store.TableAPITokens, store.TableAPIKeys}}
	until := b.until
	if ends := bearerOf(q.Token).ends; !ends.IsZero() && ends.Before(until) {
		until = ends
	}
	if q.Key != nil && q.Key.ExpiresAt != nil && q.Key.ExpiresAt.Before(until) {
		until = *q.Key.ExpiresAt
	}
	ctx, cancel := context.WithDeadline(q.Context(), until)
	defer cancel()
	for {
		credentials.Revision = changes.ChangedAt(credentials.Tables...)
		if err := q.Recheck(); err != nil { // also before it waits: it may have ended since the query came
			return err
		}
		changes.AwaitChanges(ctx, store.Since{Revision: after, Tables: tables}, credentials)
		if ctx.Err() != nil || changes.ChangedAt(credentials.Tables...) == credentials.Revision {
			return q.Recheck()
		}
	}
}
