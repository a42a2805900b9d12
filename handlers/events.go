package handlers

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster/store"
)

const (
	eventBatch    = 512
	heartbeat     = 15 * time.Second
	recheckToken  = time.Minute
	flushesPerSec = 10_000                 // of all readers of a member together
	maxPace       = 200 * time.Millisecond // between two flushes to one reader
	minPace       = 5 * time.Millisecond
	learnPosition = 2 * time.Second
)

// streams counts the readers of this member, which have slots of their own, apart from other requests.
type streams struct {
	readers *shares
	open    context.Context // ends when the member stops
	end     context.CancelFunc
}

func newStreams(l Limits) *streams {
	x := &streams{readers: newShares(l.Readers, l.ReadersPerIdentity)}
	x.open, x.end = context.WithCancel(context.Background())
	return x
}

// EndStreams ends all streams of events, so that readers reconnect elsewhere at once and do not delay the shutdown.
func (s *Server) EndStreams() { s.streams.end() }

// EventReaders returns how many streams of events are open on this member.
func (s *Server) EventReaders() int { return s.streams.readers.taken() }

// eventQuery has the parameters of a stream.
type eventQuery struct {
	from    store.Position
	hasFrom bool
	types   []string // none: all
}

func parseEventQuery(r *http.Request) (e eventQuery, err error) {
	query := r.URL.Query()
	if err := checkParameters(query); err != nil {
		return e, err
	}
	if v, given := query["revision"]; given {
		rev, err := strconv.ParseUint(v[0], 10, 53)
		if err != nil {
			return e, Fail(http.StatusBadRequest, "revision must be a whole number, not negative")
		}
		e.from, e.hasFrom = store.After(rev), true
	}
	if id := r.Header.Get("Last-Event-ID"); id != "" { // a reconnecting browser sends both; this is the newer one
		if e.from, e.hasFrom = store.ParsePosition(id); !e.hasFrom || e.from.Revision >= 1<<53 {
			return e, Fail(http.StatusBadRequest, "Last-Event-ID must be the id of an event, such as 12.1")
		}
	}
	for _, list := range query["type"] {
		for t := range strings.SplitSeq(list, ",") {
			if slices.Contains(e.types, t) {
				return e, Fail(http.StatusBadRequest, "type must not name a type twice")
			}
			if !slices.Contains(store.EventTypes, t) {
				return e, Fail(http.StatusBadRequest,
					"type must be one or more of "+strings.Join(store.EventTypes, ", ")+", separated by commas")
			}
			e.types = append(e.types, t)
		}
	}
	return e, nil
}

// stream serves a stream of events on the member that received the request, and returns when the stream has ended.
func (s *Server) stream(rt *Route, o origin, w http.ResponseWriter, r *http.Request) {
	q := &Request{Request: r, W: w, server: s, route: rt}
	if o.forwarded { // streams are not forwarded: this is a question about a credential
		q.Stale = false
		ctx, cancel := context.WithTimeout(r.Context(), learnPosition)
		defer cancel()
		q.Request = r.WithContext(ctx)
		if err := s.confirmed(o, q, s.admit(rt, o, q)); err != nil {
			s.answer(rt, q, err)
			return
		}
		bearerOf(q.Token).tell(w.Header())
		w.WriteHeader(http.StatusNoContent)
		return
	}
	who, err := s.mayRead(rt, o, q, 0)
	var e eventQuery
	if err = s.unconfirmed(rt, q, err); err == nil {
		e, err = parseEventQuery(r)
	}
	if err != nil {
		s.answer(rt, q, err)
		return
	}
	giveBack := s.streams.readers.take(q.identity())
	if giveBack == nil {
		s.tooMany(w, rt.Family, refusedReaders,
			"the limit of readers of this member, or of this identity on it, is reached; try another member", 5*time.Second)
		return
	}
	defer giveBack()
	recorderOf(w).known() // it holds a reader's slot now
	s.answer(rt, q, s.follow(rt, o, q, e, who))
}

// bearer identifies a reader's credential, with its expiry (zero: none).
type bearer struct {
	accessor string
	ends     time.Time
}

func bearerOf(t *store.APIToken) (b bearer) {
	if t != nil {
		b.accessor = t.ID
		if t.ExpiresAt != nil {
			b.ends = *t.ExpiresAt
		}
	}
	return b
}

// tell writes a bearer into the headers of the leader's answer; bearerIn reads it at the member that asked.
func (b bearer) tell(h http.Header) {
	h.Set(headerAccessor, url.QueryEscape(b.accessor))
	if !b.ends.IsZero() {
		h.Set(headerEnds, b.ends.UTC().Format(time.RFC3339))
	}
}

func bearerIn(h http.Header) (b bearer) {
	b.accessor, _ = url.QueryUnescape(h.Get(headerAccessor))
	b.ends, _ = time.Parse(time.RFC3339, h.Get(headerEnds))
	return b
}

// endedBy reports whether one of the events may have invalidated the credential. A removal invalidates node identities,
// and a restore may invalidate any credential.
func (b bearer) endedBy(list []*store.Event) bool {
	for _, e := range list {
		switch e.Action {
		case "api_token.delete", "api_key.revoke":
			if _, id, _ := strings.Cut(e.Object, "/"); id == b.accessor {
				return true
			}
		case "member.remove":
			if b.accessor == accessorOfMembers || strings.HasPrefix(b.accessor, "node/") {
				return true
			}
		case "cluster.restore":
			return true
		}
	}
	return false
}

// mayRead authorizes a reader: at the leader, or from the local mirror without a leader. A mirror older than the
// revision since, which the reader has already seen, decides nothing: a missing row may be the end of the credential.
func (s *Server) mayRead(rt *Route, o origin, q *Request, since uint64) (bearer, error) {
	ctx, cancel := context.WithTimeout(q.Context(), learnPosition)
	defer cancel()
	leader := s.Replica.LeaderID()
	local := *q
	local.Request = q.WithContext(ctx)
	local.Stale = leader != s.Replica.NodeID()
	fromMirror := func() error {
		if s.Mirror.Revision() < since {
			return store.ErrNoLeader
		}
		ctx, cancel := context.WithTimeout(q.Context(), learnPosition) // asking the leader may have taken all of its time
		defer cancel()
		local.Request, local.Stale = q.WithContext(ctx), true
		return s.admit(rt, o, &local)
	}
	if leader == 0 {
		err := fromMirror()
		return bearerOf(local.Token), err
	}
	if !local.Stale {
		err := s.confirmed(o, &local, s.admit(rt, o, &local))
		if errors.Is(err, store.ErrNotLeader) || errors.Is(err, store.ErrNoLeader) {
			err = fromMirror()
		}
		return bearerOf(local.Token), err
	}
	r := q.Clone(ctx)
	r.Body, r.RequestURI = http.NoBody, ""
	r.Header.Set(headerForwarded, "1")
	r.Header.Set(headerRemote, q.RemoteAddr)
	resp, err := s.Peers.Forward(r, leader)
	if err == nil {
		defer resp.Body.Close()
		switch resp.StatusCode {
		case http.StatusNoContent:
			return bearerIn(resp.Header), nil
		case http.StatusUnauthorized:
			return bearer{}, Fail(rt.Family.Unauthenticated.Status, rt.Family.Unauthenticated.Text)
		case http.StatusForbidden:
			return bearer{}, Lacks(rt.Scope, Fail(rt.Family.Forbidden.Status, rt.Family.Forbidden.Text))
		case http.StatusTooManyRequests:
			return bearer{}, Fail(http.StatusTooManyRequests, tooManyFailures)
		}
	}
	if err = fromMirror(); refuses(err) { // the leader may know the caller
		err = store.ErrNoLeader
	}
	return bearerOf(local.Token), err
}

// follow finds the start position and then writes events until the reader disconnects, its credential ends or the
// member stops.
func (s *Server) follow(rt *Route, o origin, q *Request, e eventQuery, who bearer) error {
	reader := s.Events.Read(e.from) // first: it makes this member subscribe to the leader
	defer func() { reader.Close() }()
	wait, cancel := context.WithTimeout(q.Context(), learnPosition)
	defer cancel()
	if !e.hasFrom {
		at, err := s.Events.Now(wait)
		if err != nil {
			return err
		}
		e.from = at
		next := s.Events.Read(at)
		reader.Close()
		reader = next
	} else if !s.Replica.AwaitRevision(wait, e.from.Revision) {
		if s.Replica.LeaderID() == 0 {
			return store.ErrNoLeader
		}
		return Fail(http.StatusBadRequest,
			fmt.Sprintf("revision %d is in the future: the cluster is at revision %d",
				e.from.Revision, s.Replica.KnownRevision()))
	}
	oldest, err := s.Events.Oldest(wait)
	if err != nil && !errors.Is(err, store.ErrNoLeader) {
		return err
	}
	if oldest > 0 && e.from.Before(store.After(oldest)) {
		return Fail(http.StatusGone,
			fmt.Sprintf("the events after %v are no longer kept; the oldest come after revision %d", e.from, oldest))
	}
	rec := recorderOf(q.W)
	out := newEventWriter(q.W, rec.unread)
	rec.unread = nil // each flush counts by itself
	if err := out.begin(e.from); err != nil {
		return nil
	}
	s.pump(rt, o, q, e, reader, out, who)
	return nil
}

func (s *Server) pump(rt *Route, o origin, q *Request, e eventQuery, reader *store.EventReader, out *eventWriter,
	who bearer) {
	ctx, cancel := context.WithCancel(q.Context())
	defer cancel()
	defer context.AfterFunc(s.streams.open, cancel)()
	checked := time.Now().Add(-rand.N(recheckToken / 2)) // jitter: not all readers at once
	for {
		until := heartbeat
		if !who.ends.IsZero() {
			until = min(until, max(time.Until(who.ends), 0)+time.Millisecond)
		}
		wait, stop := context.WithTimeout(ctx, until)
		list, err := reader.Next(wait, eventBatch)
		stop()
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, context.DeadlineExceeded):
			if out.heartbeat(reader.Position()) != nil {
				return
			}
		case errors.Is(err, store.ErrSlow), errors.Is(err, store.ErrPruned):
			s.dropped.Inc()
			_ = out.dropped(reader.Position())
			return
		case err != nil:
			s.log.Debug("a stream of events has ended", "err", err)
			return
		}
		now := s.Now()
		ended := who.endedBy(list) || !who.ends.IsZero() && !now.Before(who.ends)
		if ended || time.Since(checked) > recheckToken {
			checked = time.Now()
			var known *Error
			again, err := s.mayRead(rt, o, q, reader.Position().Revision)
			if err != nil && ended || errors.As(err, &known) && known.Status != http.StatusTooManyRequests {
				return
			}
			if err == nil {
				who = again
			}
		}
		if out.events(list, e.types, reader.Position()) != nil {
			return
		}
		// Pace the flushes: readers that all wake together would compete with the commits that woke them.
		pace := min(max(time.Duration(s.EventReaders())*time.Second/flushesPerSec, minPace), maxPace)
		select {
		case <-time.After(pace/2 + rand.N(pace)):
		case <-ctx.Done():
			return
		}
	}
}
