package handlers

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"muster/certs"
)

// A blocking query names the index that its caller knows and is answered when there is a newer one, or when its time is
// over (reference consul_peering, section 1.6).

const (
	defaultWait = 300 * time.Second
	maxWait     = 600 * time.Second
	headerWait  = "X-Muster-Wait" // between members: how long the query may still wait
)

// Blocking is what a blocking query waits for. Its methods take nil for a query that does not block.
type Blocking struct {
	Index uint64
	until time.Time
	free  func() // gives its place back; nil while it has none
}

// parseBlocking reads what a blocking query asks for; nil when this is none. Malformed parameters are left to the
// route's check.
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
	wait += rand.N(wait/16 + 1) // so that not all callers come back at once
	if o.forwarded {
		if left, err := time.ParseDuration(r.Header.Get(headerWait)); err == nil {
			wait = min(max(left, 0), maxWait+maxWait/16)
		}
	}
	return &Blocking{Index: index, until: time.Now().Add(wait)}
}

// Place takes a slot for waiting; each identity has a share of them. The request must have been read to its end.
func (b *Blocking) Place(q *Request) error {
	if b == nil || b.free != nil {
		return nil
	}
	if b.free = q.server.waiting.take(q.identity()); b.free == nil {
		q.server.sentAway.WithLabelValues(refusedBlocking).Inc()
		q.W.Header().Set("Retry-After", "1")
		return Fail(http.StatusTooManyRequests, "too many blocking queries at once; try again")
	}
	recorderOf(q.W).release() // waiting is no work
	return nil
}

// identity is whose share a request uses: the token's, or where this member does not know it, the credential's. API keys
// use that of their owner, who can make many.
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

// remaining is how long the query may still wait.
func (b *Blocking) remaining() time.Duration {
	if b == nil {
		return 0
	}
	return max(time.Until(b.until), 0)
}

// Over reports whether the query is to be answered with what there is.
func (b *Blocking) Over() bool { return b.remaining() == 0 }

// Changes tells when tables change: *store.Store.
type Changes interface {
	AwaitChange(ctx context.Context, after uint64, tables ...string) uint64
}

// Await blocks until one of the tables has changed after the revision, the query's time is over or leadership turns.
func (b *Blocking) Await(ctx context.Context, s Changes, after uint64, tables ...string) {
	ctx, cancel := context.WithDeadline(ctx, b.until)
	defer cancel()
	s.AwaitChange(ctx, after, tables...)
}
