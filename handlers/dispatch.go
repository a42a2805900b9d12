package handlers

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gorilla/mux"

	"muster/store"
)

// Headers between members.
const (
	headerForwarded = "X-Muster-Forwarded" // marks a forwarded request, which is not forwarded again
	headerNotLeader = "X-Muster-Not-Leader"
	headerAsked     = "X-Muster-Asked"       // the Raft id of the member that received the request
	headerBody      = "X-Muster-Body"        // the request's body was not forwarded, and why
	bodyEmpty       = "1"                    // it has no meaning
	headerLost      = "X-Muster-Answer-Lost" // the request was carried out, but its answer is lost
	bodyDropped     = "dropped"              // it was not read because the caller was unknown
	leaderChanged   = "changed"              // in headerNotLeader: something was changed nevertheless
	HeaderKey       = "Idempotency-Key"
)

// Request is a request as handlers see it.
type Request struct {
	*http.Request
	W       http.ResponseWriter
	Content []byte
	Token   *store.APIToken // nil on open routes
	Key     *store.APIKey   // set when Token is an API key's
	Node    *store.Member   // set when the credential is a node identity
	Actor   store.Actor
	Stale   bool
	Asked   uint64 // the member that received the request
	server  *Server
	route   *Route
	origin  origin
	whole   bool      // the body is a stream: the handler reads it, and it is forwarded as a stream
	Block   *Blocking // nil unless the query waits for a change

	stranger bool // no credential that this member knows
	HasBody  bool // it has a body, read or not
	dropped  bool // its body was not read, because the caller will be refused in any case
	checked  bool // the route's checks have passed

	changes bool            // it may change something, by its route
	effects *store.Effects  // its changes at this member; nil for reads
	doubt   bool            // an earlier attempt may have carried it out
	Failed  bool            // it counts as a failed attempt of its address, once confirmed
	vouched *store.APIToken // the caller's token as the leader reported it
	attempt *store.Attempt  // the attempt to have it answered elsewhere; nil before the first

	turnedAway bool // authentication or authorization failed
}

func (q *Request) Vars() map[string]string { return mux.Vars(q.Request) }

// Consistency returns the consistency that the request asks for.
func (q *Request) Consistency() store.Consistency {
	if q.Stale {
		return store.Stale
	}
	return store.Linearisable
}

// watchedBody records whether any of a streamed body was read: then the request cannot be repeated.
type watchedBody struct {
	io.ReadCloser
	taken atomic.Bool
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.taken.Store(true)
	}
	return n, err
}

func (q *Request) touched() bool {
	b, ok := q.Request.Body.(*watchedBody)
	return ok && b.taken.Load()
}

// attempt tries once, waiting for a leader until giveUp; again reports whether a further attempt is safe and useful.
func (s *Server) attempt(rt *Route, o origin, q *Request, giveUp time.Time) (again bool, err error) {
	wait, cancel := context.WithDeadline(q.Context(), giveUp)
	leader, err := s.Replica.AwaitLeader(wait)
	cancel()
	if err != nil {
		return false, err
	}
	if leader == s.Replica.NodeID() {
		err := s.handle(rt, o, q)
		switch {
		case errors.Is(err, store.ErrNotLeader), errors.Is(err, store.ErrNoLeader):
			return true, err
		case errors.Is(err, store.ErrUnknownOutcome):
			q.doubt = true
			return (q.Header.Get(HeaderKey) != "" || !q.changes) && !errors.Is(err, store.ErrAnswerLost), err
		case err != nil:
			s.answer(rt, q, err)
		}
		return false, nil
	}
	return s.forward(q, leader)
}

// statusAbandoned stands in logs and metrics for a request whose caller disconnected before the answer, as in nginx. It
// is never received.
const statusAbandoned = 499

// abandoned reports whether the caller has disconnected: nobody reads the answer, and an error that follows from it is
// no failure of this member.
func abandoned(r *http.Request) bool {
	return errors.Is(r.Context().Err(), context.Canceled)
}

func (s *Server) answer(rt *Route, q *Request, err error) {
	if err == nil {
		return
	}
	if rec := recorderOf(q.W); rec.wrote || abandoned(q.Request) {
		s.log.Debug("an answer was cut off", "method", q.Method, "path", pathOf(q.Request), "err", err)
		if !rec.wrote {
			rec.WriteHeader(statusAbandoned)
		}
		return
	}
	if err = q.honest(err); errors.Is(err, store.ErrUnknownOutcome) {
		rt.Family.unknown(q, err)
		return
	}
	s.noteRefusal(rt, q, err)
	if lacks := (*lacking)(nil); errors.As(err, &lacks) {
		q.W.Header().Set(HeaderScope, lacks.scope)
	}
	if q.whole {
		dropBodyIfAny(q.W, q.Request)
	}
	if rt.Family.Render(q.W, err) {
		s.quiet.Log(slog.LevelError, "request failed", "method", q.Method, "path", pathOf(q.Request), "err", err)
	}
}

// handle answers at this member. Refusals are confirmed; see confirmed.
func (s *Server) handle(rt *Route, o origin, q *Request) error {
	err := s.confirmed(o, q, s.carryOut(rt, o, q))
	if q.effects != nil && q.effects.Changed() {
		q.doubt = true
	}
	return err
}

func (s *Server) carryOut(rt *Route, o origin, q *Request) error {
	if err := s.admit(rt, o, q); err != nil {
		q.turnedAway = refuses(err)
		return err
	}
	q.turnedAway = false
	if q.dropped { // the caller has become known in the meantime
		return Later("the credential was not known a moment ago; try again")
	}
	if err := checkParameters(q.URL.Query()); err != nil {
		return err
	}
	if !q.checked {
		if err := rt.checks(q); err != nil {
			return err
		}
		q.checked = true
	}
	q.Asked = s.Replica.NodeID()
	if o.forwarded {
		q.Asked, _ = strconv.ParseUint(q.Header.Get(headerAsked), 10, 64)
	}
	if key := q.Header.Get(HeaderKey); key != "" {
		if len(key) > maxIdempotencyKey {
			return Fail(http.StatusBadRequest,
				fmt.Sprintf("%s must be at most %d characters long", HeaderKey, maxIdempotencyKey))
		}
		q.Actor.IdempotencyKey, q.Actor.RequestHash = key, requestHash(q)
		q.Actor.Attempt = s.attemptOf(q)
	}
	q.Actor.Request = rt.Method + " " + rt.Path
	return s.settle(rt, q)
}

// attemptOf returns the attempt of a request whose idempotency key a member generated: a forwarded request, or one that
// was to be forwarded and is answered here after all.
func (s *Server) attemptOf(q *Request) *store.Attempt {
	switch {
	case !strings.HasPrefix(q.Header.Get(HeaderKey), store.AutoKey):
		return nil
	case q.attempt != nil:
		q.attempt.Epoch, q.attempt.Again = s.Replica.Epoch(), q.doubt
		return q.attempt
	}
	return store.AttemptOf(q.Context())
}

var maxIdempotencyKey = store.MaxSize("idempotency", "key")

// requestHash identifies the request that an Idempotency-Key belongs to: method, path, query and body.
func requestHash(q *Request) string {
	target, raw := q.URL.EscapedPath(), q.URL.RawQuery
	if query := q.URL.Query(); query.Has("human") { // clients may add it; it does not change the answer's meaning
		query.Del("human")
		raw = query.Encode()
	}
	if raw != "" {
		target += "?" + raw
	}
	sum := sha256.Sum256([]byte(q.Method + " " + target + "\n" + string(q.Content)))
	return hex.EncodeToString(sum[:])
}

// partingWithin is how long to wait for an answer of a former leader: after a hand-over it is alive and may still
// answer, if only that it no longer leads.
const partingWithin = 250 * time.Millisecond

// forward sends the request to the leader with the caller's own credentials and relays the answer unchanged.
func (s *Server) forward(q *Request, leader uint64) (again bool, err error) {
	repeatable := !q.whole || !q.changes // an idempotency key makes a change repeatable
	ctx, cancel := context.WithCancel(q.Context())
	defer cancel()
	if !q.whole { // stop waiting when the leader has been replaced
		following := s.Replica.Following(leader)
		if following.Err() != nil {
			return true, store.ErrNotLeader
		}
		defer context.AfterFunc(following, func() { time.AfterFunc(partingWithin, cancel) })()
	}
	r := q.forLeader(ctx, s.Replica.NodeID(), s.Mirror.Revision())
	if err := q.Block.Place(q); err != nil {
		return false, err
	}
	resp, err := s.Peers.Forward(r, leader)
	if err != nil {
		var e interface{ NotSent() bool }
		notSent := errors.As(err, &e) && e.NotSent()
		s.log.Debug("a request could not be forwarded", "to", leader, "err", err)
		s.Replica.Unreachable(leader)
		if notSent {
			return true, store.ErrNoLeader
		}
		q.doubt = true
		return repeatable, store.ErrUnknownOutcome
	}
	defer resp.Body.Close()
	if said := resp.Header.Get(headerNotLeader); said != "" {
		q.doubt = q.doubt || said == leaderChanged
		return true, store.ErrNotLeader
	}
	if resp.Header.Get(headerOutcome) != "" {
		if q.doubt = true; repeatable && resp.Header.Get(headerLost) == "" {
			return true, store.ErrUnknownOutcome
		}
	}
	var data []byte
	if !q.whole {
		if data, err = io.ReadAll(resp.Body); err != nil {
			q.doubt = true
			return repeatable, store.ErrUnknownOutcome
		}
	}
	relay(q.W, resp, data)
	if q.whole {
		_, _ = io.Copy(q.W, resp.Body)
	}
	return false, nil
}

// forLeader returns the request in its forwarded form. A request that changes something gets a generated idempotency
// key, so that it can be repeated when the leader dies before it answers.
func (q *Request) forLeader(ctx context.Context, asked, since uint64) *http.Request {
	if !q.whole {
		if q.attempt == nil {
			q.attempt = &store.Attempt{Since: since}
		}
		q.attempt.Again = q.doubt
		ctx = store.WithAttempt(ctx, q.attempt)
	}
	r := q.Request.Clone(ctx)
	if !q.whole {
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(q.Content)), int64(len(q.Content))
	}
	if !q.whole && len(q.Content) == 0 {
		r.Body = http.NoBody // otherwise HTTP/2 would announce one
	}
	r.RequestURI = ""
	r.Header.Set(headerForwarded, "1")
	r.Header.Set(headerRemote, q.RemoteAddr)
	r.Header.Set(headerAsked, strconv.FormatUint(asked, 10))
	r.Header.Del(headerBody)
	if q.HasBody && len(q.Content) == 0 && !q.whole {
		r.Header.Set(headerBody, bodyEmpty)
		if q.dropped {
			r.Header.Set(headerBody, bodyDropped)
		}
	}
	if q.Block != nil {
		r.Header.Set(headerWait, q.Block.remaining().String())
	}
	if q.changes && !q.whole && q.Header.Get(HeaderKey) == "" {
		q.Header.Set(HeaderKey, store.AutoKey+store.NewID())
		r.Header.Set(HeaderKey, q.Header.Get(HeaderKey))
	}
	return r
}

// DecodeJSON decodes the first JSON value of a body as the members family does: it ignores unknown fields and anything
// after the value, and matches field names case-insensitively.
func DecodeJSON(body []byte, v any) error {
	return json.NewDecoder(bytes.NewReader(body)).Decode(v)
}
