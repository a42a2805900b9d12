package handlers_test

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"muster/certs"
	"muster/handlers"
	"muster/handlers/internal/sole"
	"muster/store"
)

// relay is the way from a follower to the leader, as a test wants it.
type relay struct {
	mu      sync.Mutex
	leader  http.Handler
	epoch   func() uint64      // of its leadership
	steps   []string           // of the next request: what happens to each attempt
	giveUp  context.CancelFunc // ends the caller's patience
	forward int
}

type lostError struct{ notSent bool }

func (lostError) Error() string   { return "the connection broke" }
func (e lostError) NotSent() bool { return e.notSent }

func (x *relay) Forward(r *http.Request, _ uint64) (*http.Response, error) {
	x.mu.Lock()
	step := "answer"
	if len(x.steps) > 0 {
		step, x.steps = x.steps[0], x.steps[1:]
	}
	x.forward++
	x.mu.Unlock()
	r.Host = "node-1"
	told := true
	deliver := func() *http.Response {
		w := httptest.NewRecorder()
		if a := store.AttemptOf(r.Context()); a != nil && x.epoch != nil {
			in := *a
			in.Epoch = x.epoch()
			in.Tell = func(made []byte) {
				if told {
					a.Made = made
				}
			}
			r = r.WithContext(store.WithAttempt(r.Context(), &in))
		}
		x.leader.ServeHTTP(w, r)
		return w.Result()
	}
	says := func(name, value string) *http.Response {
		w := httptest.NewRecorder()
		w.Header().Set(name, value)
		w.WriteHeader(http.StatusServiceUnavailable)
		return w.Result()
	}
	switch step {
	case "not sent":
		return nil, lostError{true}
	case "lost":
		return nil, lostError{false}
	case "carried out, then lost":
		deliver()
		return nil, lostError{false}
	case "carried out, then lost with what was told":
		told = false
		deliver()
		return nil, lostError{false}
	case "not the leader":
		return says(handlers.HeaderNotLeader, "1"), nil
	case "not the leader, after a change":
		return says(handlers.HeaderNotLeader, handlers.LeaderChanged), nil
	case "unknown":
		return says(handlers.HeaderOutcome, handlers.OutcomeUnknown), nil
	case "the caller's time is up":
		x.giveUp()
		<-r.Context().Done() // what derives from the caller's context learns of it a moment later
		return nil, lostError{true}
	}
	return deliver(), nil
}

// testFollower is a member that does not lead: it has the leader's mirror of now, and passes on what it must.
type testFollower struct {
	*sole.Member
	relay  *relay
	leader *sole.Member
}

func newTestFollower(t *testing.T, leader *sole.Member, mirror string) *testFollower {
	t.Helper()
	f := newTestMember(t, leader, mirror)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { // it hears who leads again and again, as a member outside Raft does
		defer close(done)
		for ctx.Err() == nil {
			if f.Store.LeaderID() == 0 {
				f.Store.HintLeader(1, time.Hour)
			}
			time.Sleep(time.Millisecond)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return f
}

// newTestMember is newTestFollower without a leader that it hears of.
func newTestMember(t *testing.T, leader *sole.Member, mirror string) *testFollower {
	t.Helper()
	identity, err := certs.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	data, err := os.ReadFile(mirror)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "muster.db"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	st, err := store.Open(store.Config{
		Dir:      dir,
		NodeID:   2,
		Identity: identity,
		Logger:   log,
		Dial:     func(context.Context, uint64) (net.Conn, error) { return nil, errors.New("not in this test") },
	})
	if err != nil {
		t.Fatal(err)
	}
	f := &testFollower{relay: &relay{leader: leader.Internal(), epoch: leader.Store.Epoch, giveUp: func() {}},
		leader: leader}
	cfg := sole.NewConfig(st, leader.ClusterID, "two")
	cfg.Peers = f.relay
	f.Member = &sole.Member{Server: sole.Serve(cfg), Store: st, T: t, Admin: leader.Admin}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = st.Close(ctx)
	})
	return f
}

// patience is a context that ends when its caller's time is up, and not because the caller has disconnected.
type patience struct {
	context.Context
	over chan struct{}
}

func (p patience) Done() <-chan struct{} { return p.over }

func (p patience) Err() error {
	select {
	case <-p.over:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// through asks the follower while its way to the leader is as the steps say.
func (f *testFollower) through(steps []string, method, target, body string,
	headers ...string) *httptest.ResponseRecorder {
	f.T.Helper()
	sole.Until(f.T, "it knows who leads", func() bool { return f.Store.LeaderID() != 0 })
	sole.Until(f.T, "the leader is sure", func() bool { return f.leader.Store.Confirm(f.T.Context()) == nil })
	ctx := patience{f.T.Context(), make(chan struct{})}
	giveUp := sync.OnceFunc(func() { close(ctx.over) })
	defer time.AfterFunc(sole.Generous, giveUp).Stop()
	f.relay.mu.Lock()
	f.relay.steps, f.relay.giveUp = steps, giveUp
	f.relay.mu.Unlock()
	var in io.Reader = http.NoBody
	if body != "" {
		in = strings.NewReader(body)
		headers = append(headers, "Content-Type", "application/json")
	}
	r := httptest.NewRequestWithContext(ctx, method, target, in)
	r.Header.Set("Authorization", "Bearer "+f.Admin)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	f.API().ServeHTTP(w, r)
	return w
}

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
