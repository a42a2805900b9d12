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

// A blocking query names the index that its caller knows and is answered when there is a newer one, or when its time is
// over (reference consul_peering, section 1.6).

const (
	defaultWait = 300 * time.Second
	maxWait     = 600 * time.Second
	headerWait  = "X-Muster-Wait" // between members: how long the query may still wait
)

// blocking is what a blocking query waits for. Its methods take nil for a query that does not block.
type blocking struct {
	index uint64
	until time.Time
	free  func() // gives its place back; nil while it has none
}

// parseBlocking reads what a blocking query asks for; nil when this is none. Malformed parameters are left to the
// route's check.
func parseBlocking(rt *route, o origin, r *http.Request) *blocking {
	if !rt.blocks || r.URL.RawQuery == "" {
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
	return &blocking{index: index, until: time.Now().Add(wait)}
}

// place takes a place among those that wait, of which an identity has its share. It is for a request that has said all.
func (b *blocking) place(s *Server, q *request) error {
	if b == nil || b.free != nil {
		return nil
	}
	if b.free = s.waiting.take(q.identity()); b.free == nil {
		s.sentAway.WithLabelValues(refusedBlocking).Inc()
		q.w.Header().Set("Retry-After", "1")
		return fail(http.StatusTooManyRequests, "too many blocking queries at once; try again")
	}
	recorderOf(q.w).release() // waiting is no work
	return nil
}

// identity is whose share a request uses: the token's, or where this member does not know it, the credential's.
func (q *request) identity() string {
	if q.token != nil {
		return q.token.ID
	}
	if c, ok := credentialOf(q.Request); ok {
		return c.id + "/" + certs.HashSecret(c.secret)
	}
	return ""
}

func (b *blocking) done() {
	if b != nil && b.free != nil {
		b.free()
	}
}

// remaining is how long the query may still wait.
func (b *blocking) remaining() time.Duration {
	if b == nil {
		return 0
	}
	return max(time.Until(b.until), 0)
}

// over tells whether the query is to be answered with what there is.
func (b *blocking) over() bool { return b.remaining() == 0 }

// await blocks until one of the tables has changed after the revision, the query's time is over or leadership turns.
func (b *blocking) await(ctx context.Context, s *store.Store, after uint64, tables ...string) {
	ctx, cancel := context.WithDeadline(ctx, b.until)
	defer cancel()
	s.AwaitChange(ctx, after, tables...)
}
