package handlers

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"

	"muster/store"
)

// An answer is certain, or says that it is not. Two things can be uncertain: the outcome of a request whose leader
// failed while it was carried out, and the state of a leader that may have been replaced.

// headerOutcome with the value "unknown" marks an error whose request may have been carried out. Without it the request
// was not carried out, or not completely.
const (
	headerOutcome  = "X-Muster-Outcome"
	outcomeUnknown = "unknown"
)

// Headers of a member's question to the leader about a credential, and of the answer.
const (
	headerVouch    = "X-Muster-Vouch"
	headerAccessor = "X-Muster-Accessor"
	headerName     = "X-Muster-Name"
	headerEnds     = "X-Muster-Ends" // RFC 3339; absent for a credential that does not expire
)

// honest corrects an error's statement about the outcome: "nothing happened" becomes "unknown" when an earlier attempt
// may have succeeded, and "unknown" becomes "nothing happened" for requests that change nothing.
func (q *Request) honest(err error) error {
	nothing := errors.Is(err, store.ErrNoLeader) || errors.Is(err, store.ErrNotLeader) ||
		errors.Is(err, store.ErrClosed) ||
		errors.Is(err, store.ErrBusy) || errors.Is(err, store.ErrOldSchema) ||
		errors.Is(err, context.DeadlineExceeded)
	switch unknown := errors.Is(err, store.ErrUnknownOutcome); {
	case unknown && !q.changes:
		return store.ErrNoLeader
	case nothing && q.changes && q.doubt:
		return store.ErrUnknownOutcome
	}
	return err
}

// Sentences that follow the family's own words for an unknown outcome.
const (
	mayHaveHappened = ": the request may or may not have been carried out; "
	repeatWithKey   = "repeat it with the same " + HeaderKey
	lookFirst       = "look before you repeat it, which is always safe with an " + HeaderKey
)

// unknown answers that a request may have been carried out. Retry-After is set only where repeating it is safe.
func (f *Family) unknown(q *Request, err error) {
	advice := lookFirst
	switch key := q.Header.Get(HeaderKey); {
	case f.Repeat != "":
		advice = f.Repeat
	case key != "" && !(store.Actor{IdempotencyKey: key}).Auto():
		advice = repeatWithKey
	}
	h := q.W.Header()
	h.Set(headerOutcome, outcomeUnknown)
	if errors.Is(err, store.ErrAnswerLost) && store.AttemptOf(q.Context()) != nil {
		h.Set(headerLost, "1")
	}
	if advice != lookFirst {
		h.Set("Retry-After", "1")
	}
	f.Fail(q.W, f.UnknownOutcome.Status, 0, f.UnknownOutcome.Text+mayHaveHappened+advice)
}

// refuses reports whether an error is a refusal that depends on the state of the cluster.
func refuses(err error) bool {
	status := 0
	var known *Error
	var own OwnError
	var refusal *store.Refusal
	switch {
	case errors.As(err, &own):
		status = own.HTTPStatus()
	case errors.As(err, &known):
		status = known.Status
	case errors.As(err, &refusal):
		status = statusOf[refusal.Code]
	}
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusConflict, http.StatusGone,
		http.StatusTooManyRequests:
		return true
	}
	return false
}

// confirmed returns a refusal only when a majority confirms that this member led while it was decided; otherwise it
// returns an error that sends the request to the current leader. Only a confirmed refusal counts as a failed attempt.
// Stale requests are not confirmed and not counted.
func (s *Server) confirmed(o origin, q *Request, err error) error {
	if !refuses(err) || q.Stale {
		return err
	}
	if unconfirmed := s.Replica.Confirm(q.Context()); unconfirmed != nil {
		q.Failed = false
		return unconfirmed
	}
	if q.Failed {
		if limited := s.failures.count(remoteOf(q.Request, o)); limited != nil {
			return limited
		}
	}
	return err
}

// unconfirmed returns store.ErrNoLeader in place of the refusal of a credential while there is no leader: it may be
// newer than this member's replica, and nobody can confirm the refusal. A request without a credential stays refused.
func (s *Server) unconfirmed(rt *Route, q *Request, refusal error) error {
	if _, presented := rt.Family.credential(q.Request); presented && refuses(refusal) && s.Replica.LeaderID() == 0 {
		return store.ErrNoLeader
	}
	return refusal
}

// workForwarded answers a request that another member forwarded. That member retries when this one does not lead.
func (s *Server) workForwarded(rt *Route, o origin, q *Request) {
	var err error
	s.Replica.AwaitOwn(q.Context()) // the forwarding member may have learnt of the election first
	vouching := q.Header.Get(headerVouch) != ""
	if vouching {
		err = s.confirmed(o, q, s.admit(rt, o, q))
	} else {
		err = s.handle(rt, o, q)
	}
	switch {
	case errors.Is(err, store.ErrNotLeader), errors.Is(err, store.ErrNoLeader), errors.Is(err, store.ErrClosed):
		said := "1"
		if q.doubt {
			said = leaderChanged
		}
		q.W.Header().Set(headerNotLeader, said)
		q.W.WriteHeader(http.StatusMisdirectedRequest)
	case err == nil && vouching:
		h := q.W.Header()
		if q.Token != nil {
			h.Set(headerAccessor, url.QueryEscape(q.Token.ID))
			h.Set(headerName, url.QueryEscape(q.Token.Name))
		}
		q.W.WriteHeader(http.StatusNoContent)
	default:
		s.answer(rt, q, err)
	}
}

// answerVouched answers a request that only this member can answer, for a caller that it does not know. It asks the
// leader to authorize the caller and passes on the leader's refusal.
func (s *Server) answerVouched(rt *Route, o origin, q *Request) {
	q.Failed = false
	leader := s.Replica.LeaderID()
	if leader == s.Replica.NodeID() {
		local := *q
		local.Stale = false
		if err := s.confirmed(o, &local, s.admit(rt, o, &local)); err != nil {
			s.answer(rt, &local, err)
			return
		}
		q.vouched = local.Token
		s.answer(rt, q, s.handle(rt, o, q))
		return
	}
	r := q.Clone(q.Context())
	r.Body, r.ContentLength, r.RequestURI = http.NoBody, 0, ""
	r.Header.Del("Content-Length")
	r.Header.Set(headerForwarded, "1")
	r.Header.Set(headerRemote, q.RemoteAddr)
	r.Header.Set(headerVouch, "1")
	resp, err := s.Peers.Forward(r, leader)
	if err != nil {
		s.answer(rt, q, store.ErrNoLeader)
		return
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNoContent:
		id, _ := url.QueryUnescape(resp.Header.Get(headerAccessor))
		name, _ := url.QueryUnescape(resp.Header.Get(headerName))
		q.vouched = &store.APIToken{ID: id, Name: name}
		s.answer(rt, q, s.handle(rt, o, q))
	case resp.Header.Get(headerNotLeader) != "":
		s.answer(rt, q, store.ErrNoLeader)
	default:
		data, err := io.ReadAll(io.LimitReader(resp.Body, BodyLimit))
		if err != nil {
			s.answer(rt, q, store.ErrNoLeader)
			return
		}
		relay(q.W, resp, data)
	}
}

// relay writes the leader's answer to the caller.
func relay(w http.ResponseWriter, resp *http.Response, data []byte) {
	h := w.Header()
	for k := range h {
		h.Del(k)
	}
	for k, v := range resp.Header {
		h[k] = v
	}
	h.Del(headerLost)
	w.WriteHeader(resp.StatusCode)
	_, _ = w.Write(data)
}
