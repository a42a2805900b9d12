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
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/gorilla/mux"

	"muster/store"
)

// Headers between members.
const (
	headerForwarded = "X-Muster-Forwarded" // set on what a member passes on: it is not passed on again
	headerNotLeader = "X-Muster-Not-Leader"
	headerAsked     = "X-Muster-Asked" // the Raft id of the member that the caller has asked
	headerBody      = "X-Muster-Body"  // the request came with a body that is not passed on, and why
	bodyEmpty       = "1"              // it means nothing
	bodyDropped     = "dropped"        // the caller was not known, so that it was not read
	leaderChanged   = "changed"        // in headerNotLeader: something was changed all the same
	headerKey       = "Idempotency-Key"
)

// request is what a handler works on.
type request struct {
	*http.Request
	w       http.ResponseWriter
	body    []byte
	token   *store.APIToken // nil on open routes
	key     *store.APIKey   // that token is, if it is one
	node    *store.Member   // whose identity the request shows, if it is a node's
	actor   store.Actor
	stale   bool
	asked   uint64    // the member that the caller has asked
	enrolls bool      // as the route says: what an enrollment token is for
	whole   bool      // the body is large: the handler reads it, and it is passed on as it comes
	block   *blocking // nil unless the query waits for a change

	stranger bool // its caller has shown no credential that this member knows
	hasBody  bool // it came with a body, which may not have been read
	dropped  bool // it needs a body that was not read: its caller would be refused whatever it says
	checked  bool // the route's checks have passed

	changes bool            // as the route says: it may change something
	effects *store.Effects  // what it has changed here; nil for one that changes nothing
	doubt   bool            // an attempt may have carried it out
	failed  bool            // it counts as a failed attempt of its address, once that is confirmed
	vouched *store.APIToken // who the leader says is asking

	turnedAway bool // the caller was not let in
}

func (q *request) vars() map[string]string { return mux.Vars(q.Request) }

// result answers with the envelope of the members family.
func (q *request) result(status int, v any) error {
	writeJSON(q.w, status, struct {
		Result any `json:"result"`
	}{v})
	return nil
}

type message struct {
	Message string `json:"message"`
}

// consistency is where this request may be answered from.
func (q *request) consistency() store.Consistency {
	if q.stale {
		return store.Stale
	}
	return store.Linearisable
}

// watchedBody remembers whether any of a body was taken: what is left of it cannot be served again.
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

func (q *request) touched() bool {
	b, ok := q.Request.Body.(*watchedBody)
	return ok && b.taken.Load()
}

// attempt tries once; again tells whether trying once more is safe and may help. It waits for a leader until giveUp.
func (s *Server) attempt(rt *route, o origin, q *request, giveUp time.Time) (again bool, err error) {
	wait, cancel := context.WithDeadline(q.Context(), giveUp)
	leader, err := s.Store.AwaitLeader(wait)
	cancel()
	if err != nil {
		return false, err
	}
	if leader == s.Store.NodeID() {
		err := s.handle(rt, o, q)
		switch {
		case errors.Is(err, store.ErrNotLeader), errors.Is(err, store.ErrNoLeader):
			return true, err
		case errors.Is(err, store.ErrUnknownOutcome):
			q.doubt = true
			return q.Header.Get(headerKey) != "" || !q.changes, err
		case err != nil:
			s.answer(rt, q, err)
		}
		return false, nil
	}
	return s.forward(q, leader)
}

func (s *Server) answer(rt *route, q *request, err error) {
	if err == nil {
		return
	}
	if recorderOf(q.w).wrote { // its caller has gone while it was being written: no fault of this member
		s.log.Debug("an answer was cut off", "method", q.Method, "path", q.URL.Path, "err", err)
		return
	}
	if err = q.honest(err); errors.Is(err, store.ErrUnknownOutcome) {
		rt.family.unknown(q, err)
		return
	}
	s.noteRefusal(rt, q, err)
	if q.whole {
		dropBodyIfAny(q.w, q.Request)
	}
	if rt.family.render(q.w, err) {
		s.log.Error("request failed", "method", q.Method, "path", q.URL.Path, "err", err)
	}
}

// admit finds out who is asking and whether they may.
func (s *Server) admit(rt *route, o origin, q *request) error {
	q.actor = store.Actor{NodeID: s.Store.NodeID(), Remote: remoteOf(q.Request, o)}
	if q.vouched != nil {
		q.token, q.actor.Accessor, q.actor.Name = q.vouched, q.vouched.ID, q.vouched.Name
		return nil
	}
	if rt.family.admit != nil {
		err := rt.family.admit(s, rt, q)
		if q.token != nil {
			q.actor.Accessor, q.actor.Name = q.token.ID, q.token.Name
		}
		return err
	}
	if rt.scope == "" {
		return nil
	}
	token, err := s.authenticate(q)
	if err != nil {
		return err
	}
	if token != nil {
		q.token, q.actor.Accessor, q.actor.Name = token, token.ID, token.Name
	}
	switch allowed := token != nil && q.allows(rt.scope); {
	case allowed:
		return nil
	case rt.family.denied != nil:
		return rt.family.denied(q, token, rt.scope)
	case token == nil:
		return fail(rt.family.unauthenticated.status, rt.family.unauthenticated.text)
	default:
		return fail(rt.family.forbidden.status, rt.family.forbidden.text)
	}
}

// allows tells whether the credential allows what the route does. An enrollment token enrolls and does nothing else.
func (q *request) allows(scope string) bool {
	return q.token.Allows(scope) && (q.enrolls || q.key == nil || q.key.Kind != store.KeyKindEnrollment)
}

// handle answers here. What refuses the caller is confirmed; see confirmed.
func (s *Server) handle(rt *route, o origin, q *request) error {
	err := s.confirmed(o, q, s.carryOut(rt, o, q))
	if q.effects != nil && q.effects.Changed() {
		q.doubt = true
	}
	return err
}

func (s *Server) carryOut(rt *route, o origin, q *request) error {
	if err := s.admit(rt, o, q); err != nil {
		q.turnedAway = refuses(err)
		return err
	}
	q.turnedAway = false
	if q.dropped { // the caller has become known meanwhile
		return later("the credential was not known a moment ago; try again")
	}
	if err := checkParameters(q.URL.Query()); err != nil {
		return err
	}
	if !q.checked {
		if err := rt.checks(s, q); err != nil {
			return err
		}
		q.checked = true
	}
	q.asked = s.Store.NodeID()
	if o.forwarded {
		q.asked, _ = strconv.ParseUint(q.Header.Get(headerAsked), 10, 64)
	}
	if key := q.Header.Get(headerKey); key != "" {
		if len(key) > maxIdempotencyKey {
			return fail(http.StatusBadRequest, fmt.Sprintf("%s must be at most %d characters long", headerKey, maxIdempotencyKey))
		}
		q.actor.IdempotencyKey, q.actor.RequestHash = key, requestHash(q)
	}
	q.actor.Request = rt.method + " " + rt.path
	return s.settle(rt, q)
}

var maxIdempotencyKey = store.MaxSize("idempotency", "key")

// requestHash is what an Idempotency-Key stands for: method, path, query and body.
func requestHash(q *request) string {
	target, raw := q.URL.EscapedPath(), q.URL.RawQuery
	if query := q.URL.Query(); query.Has("human") { // which clients may add, and which changes no answer
		query.Del("human")
		raw = query.Encode()
	}
	if raw != "" {
		target += "?" + raw
	}
	sum := sha256.Sum256([]byte(q.Method + " " + target + "\n" + string(q.body)))
	return hex.EncodeToString(sum[:])
}

// partingWithin is how long a leader that others have followed may still take to answer: one that has handed leadership over
// is alive, and what it has to say may be just that.
const partingWithin = 250 * time.Millisecond

// forward passes the request on to the leader with the caller's own credentials and its answer back as it is.
func (s *Server) forward(q *request, leader uint64) (again bool, err error) {
	repeatable := !q.whole || !q.changes // a key makes it so where it changes something
	ctx, cancel := context.WithCancel(q.Context())
	defer cancel()
	if !q.whole { // nobody waits for a leader that leads no more
		following := s.Store.Following(leader)
		if following.Err() != nil {
			return true, store.ErrNotLeader
		}
		defer context.AfterFunc(following, func() { time.AfterFunc(partingWithin, cancel) })()
	}
	r := q.Request.Clone(ctx)
	if !q.whole {
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(q.body)), int64(len(q.body))
	}
	if !q.whole && len(q.body) == 0 {
		r.Body = http.NoBody // or HTTP/2 would announce one
	}
	r.RequestURI = ""
	r.Header.Set(headerForwarded, "1")
	r.Header.Set(headerRemote, q.RemoteAddr)
	r.Header.Set(headerAsked, strconv.FormatUint(s.Store.NodeID(), 10))
	r.Header.Del(headerBody)
	if q.hasBody && len(q.body) == 0 && !q.whole {
		r.Header.Set(headerBody, bodyEmpty)
		if q.dropped {
			r.Header.Set(headerBody, bodyDropped)
		}
	}
	if q.block != nil {
		r.Header.Set(headerWait, q.block.remaining().String())
	}
	if q.changes && !q.whole && q.Header.Get(headerKey) == "" {
		// A key of our own makes it safe to repeat when the leader dies before it answers.
		q.Header.Set(headerKey, store.AutoKey+store.NewID())
		r.Header.Set(headerKey, q.Header.Get(headerKey))
	}
	if err := q.block.place(s, q); err != nil {
		return false, err
	}
	resp, err := s.Peers.Forward(r, leader)
	if err != nil {
		var e interface{ NotSent() bool }
		notSent := errors.As(err, &e) && e.NotSent()
		s.log.Debug("a request could not be forwarded", "to", leader, "err", err)
		s.Store.Unreachable(leader)
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
		if q.doubt = true; repeatable {
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
	passOn(q.w, resp, data)
	if q.whole {
		_, _ = io.Copy(q.w, resp.Body)
	}
	return false, nil
}

// decodeJSON reads the first JSON value of a body as the members family does: unknown fields and what follows are
// ignored, field names match without regard to case.
func decodeJSON(body []byte, v any) error {
	return json.NewDecoder(bytes.NewReader(body)).Decode(v)
}
