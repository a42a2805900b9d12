package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"muster/store/engine"
)

// hold makes the writer busy with a request until release is called, so that what comes meanwhile shares a batch.
func hold(t *testing.T, s *Store) (release func()) {
	t.Helper()
	entered, free, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- s.Write(bg, Actor{Name: "hold"}, func(*Tx) error { close(entered); <-free; return nil })
	}()
	<-entered
	return func() {
		close(free)
		// it changes nothing, so a leader that is cut off cannot vouch for it
		if err := <-done; err != nil && !errors.Is(err, ErrNotLeader) {
			t.Error(err)
		}
	}
}

// queued waits until n requests wait for the writer.
func (c *testCluster) queued(s *Store, n int) {
	c.T.Helper()
	c.eventually(fmt.Sprint(n, " requests in the queue"), func() error {
		if s.Waiting() < n {
			return errors.New("fewer")
		}
		return nil
	})
}

// (d) Panics, refusals and errors of SQL end their own request only; the rest of the batch is committed.
func TestRequestsFailAlone(t *testing.T) {
	c := newTestCluster(t, 1)
	l := c.leader()
	epoch := l.Epoch()
	change := func(tx *Tx, name string) error {
		if err := tx.exec(insertSetting, name, "x", tx.Rev); err != nil {
			return err
		}
		return tx.audit("test", name, "")
	}
	var refusal *Refusal
	kinds := []struct {
		name string
		fn   func(tx *Tx, name string) error
		ok   func(error) bool
		kept bool
	}{
		{"fine", change, func(err error) bool { return err == nil }, true},
		{"panic", func(tx *Tx, name string) error { _ = change(tx, name); panic(name) }, func(err error) bool {
			return err != nil && !noLeader(err)
		}, false},
		{"panic before anything", func(tx *Tx, name string) error { panic(errors.New(name)) }, func(err error) bool {
			return err != nil && !noLeader(err)
		}, false},
		{"panic within a query", func(tx *Tx, name string) error {
			_ = change(tx, name)
			_, err := collect(&tx.View, scanAPIToken, selectAPITokens)
			var nobody *Member
			nobody.Name = "nil dereference"
			return err
		}, func(err error) bool { return err != nil && !noLeader(err) }, false},
		{"refusal", func(tx *Tx, name string) error { _ = change(tx, name); return refuse(Conflict, "no") },
			func(err error) bool { return errors.As(err, &refusal) }, false},
		{"constraint", func(tx *Tx, name string) error {
			if err := change(tx, name); err != nil {
				return err
			}
			return tx.exec(insertSetting, name, "again", tx.Rev)
		}, engine.IsUnique, false},
		{"no audit row", func(tx *Tx, name string) error { return tx.exec(insertSetting, name, "x", tx.Rev) },
			func(err error) bool { return err != nil && !noLeader(err) }, false},
		{"argument of a wrong type", func(tx *Tx, name string) error {
			_ = change(tx, name)
			return tx.exec(insertSetting, name, 1.5, tx.Rev)
		}, func(err error) bool { return err != nil && !noLeader(err) }, false},
		{"nothing to do", func(*Tx, string) error { return nil }, func(err error) bool { return err == nil }, false},
		{"fine, too", change, func(err error) bool { return err == nil }, true},
	}
	rev := l.Revision()
	release := hold(t, l)
	errs := make([]error, len(kinds))
	var wg sync.WaitGroup
	for i, k := range kinds {
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[i] = l.Write(bg, Actor{Name: "test", RequestID: "r/" + k.name}, func(tx *Tx) error { return k.fn(tx, k.name) })
		}()
	}
	c.queued(l, len(kinds))
	release()
	wg.Wait()
	for i, k := range kinds {
		if !k.ok(errs[i]) {
			t.Errorf("%s: %v", k.name, errs[i])
		}
		rows := len(integers(t, l, "SELECT 1 FROM settings WHERE name = ?", k.name))
		if want := map[bool]int{true: 1}[k.kept]; rows != want || audits(t, l, "r/"+k.name) != want {
			t.Errorf("%s: %d rows, %d audit rows", k.name, rows, audits(t, l, "r/"+k.name))
		}
	}
	if got := l.Revision(); got != rev+1 {
		t.Errorf("revision %d after one batch on %d", got, rev)
	}
	if l.Epoch() != epoch {
		t.Error("a request that failed has cost the leadership")
	}
	c.agree()
}

// A foreign key that is violated shows at COMMIT only. It must not spoil the batch.
func TestForeignKeyFailsAlone(t *testing.T) {
	c := newTestCluster(t, 1)
	l := c.leader()
	epoch := l.Epoch()
	release := hold(t, l)
	var bad, good error
	var wg sync.WaitGroup
	wg.Add(2)
	go func() {
		defer wg.Done()
		bad = l.Write(bg, Actor{RequestID: "bad"}, func(tx *Tx) error {
			if err := tx.exec(insertWrap, uint64(99), uint64(1), []byte("of a generation that is not"), tx.Rev); err != nil {
				return err
			}
			return tx.audit("test", "bad", "")
		})
	}()
	go func() { defer wg.Done(); _, good = mint(bg, l) }()
	c.queued(l, 2)
	release()
	wg.Wait()
	if bad == nil {
		t.Error("a wrap of no generation was accepted")
	}
	if good != nil {
		t.Errorf("the other request of the batch: %v", good)
	}
	if l.Epoch() != epoch {
		t.Error("one request has cost the leadership")
	}
	c.eventually("the store goes on", func() error { _, err := mint(bg, c.leader()); return err })
	if audits(t, c.leader(), "bad") != 0 {
		t.Error("the request that failed has left an audit row")
	}
}

// (f) The same key and request give the same answer, also together, also on the next leader; another request is
// refused.
func TestIdempotencyKey(t *testing.T) {
	c := newTestCluster(t, 3)
	actor := Actor{Name: "test", Accessor: "admin", IdempotencyKey: "k/1", RequestHash: "h1"}
	create := func(s *Store, actor Actor) (string, error) {
		actor.RequestID = uuid.NewString()
		tok, err := s.APITokens.Create(bg, actor, APIToken{
			ID:         NewID(),
			Name:       "ci",
			Secret:     "s-" + NewID(),
			SecretHash: NewID(),
			Scopes:     []string{ScopeEnroll},
		})
		if err != nil {
			return "", err
		}
		b, err := json.Marshal(tok)
		return string(b), err
	}
	l := c.leader()
	before := len(integers(t, l, "SELECT 1 FROM api_tokens"))
	release := hold(t, l)
	answers := make([]string, 8)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var err error
			if answers[i], err = create(l, actor); err != nil {
				t.Error(err)
			}
		}()
	}
	c.queued(l, len(answers))
	release()
	wg.Wait()
	repeat := func(when string, s *Store) {
		t.Helper()
		got, err := create(s, actor)
		if err != nil || got != answers[0] {
			t.Errorf("%s: %v, %s, first %s", when, err, got, answers[0])
		}
		other := actor
		other.RequestHash = "h2"
		var refusal *Refusal
		if got, err := create(s, other); !errors.As(err, &refusal) || refusal.Code != Conflict {
			t.Errorf("%s: another request with the key: %v, %s", when, err, got)
		}
		if n := len(integers(t, s, "SELECT 1 FROM api_tokens")) - before; n != 1 {
			t.Errorf("%s: %d tokens", when, n)
		}
		if n := len(integers(t, s, "SELECT 1 FROM audit WHERE action = 'api_token.create'")); n != 1 {
			t.Errorf("%s: %d audit rows", when, n)
		}
	}
	for i, a := range answers {
		if a != answers[0] {
			t.Errorf("answer %d: %s, answer 0: %s", i, a, answers[0])
		}
	}
	repeat("on the same leader", l)
	rev := l.Revision()
	repeat("once more", l)
	if got := l.Revision(); got != rev {
		t.Errorf("a repetition has raised the revision from %d to %d", rev, got)
	}
	c.stop(l.NodeID())
	repeat("on the next leader", c.leader())
	// The key belongs to the caller: another one's is another key.
	foreign := actor
	foreign.Accessor = "somebody else"
	if got, err := create(c.leader(), foreign); err != nil || got == answers[0] {
		t.Errorf("another caller with the key: %v, %s", err, got)
	}
	// A refusal is not remembered.
	refused := actor
	refused.IdempotencyKey = "k/2"
	for i, want := range []error{errors.New("x"), nil} {
		_, err := makeOnce(bg, c.leader(), refused, func(tx *Tx) (int, error) {
			if want != nil {
				return 0, want
			}
			return 7, tx.audit("test", "k/2", "")
		})
		if err != want {
			t.Errorf("attempt %d: %v", i, err)
		}
	}
}

// A refusal may rest on what another request of the same batch has done. It must not be given before that is
// committed: a caller would be told that a token is used, and the token is not.
func TestRefusalWaitsForCommit(t *testing.T) {
	c := newTestCluster(t, 3)
	l := c.leader()
	tok, err := mint(bg, l)
	if err != nil {
		t.Fatal(err)
	}
	join := func() error {
		_, err := l.Members.Join(bg, Actor{Name: "test"},
			Joiner{TokenID: tok.ID, Member: Member{Mode: ModeFull, Recipient: uuid.NewString(), RaftAddress: "10.0.0.9:7000"}})
		return err
	}
	release := hold(t, l)
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- join() }()
	c.queued(l, 1)
	go func() { second <- join() }()
	c.queued(l, 2)
	c.Net.Isolate(l.NodeID(), true)
	released := make(chan struct{})
	go func() { release(); close(released) }()
	errFirst := promised(t, "the join that uses the token", func() error { return <-first })
	errSecond := promised(t, "the join after it", func() error { return <-second })
	<-released
	c.Net.Isolate(l.NodeID(), false)
	var refusal *Refusal
	c.agree()
	if uses := integers(t, c.leader(), "SELECT uses FROM join_tokens WHERE id = ?", tok.ID)[0]; uses == 0 &&
		errors.As(errSecond, &refusal) {
		t.Errorf("the second was told %q, the first %v, and the token is not used", errSecond, errFirst)
	}
	if errFirst == nil {
		t.Error("the leader that is cut off has taken a join")
	}
}

// A repetition of a deletion with its Idempotency-Key is answered like the first time; without one it is not found.
func TestDeletionsAreRemembered(t *testing.T) {
	c := newTestCluster(t, 1)
	l := c.leader()
	token, err := mint(bg, l)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Leases.Put(bg, Actor{Name: "test"}, Lease{ID: "x", NodeID: 1, Kind: "k"}, time.Hour); err != nil {
		t.Fatal(err)
	}
	if _, err := l.APITokens.Create(bg, Actor{Name: "test"},
		APIToken{ID: "t", Name: "t", SecretHash: "h", Scopes: []string{}}); err != nil {
		t.Fatal(err)
	}
	for what, f := range map[string]func(Actor) error{
		"lease":      func(a Actor) error { return l.Leases.Delete(bg, a, "x") },
		"API token":  func(a Actor) error { return l.APITokens.Delete(bg, a, "t") },
		"join token": func(a Actor) error { return l.JoinTokens.Revoke(bg, a, token.ID) },
		"peering":    func(a Actor) error { return l.Peerings.Delete(bg, a, "none") },
	} {
		a := Actor{Name: "test", IdempotencyKey: AutoKey + what, RequestHash: what}
		for i := range 3 {
			if err := f(a); err != nil {
				t.Errorf("%s, time %d: %v", what, i, err)
			}
		}
	}
	var refusal *Refusal
	if err := l.Leases.Delete(bg, Actor{Name: "test"}, "x"); !errors.As(err, &refusal) || refusal.Code != NotFound {
		t.Errorf("without a key: %v", err)
	}
}
