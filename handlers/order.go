package handlers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"muster/internal/netlimit"
	"muster/store"
)

// Every request is processed in this order, whatever its family and listener. Costly steps come late, and a request
// gets a slot only when it has been received completely:
//
//  1. connection limits: netlimit, before anything is read; a connection beyond them gets an error (guard)
//  2. headers: net/http reads them under a deadline and a limit of size; too many fields and browsers of other origins
//     end here (guard)
//  3. route: the router has chosen it (router)
//  4. authentication and failure limit: a caller without a valid credential is a stranger and needs a place in the room
//     of its address (guard); strangers get only checks that are linear in cheapBytes (dispatch)
//  5. body under a deadline (dispatch)
//  6. slot: at most Limits.Requests are at work (dispatch); blocking queries and streams have their own
//  7. checks of the arguments, and authentication again, at the deciding member: the leader (handle)
//  8. work under the route's deadline (dispatch)
//  9. answer under a write deadline that fits the route; the slot is free from its first byte on (recorder)

// crossOrigin detects requests that a browser makes on behalf of another origin.
var crossOrigin = http.NewCrossOriginProtection()

// maxFields bounds the header fields of a request: decoded, many small ones take many times their length.
const maxFields = 128

// fieldsOf counts the header fields of a request, and the trailer fields that it announces.
func fieldsOf(r *http.Request) (n int) {
	for _, values := range r.Header {
		n += len(values)
	}
	return n + len(r.Trailer)
}

// foreign reports whether a browser sends this request for a page of another origin. GETs that create something count
// as changes.
func foreign(rt *Route, r *http.Request) bool {
	if rt != nil && rt.Keyed && r.Method == http.MethodGet {
		probe := http.Request{Method: http.MethodPost, Header: r.Header, Host: r.Host, URL: r.URL}
		return crossOrigin.Check(&probe) != nil
	}
	return crossOrigin.Check(r) != nil
}

// guard does the steps before the body (1 to 4), recovers panics and writes the log line.
func (s *Server) guard(rt *Route, o origin, h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var fam *Family
		if rt != nil {
			fam = rt.Family
		} else {
			fam = s.familyOf(r)
		}
		rec := &recorder{ResponseWriter: w, server: s, family: fam}
		defer s.finish(rt, o, fam, rec, r, time.Now())
		fam.headers(rec)
		if !o.forwarded {
			for _, name := range fromMembers {
				r.Header.Del(name)
			}
		}
		if rt == nil || rt.Serve == nil { // no handler reads its body
			dropBodyIfAny(rec, r)
		}
		conn := connectionOf(r.Context())
		if conn != nil && conn.Overfull() {
			w.Header().Set("Connection", "close")
			s.tooMany(rec, fam, refusedConnections, "this member has reached its limit of connections; try another one",
				5*time.Second)
			return
		}
		if !o.forwarded && fieldsOf(r) > maxFields {
			s.sendAway(rec, r, o, http.StatusRequestHeaderFieldsTooLarge, func() {
				fam.Fail(rec, http.StatusRequestHeaderFieldsTooLarge, store.Invalid,
					fmt.Sprintf("a request must have at most %d header fields", maxFields))
			})
			return
		}
		if !o.forwarded && foreign(rt, r) {
			s.sentAway.WithLabelValues(refusedCrossOrigin).Inc()
			s.sendAway(rec, r, o, http.StatusForbidden, func() {
				fam.Fail(rec, http.StatusForbidden, store.Forbidden, "a web page of another origin must not send this request")
			})
			return
		}
		if !o.forwarded && !s.letIn(fam, conn, rec, r, o) {
			return
		}
		if fam.Wrap == nil || o.forwarded {
			h(rec, r)
			return
		}
		shaped := fam.Wrap(rec, r)
		h(shaped, r)
		shaped.Finish()
	})
}

// letIn identifies the caller. It rejects a stranger, and a caller whose credential allows nothing, when the room of
// its address is full.
func (s *Server) letIn(fam *Family, conn *netlimit.Conn, rec *recorder, r *http.Request, o origin) bool {
	who, may := s.known(fam, conn, r)
	from := addressOf(r, o)
	if who != "" {
		rec.rationed(s.bodies, who)
		rec.unread = s.unreadOf(who, from.String())
	}
	if may {
		return true
	}
	if conn != nil {
		conn.Charge(costOfRequest)
	}
	if rec.place = s.rooms.enter(from); rec.place == nil {
		rec.Header().Set("Retry-After", retryAfter(time.Second))
		s.sendAway(rec, r, o, http.StatusServiceUnavailable, func() {
			s.tooMany(rec, fam, refusedStrangers,
				"too many concurrent requests from this address without a valid credential; try again", time.Second)
		})
		if rec.place == nil { // tooMany was not called
			s.sentAway.WithLabelValues(refusedStrangers).Inc()
		}
		return false
	}
	if who == "" {
		rec.stranger = true
		rec.rationed(s.strangerBodies, from.String())
	}
	return true
}

// sendAway answers a request that has no place in a room. The write must be quick, and few such answers of an address
// may wait to be read: the others have no body, because HTTP/2 lets a client that takes nothing hold back bodies alone
// (RFC 9113, section 5.2), and what each of them holds adds up.
func (s *Server) sendAway(rec *recorder, r *http.Request, o origin, status int, answer func()) {
	dropBodyIfAny(rec, r)
	_ = http.NewResponseController(rec).SetWriteDeadline(time.Now().Add(time.Second))
	if rec.place = s.away.enter(addressOf(r, o)); rec.place == nil {
		rec.sentAway = true
		rec.Header().Del("Content-Type")
		rec.WriteHeader(status)
		return
	}
	answer()
}

// known returns the identity of the valid credential that the caller has presented, now or earlier on this connection;
// "" without one that this member knows. may: the credential allows something. It asks no other member: authorization
// is decided later, at the leader.
func (s *Server) known(fam *Family, conn *netlimit.Conn, r *http.Request) (who string, may bool) {
	if conn != nil && conn.ProvenBy() != "" {
		return conn.ProvenBy(), true
	}
	ctx, cancel := context.WithTimeout(r.Context(), time.Second)
	defer cancel()
	q := &Request{Request: r.WithContext(ctx), server: s, route: &Route{Family: fam}}
	token, err := s.authenticateNode(q) // nil where this member does not lead
	if c, ok := fam.credential(r); token == nil && ok {
		if _, err = s.recognise(q, c); err != nil {
			q.Stale = true
			_, err = s.recognise(q, c)
		}
		token = q.Token
	}
	if err != nil || token == nil {
		return "", false
	}
	q.Token = token
	may = len(token.Scopes) > 0
	if conn != nil && may {
		conn.Proven(q.identity())
	}
	return q.identity(), may
}

// dispatch answers a request here or forwards it to the leader (5 to 9). While there is no leader, or leadership
// changes during the request, it retries until AnswerWithin is over: a caller sees a fail-over as a slow answer.
func (s *Server) dispatch(rt *Route, o origin, w http.ResponseWriter, r *http.Request) {
	rec := recorderOf(w)
	q := &Request{
		Request:  r,
		W:        w,
		server:   s,
		route:    rt,
		origin:   o,
		changes:  rt.Changes() || rt.Keyed,
		whole:    rt.Whole,
		Block:    parseBlocking(rt, o, r),
		stranger: rec.stranger,
	}
	defer q.Block.done()
	if err := s.receive(rt, o, q, rec); err != nil {
		if errors.Is(err, errNoRoom) {
			dropBodyIfAny(w, r)
			s.tooMany(w, rt.Family, refusedBodies,
				"the bodies of this caller's requests, or of all requests together, are too large; try again", time.Second)
			return
		}
		s.answer(rt, q, err)
		return
	}
	if !rec.unread.take(answerCost) {
		s.tooMany(w, rt.Family, refusedAnswers, tooMuchUnread, time.Second)
		return
	}
	rec.replaceable = !q.changes
	if !rec.work() {
		s.refused.Inc()
		s.tooMany(w, rt.Family, refusedRequests, "too many requests at once; try again", time.Second)
		return
	}
	within := max(rt.Within, AnswerWithin) + q.Block.remaining()
	ctx, cancel := context.WithTimeout(r.Context(), within)
	defer cancel()
	if q.changes {
		ctx, q.effects = store.WithEffects(ctx)
	}
	q.Request = r.WithContext(ctx)
	q.deadlines(rt, within)
	s.work(ctx, rt, o, q)
	if conn := connectionOf(r.Context()); conn != nil && rt.Proves && rec.status == http.StatusOK {
		conn.Proven(rt.Path + " from " + addressOf(r, o).String())
	}
}

// receive does the cheap checks and reads the body.
func (s *Server) receive(rt *Route, o origin, q *Request, rec *recorder) (err error) {
	switch {
	case rt.Whole:
		if q.Request.Body != nil && q.Request.Body != http.NoBody {
			q.Request.Body = &watchedBody{ReadCloser: q.Request.Body}
		}
	case q.needsBody(rt) && !s.pointless(rt, o, q):
		if q.Content, err = q.receive(rec.ration); err != nil {
			return err
		}
		q.HasBody = len(q.Content) > 0
		if q.Method == http.MethodGet || q.Method == http.MethodHead {
			q.Content = nil // it has no meaning
		}
	case announcesBody(q.Request):
		q.HasBody, q.dropped = true, q.needsBody(rt)
		dropBody(q.W, q.Request)
	}
	if said := q.Header.Get(headerBody); o.forwarded && said != "" {
		q.HasBody, q.dropped = true, said == bodyDropped
	}
	return s.checkEarly(rt, o, q)
}

// checkEarly checks the arguments before authentication, as the originals do. For a stranger it postpones the check
// when the arguments are long or its address has reached the failure limit, and a bad argument counts as a failed
// attempt.
func (s *Server) checkEarly(rt *Route, o origin, q *Request) error {
	remote := remoteOf(q.Request, o)
	if o.forwarded && q.Header.Get(headerVouch) != "" {
		return nil // only the credential is in question
	}
	if q.dropped || q.stranger && (!q.cheap() || rt.Scope != "" && s.failures.spent(remote)) {
		return nil
	}
	err := rt.checks(q)
	// Unless this member leads, another one may know the caller.
	if err != nil && q.stranger && rt.Scope != "" && s.Replica.Confirm(q.Context()) == nil {
		if limited := s.failures.count(remote); limited != nil {
			return limited
		}
	}
	q.checked = err == nil
	return err
}

// cheap reports whether the arguments are short enough to be checked for anybody.
func (q *Request) cheap() bool {
	return len(q.URL.RawQuery) <= cheapBytes && len(q.Content) <= cheapBytes
}

// pointless reports whether a stranger will be refused whatever its body is, so that the body need not be read.
func (s *Server) pointless(rt *Route, o origin, q *Request) bool {
	if !q.stranger || o.forwarded || !rt.asks() || !s.Replica.Leading() {
		return false // a member that does not lead may not know a new credential yet
	}
	if rt.Vet != nil && q.ContentLength >= 0 && q.ContentLength <= cheapBytes {
		return false
	}
	return s.Replica.Confirm(q.Context()) == nil // a deposed leader may not know it either
}

// checks runs the route's checks of the arguments, the body's last.
func (rt *Route) checks(q *Request) error {
	check := rt.Check
	if check == nil && rt.At == HereStale {
		check = CheckStale
	}
	if check != nil {
		if err := check(q.Request); err != nil {
			return err
		}
	}
	if rt.CheckHere != nil {
		if err := rt.CheckHere(q.Request); err != nil {
			return err
		}
	}
	if rt.Vet != nil {
		return rt.Vet(q)
	}
	return nil
}

// deadlines replaces the listener's read and write deadlines, which suit immediate answers, by those of the route. A
// stranger's are shorter, because it holds a place of its address until its answer is written.
func (q *Request) deadlines(rt *Route, within time.Duration) {
	control := http.NewResponseController(q.W)
	switch {
	case rt.Whole:
		_ = control.SetReadDeadline(time.Now().Add(rt.Within))
		_ = control.SetWriteDeadline(time.Now().Add(within + time.Minute))
	case within > AnswerWithin:
		if !announcesBody(q.Request) || q.needsBody(rt) {
			_ = control.SetReadDeadline(time.Time{})
		}
		_ = control.SetWriteDeadline(time.Now().Add(within + AnswerWithin + writeWithin))
	case q.stranger:
		_ = control.SetWriteDeadline(time.Now().Add(within + writeWithin))
	}
}

// work answers the request here or through the leader.
func (s *Server) work(ctx context.Context, rt *Route, o origin, q *Request) {
	if o.forwarded && q.Header.Get(headerVouch) != "" {
		s.workForwarded(rt, o, q)
		return
	}
	q.Stale = rt.At == Here || rt.stale(q.Request)
	if q.Stale {
		if rt.At == HereStale {
			s.sayAge(q)
		}
		err := s.handle(rt, o, q)
		switch {
		case !q.turnedAway && (rt.At == Here || !errors.Is(err, store.ErrNoLeader)):
			s.answer(rt, q, err)
			return
		case s.Replica.LeaderID() == 0:
			if q.turnedAway {
				err = s.unconfirmed(rt, q, err)
			}
			s.answer(rt, q, err)
			return
		case rt.At == Here:
			s.answerVouched(rt, o, q)
			return
		}
		// A member that has just joined may have no replica yet, or not the caller's token: the leader decides.
		q.Stale, q.Failed = false, false
		unsayAge(q)
	}
	if o.forwarded {
		s.workForwarded(rt, o, q)
		return
	}
	if strings.HasPrefix(q.Header.Get(HeaderKey), store.AutoKey) {
		s.answer(rt, q, Fail(http.StatusBadRequest,
			HeaderKey+" must not begin with "+store.AutoKey+", as those of members do"))
		return
	}
	giveUp := time.Now().Add(AnswerWithin)
	for {
		begin, turned := time.Now(), s.Replica.Leadership()
		again, err := s.attempt(rt, o, q, giveUp)
		if err == nil {
			return
		}
		if time.Since(begin) > time.Second { // it made progress before leadership changed: restart the clock
			giveUp = time.Now().Add(AnswerWithin)
		}
		if !again || q.touched() || ctx.Err() != nil || time.Now().After(giveUp) {
			s.answer(rt, q, err)
			return
		}
		s.Replica.Look()
		select {
		case <-turned:
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}
