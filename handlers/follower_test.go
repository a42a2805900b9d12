package handlers_test

import (
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

func (lostError) Error() string { return "the connection broke" }

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
