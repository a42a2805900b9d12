package handlers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"muster/store"
)

const (
	refusalWindow    = time.Minute // equal attempts within it become one audit row
	maxRefusalWindow = time.Hour   // the window doubles with each row, so that lasting attempts do not fill the audit
	refusalTick      = time.Second
	refusalEvery     = 10 * time.Second // one row, for the whole cluster: only the leader writes them
	refusalBurst     = 60               // rows
	maxRefusals      = 1000             // distinct attempts in memory; the rest is counted together
	kindsOfOne       = 20               // distinct attempts of one address; the rest of that address is counted together
)

// refusals aggregates refused attempts until they are written to the audit.
type refusals struct {
	mu    sync.Mutex
	m     map[refusalKey]*refusal
	of    map[string]int // entries in m, by address
	limit *rate.Limiter
}

type refusalKey struct{ actor, remote, object, why string }

type refusal struct {
	count   int
	first   time.Time
	written time.Time // when a row was last written for it
	window  time.Duration
}

func newRefusals() *refusals {
	return &refusals{m: map[refusalKey]*refusal{}, of: map[string]int{},
		limit: rate.NewLimiter(rate.Every(refusalEvery), refusalBurst)}
}

const tooManyKinds = "too many different attempts to list"

func (x *refusals) note(k refusalKey, now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.m[k] == nil {
		switch {
		case len(x.m) >= maxRefusals:
			k = refusalKey{remote: "others", object: "various", why: tooManyKinds}
		case x.of[k.remote] >= kindsOfOne:
			k = refusalKey{remote: k.remote, object: "various", why: tooManyKinds}
		}
	}
	r := x.m[k]
	if r == nil {
		r = &refusal{window: refusalWindow}
		x.m[k] = r
		x.of[k.remote]++
	}
	if r.count == 0 {
		r.first = now
	}
	r.count++
}

// due removes and returns the rows to write now: a new kind of attempt at once, further equal ones after a minute, then
// two, and so on up to an hour.
func (x *refusals) due(now time.Time) (list []store.RefusedAttempt) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for k, r := range x.m {
		switch {
		case now.Sub(r.written) < r.window:
		case r.count == 0:
			delete(x.m, k)
			if x.of[k.remote]--; x.of[k.remote] == 0 {
				delete(x.of, k.remote)
			}
		case x.limit.AllowN(now, 1):
			detail := k.why
			if r.count > 1 {
				detail = fmt.Sprintf("%s; %d times since %s", k.why, r.count, r.first.UTC().Format(TimeFormat))
			}
			list = append(list, store.RefusedAttempt{Actor: k.actor, Remote: k.remote, Object: k.object, Detail: detail})
			if !r.written.IsZero() {
				r.window = min(2*r.window, maxRefusalWindow)
			}
			r.count, r.written = 0, now
		}
	}
	slices.SortFunc(list,
		func(a, b store.RefusedAttempt) int { return strings.Compare(a.Remote+a.Object, b.Remote+b.Object) })
	return list
}

// KeepRefusals writes refused attempts to the audit until ctx ends. Attempts that cannot be written because this member
// does not lead are at least logged.
func (s *Server) KeepRefusals(ctx context.Context) {
	tick := time.NewTicker(refusalTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		list := s.refusals.due(time.Now())
		if len(list) == 0 {
			continue
		}
		wctx, cancel := context.WithTimeout(ctx, AnswerWithin)
		if err := s.Audit.NoteRefusals(wctx, list); err != nil && ctx.Err() == nil {
			for _, r := range list {
				s.log.Warn("refused", "actor", r.Actor, "remote", r.Remote, "object", r.Object, "detail", r.Detail)
			}
		}
		cancel()
	}
}

// noteRefusal records a refused attempt at a sensitive route: the pattern of the path, never the path or anything else
// that the caller sent.
func (s *Server) noteRefusal(rt *Route, q *Request, err error) {
	if !rt.Sensitive() {
		return
	}
	status, text := 0, ""
	var known *Error
	var refusal *store.Refusal
	switch {
	case errors.As(err, &known):
		status, text = known.Status, known.Text
	case errors.As(err, &refusal):
		status, text = statusOf[refusal.Code], refusal.Message
	}
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests:
		s.refusals.note(refusalKey{actor: q.Actor.String(), remote: q.Actor.Remote, object: rt.Method + " " + rt.Path,
			why: fmt.Sprintf("%d %s", status, plainReason(text))}, time.Now())
	}
}

// plainReason cuts a refusal down to its constant part: the rest may be the caller's input, or a time.
func plainReason(text string) string {
	if what, rest, ok := strings.Cut(text, ": "); ok {
		rest, _, _ = strings.Cut(rest, ":")
		text = what + ": " + rest
	}
	for _, end := range []string{" (", "=", " at ", ";"} {
		text, _, _ = strings.Cut(text, end)
	}
	return text
}
