package handlers_test

import (
	"cmp"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"muster/certs"
	"muster/handlers"
	"muster/handlers/internal/sole"
	"muster/store"
)

// forwardedRoutes lists the routes that a follower passes on.
func forwardedRoutes(s *sole.Member) (list []*handlers.Route) {
	for _, rt := range s.Routes() {
		if rt.At != handlers.Here && !rt.Stream && rt.Path != "/v1/peering/establish" {
			list = append(list, rt)
		}
	}
	return list
}

// TestUnknownIsSaid walks over all routes that the leader answers and over what can happen on the way to it. An answer
// says that something may have happened if and only if it may.
func TestUnknownIsSaid(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	f := newTestFollower(t, s, mirrorFile(s))
	const up = "the caller's time is up"
	for _, rt := range forwardedRoutes(s) {
		target, body := harmless(rt)
		if rt.Path == "/api/v1/cluster/join" {
			body = `{"token":"x"}`
		}
		changes := rt.Changes() || rt.Keyed
		for _, x := range []struct {
			steps   []string
			unknown bool
		}{
			{[]string{up}, false},
			{[]string{"not sent", up}, false},
			{[]string{"not the leader", up}, false},
			{[]string{"lost", up}, true},
			{[]string{"lost", "not sent", up}, true},
			{[]string{"lost", "not the leader", "not sent", up}, true},
			{[]string{"unknown", "not the leader", up}, true},
			{[]string{"not the leader, after a change", "not sent", up}, true},
		} {
			for _, key := range []string{"", "k-" + store.NewID()} {
				if key != "" && len(x.steps) > 2 {
					continue // one of each is enough
				}
				var headers []string
				if key != "" {
					headers = []string{handlers.HeaderKey, key}
				}
				w := f.through(x.steps, rt.Method, target, body, headers...)
				if w.Code < 500 && f.relay.untouched() {
					continue // refused before it is passed on: its arguments
				}
				text := w.Body.String()
				unknown := w.Header().Get(handlers.HeaderOutcome) == handlers.OutcomeUnknown
				want := x.unknown && changes
				status := rt.Family.NoLeader.Status
				if want && rt.Whole && x.steps[0] == "unknown" {
					status, text = w.Code, handlers.MayHaveHappened+handlers.HeaderKey // the leader's own answer
				} else if want {
					status = rt.Family.UnknownOutcome.Status
				}
				retry := w.Header().Get("Retry-After") != ""
				switch {
				case unknown != want, w.Code != status, strings.Contains(text, "may or may not have been carried out") != want &&
					rt.Method != http.MethodHead:
					t.Errorf("%s %s, %v: %d %s (unknown: %v); want %d, %v", rt.Method, rt.Path, x.steps, w.Code, text, unknown, status,
						want)
				case want && rt.Family.Name != "zlayer" && !strings.Contains(text, handlers.HeaderKey) &&
					rt.Method != http.MethodHead:
					t.Errorf("%s %s, %v: nothing of %s: %s", rt.Method, rt.Path, x.steps, handlers.HeaderKey, text)
				case retry != (!want || key != "" || rt.Family.Name == "zlayer"):
					t.Errorf("%s %s, %v, key %q: Retry-After %v", rt.Method, rt.Path, x.steps, key, retry)
				}
			}
		}
	}
}

// TestTransferWithoutALeader: a transfer after which nobody is known to lead has an unknown outcome, not a refusal.
func TestTransferWithoutALeader(t *testing.T) {
	t.Parallel()
	s := sole.New(t, func(c *sole.Config) {
		c.Cluster.Leads = func() (uint64, error) { return 0, store.ErrNoLeader }
	})
	s.AddVoter(func() bool { return true })
	w := s.Call("PUT", "/v1/operator/raft/transfer-leadership?address=127.0.0.1:7002", s.Admin, "")
	if w.Code != 500 || w.Header().Get(handlers.HeaderOutcome) != handlers.OutcomeUnknown ||
		!strings.Contains(w.Body.String(), handlers.MayHaveHappened) {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
}

// TestLaterSaysWhen: what can be done in a moment says so in every family.
func TestLaterSaysWhen(t *testing.T) {
	t.Parallel()
	for _, f := range sole.New(t).Families() {
		w := httptest.NewRecorder()
		if internal := f.Render(w, handlers.Later("not now")); internal || w.Code != 503 ||
			w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), "not now") {
			t.Errorf("%s: %d %v %s", f.Name, w.Code, w.Header(), w.Body)
		}
	}
}

func (x *relay) untouched() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.forward == 0
}

func mirrorFile(s *sole.Member) string {
	s.T.Helper()
	sole.Until(s.T, "the mirror is there", func() bool { return s.Store.Mirror.Revision() >= s.Store.Revision() })
	return filepath.Join(s.Dir, "muster.db")
}

// TestRepeatedIsTheFirst: what was carried out before the leader was lost is answered as it would have been, whatever
// the method.
func TestRepeatedIsTheFirst(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	f := newTestFollower(t, s, mirrorFile(s))
	lost := []string{"carried out, then lost", "not sent", "answer"}
	id := func(w *httptest.ResponseRecorder) string {
		_, rest, _ := strings.Cut(w.Body.String(), `"id":"`)
		id, _, _ := strings.Cut(rest, `"`)
		return id
	}
	token := id(f.through(lost, "POST", "/api/v1/api-tokens", `{"name":"x","scopes":["cluster:read"]}`))
	join := id(f.through(lost, "POST", "/api/v1/cluster/join-tokens", `{}`))
	if token == "" || join == "" {
		t.Fatalf("no tokens: %q, %q", token, join)
	}
	for _, x := range []struct{ method, target, body string }{
		{"PUT", "/api/v1/cluster/secrets/a", `{"value":"eA=="}`},
		{"DELETE", "/api/v1/cluster/secrets/a", ""},
		{"PUT", "/api/v1/cluster/leases/l", `{"nodeId":1,"kind":"x","ttlSeconds":60}`},
		{"DELETE", "/api/v1/cluster/leases/l", ""},
		{"DELETE", "/api/v1/cluster/join-tokens/" + join, ""},
		{"DELETE", "/api/v1/api-tokens/" + token, ""},
		{"DELETE", "/v1/peering/nothing", ""},
	} {
		if w := f.through(lost, x.method, x.target, x.body); w.Code >= 300 {
			t.Errorf("%s %s: %d %s", x.method, x.target, w.Code, w.Body)
		}
	}
	before := f.relay.forward
	w := f.through([]string{"carried out, then lost with what was told"}, "POST", "/api/v1/cluster/join-tokens", `{}`)
	if w.Code != 503 || w.Header().Get(handlers.HeaderOutcome) != handlers.OutcomeUnknown || f.relay.forward != before+2 {
		t.Errorf("an answer that was lost, after %d attempts: %d %v %s", f.relay.forward-before, w.Code, w.Header(), w.Body)
	}
	if w := s.Call("DELETE", "/api/v1/cluster/leases/l", s.Admin, ""); w.Code != 404 {
		t.Errorf("a lease that is gone: %d %s", w.Code, w.Body)
	}
}

// TestStaleRefusalsAreTheLeaders: a member whose mirror is behind asks the leader about a token that it does not know,
// also for what it answers itself.
func TestStaleRefusalsAreTheLeaders(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	f := newTestFollower(t, s, mirrorFile(s))
	f.Admin = s.Token(store.ScopeManagement)                                                // the mirror does not have it
	elsewhere := map[string]string{store.ScopePeeringRead: s.Token(store.ScopeClusterRead)} // by the scope that is wanted
	reader := s.Token(store.ScopePeeringRead)
	for _, rt := range s.Routes() {
		if rt.Scope == "" || rt.At == handlers.AtLeader || rt.Stream {
			continue
		}
		target, body := harmless(rt)
		if rt.At == handlers.HereStale {
			target += "?stale"
		}
		if rt.Path == "/api/v1/sql" {
			body = `{"query":"SELECT 1"}`
		}
		w := f.through(nil, rt.Method, target, body)
		if rt.Path == "/v1/agent/self" && !strings.Contains(w.Body.String(), `"NodeName":"two"`) {
			t.Errorf("%s is not the member's own answer: %s", target, w.Body)
		}
		if w.Code != 200 && w.Code != 404 { // what is asked for may not exist
			t.Errorf("%s %s with a new token: %d %s (leader %d)", rt.Method, target, w.Code, w.Body, f.Store.LeaderID())
		}
		other := cmp.Or(elsewhere[rt.Scope], reader)
		for what, credential := range map[string]string{"without a scope": other, "unknown": certs.NewSecret()} {
			w := f.through(nil, rt.Method, target, body, "Authorization", "Bearer "+credential)
			if !refusedAs(rt, w.Code, what != "unknown") {
				t.Errorf("%s %s with a token %s: %d %s", rt.Method, target, what, w.Code, w.Body)
			}
			w = f.through([]string{"not sent", "the caller's time is up"}, rt.Method, target, body, "Authorization", "Bearer "+
				credential)
			if w.Code != rt.Family.NoLeader.Status {
				t.Errorf("%s %s with a token %s, and the leader does not answer: %d %s", rt.Method, target, what, w.Code, w.Body)
			}
		}
	}
	if f.FailingHosts() != 0 {
		t.Error("a member has counted what it does not know itself")
	}
}

// TestWithoutLeaderNobodyIsRefused: while there is no leader, a member refuses no credential because its own replica
// does not know it or its scopes, on any route; a request without a credential it does refuse.
func TestWithoutLeaderNobodyIsRefused(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	f := newTestMember(t, s, mirrorFile(s))
	for _, rt := range s.Routes() {
		if rt.Scope == "" || rt.At == handlers.AtLeader {
			continue
		}
		target, body := harmless(rt)
		if rt.At == handlers.HereStale {
			target += "?stale"
		}
		w := f.Call(rt.Method, target, certs.NewSecret(), body)
		if none := rt.Family.NoLeader; w.Code != none.Status {
			t.Errorf("%s %s with an unknown token: %d %s", rt.Method, target, w.Code, w.Body)
		}
		if w := f.Call(rt.Method, target, "", body); !refusedAs(rt, w.Code, false) {
			t.Errorf("%s %s without a token: %d %s", rt.Method, target, w.Code, w.Body)
		}
	}
}

// TestRefusalsAreConfirmed: a leader whom no majority confirms refuses nobody for what it remembers, on any route, and
// counts nothing; as soon as it is confirmed it does.
func TestRefusalsAreConfirmed(t *testing.T) {
	t.Parallel()
	var deposed atomic.Bool
	s := sole.New(t)
	s.AddVoter(func() bool { return !deposed.Load() })
	poor, unknown := s.Token(), certs.NewSecret()
	forwarded := []string{handlers.HeaderForwarded, "1", handlers.HeaderRemote, "192.0.2.1:1"}
	for _, rt := range s.Routes() {
		if rt.At == handlers.Here || rt.Stream || rt.Path == "/v1/peering/establish" {
			continue
		}
		target, body := harmless(rt)
		for what, credential := range map[string]string{"who may": s.Admin, "who may not": poor, "whom nobody knows": unknown,
			"without a credential": ""} {
			headers := forwarded
			if body != "" {
				headers = append(headers[:len(headers):len(headers)], "Content-Type", "application/json")
			}
			deposed.Store(false)
			s.ForgetFailures()
			before := s.Ask(s.Internal(), rt.Method, target, credential, body, headers...)
			counted := s.FailingHosts()
			deposed.Store(true)
			s.ForgetFailures()
			w := s.Ask(s.Internal(), rt.Method, target, credential, body, headers...)
			switch before.Code {
			case 401, 403, 404, 409:
				if w.Code != http.StatusMisdirectedRequest {
					t.Errorf("%s %s by somebody %s: %d %s before, %d %s after", rt.Method, target, what, before.Code, before.Body,
						w.Code, w.Body)
				}
			}
			if s.FailingHosts() != 0 {
				t.Errorf("%s %s by somebody %s is counted, and was not confirmed", rt.Method, target, what)
			}
			if before.Code == 401 && counted == 0 {
				t.Errorf("%s %s by somebody %s: %d is not counted", rt.Method, target, what, before.Code)
			}
		}
	}
	deposed.Store(false)
}
