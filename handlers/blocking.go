package handlers

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"muster/store"
)

// A blocking query names the index that its caller knows and is answered when there is a newer one, or when its time is
// over (reference consul_peering, section 1.6).

const (
	defaultWait     = 300 * time.Second
	maxWait         = 600 * time.Second
	blockingQueries = 2048            // at once; each holds one of the slots for requests in flight
	headerWait      = "X-Muster-Wait" // between members: how long the query may still wait
)

// blocking is what a blocking query waits for. Its methods take nil for a query that does not block.
type blocking struct {
	index uint64
	until time.Time
	free  func()
}

// block begins a blocking query; nil when this is none. Malformed parameters are left to the route's check.
func (s *Server) block(rt *route, o origin, w http.ResponseWriter, r *http.Request) (*blocking, error) {
	if !rt.blocks {
		return nil, nil
	}
	query := r.URL.Query()
	index, err := strconv.ParseUint(query.Get("index"), 10, 64)
	if err != nil || index == 0 {
		return nil, nil
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
	select {
	case s.waiting <- struct{}{}:
	default:
		w.Header().Set("Retry-After", "1")
		return nil, fail(http.StatusTooManyRequests, "too many blocking queries at once; try again")
	}
	b := &blocking{index: index, until: time.Now().Add(wait), free: func() { <-s.waiting }}
	// The listener's own time-outs are for requests that are answered at once.
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{})
	_ = control.SetWriteDeadline(b.until.Add(2 * answerWithin))
	return b, nil
}

func (b *blocking) done() {
	if b != nil {
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
