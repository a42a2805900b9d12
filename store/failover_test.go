package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
)

// writers mint join tokens, each id once, and remember what was answered.
type writers struct {
	c       *testCluster
	mu      sync.Mutex
	log     []attempt
	stop    chan struct{}
	done    sync.WaitGroup
	acked   atomic.Int64
	slowest time.Duration
}

type attempt struct {
	id, request string
	node        uint64
	err         error
}

// run starts n goroutines that write to the given nodes in turn until finish is called.
func (c *testCluster) run(n int, nodes ...uint64) *writers {
	w := &writers{c: c, stop: make(chan struct{})}
	for i := range n {
		w.done.Add(1)
		go func() {
			defer w.done.Done()
			for k := i; ; k++ {
				select {
				case <-w.stop:
					return
				default:
				}
				if s := c.node(nodes[k%len(nodes)]); s != nil {
					w.attempt(s)
				}
			}
		}()
	}
	return w
}

func (w *writers) attempt(s *Store) {
	a := attempt{id: NewID(), request: uuid.NewString(), node: s.NodeID()}
	begin := time.Now()
	_, a.err = s.CreateJoinToken(bg, Actor{Name: "writer", RequestID: a.request},
		JoinToken{ID: a.id, Format: "muster", MaxUses: 1, ExpiresAt: begin.Add(time.Hour)})
	took := time.Since(begin)
	if a.err == nil {
		w.acked.Add(1)
	} else {
		time.Sleep(time.Millisecond) // a refusal costs nothing: leave the others some of the processor
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.slowest = max(w.slowest, took)
	w.log = append(w.log, a)
}

// more waits until n further writes have been answered with success.
func (w *writers) more(what string, n int64) {
	w.c.t.Helper()
	from := w.acked.Load()
	w.c.eventually(what, func() error {
		if got := w.acked.Load() - from; got < n {
			return fmt.Errorf("%d writes of %d", got, n)
		}
		return nil
	})
}

// finish stops the writers and compares what they were told with what the cluster holds.
func (w *writers) finish() {
	t := w.c.t
	t.Helper()
	close(w.stop)
	ended := make(chan struct{})
	go func() { w.done.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(2 * answerLimit):
		t.Fatal("a writer hangs")
	}
	content := w.c.agree()
	if len(content["audit"]) == 0 {
		t.Fatal("no audit rows")
	}
	l := w.c.leader()
	tokens, audits := map[string]int{}, map[string]int{}
	err := l.Peek(bg, func(v *View) error {
		for query, into := range map[string]map[string]int{"SELECT id FROM join_tokens": tokens, "SELECT request_id FROM audit": audits} {
			rows, err := v.query(query)
			if err != nil {
				return err
			}
			for rows.Next() {
				var id string
				if err := rows.Scan(&id); err != nil {
					return err
				}
				into[id]++
			}
			rows.Close()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, a := range w.log {
		have := tokens[a.id]
		if have != audits[a.request] {
			t.Errorf("token %s is there %d times and has %d audit rows", a.id, have, audits[a.request])
		}
		var refusal *Refusal
		switch {
		case a.err == nil:
			count["ok"]++
			if have != 1 {
				t.Errorf("token %s was answered by node %d and is there %d times", a.id, a.node, have)
			}
		case errors.Is(a.err, ErrUnknownOutcome):
			count["unknown"]++
		case errors.Is(a.err, ErrNotLeader), errors.Is(a.err, ErrNoLeader), errors.As(a.err, &refusal):
			count[a.err.Error()]++
			if have != 0 {
				t.Errorf("token %s was refused by node %d with %v and is there", a.id, a.node, a.err)
			}
		default:
			t.Errorf("node %d answered %v", a.node, a.err)
		}
	}
	if w.slowest > answerLimit {
		t.Errorf("a write took %v", w.slowest)
	}
	t.Logf("writes: %v, slowest %v", count, w.slowest.Round(time.Millisecond))
	checkRevisions(t, l)
}

// checkRevisions verifies that no revision and no audit number is missing or used twice.
func checkRevisions(t testing.TB, l *Store) {
	t.Helper()
	revisions := integers(t, l, "SELECT DISTINCT revision FROM audit ORDER BY revision")
	for i, r := range revisions {
		if r != int64(i)+1 {
			t.Fatalf("revision %d follows %d", r, i)
		}
	}
	if now := integers(t, l, "SELECT revision FROM cluster"); len(now) != 1 || now[0] != int64(len(revisions)) {
		t.Errorf("the cluster is at revision %v, the audit at %d", now, len(revisions))
	}
	for i, n := range integers(t, l, "SELECT seq FROM audit ORDER BY seq") {
		if n != int64(i)+1 {
			t.Fatalf("audit row %d follows %d", n, i)
		}
	}
}

func audits(t testing.TB, s *Store, request string) int {
	t.Helper()
	return len(integers(t, s, "SELECT seq FROM audit WHERE request_id = ?", request))
}

func noLeader(err error) bool {
	return errors.Is(err, ErrNotLeader) || errors.Is(err, ErrNoLeader) || errors.Is(err, ErrUnknownOutcome)
}

// (a) A leader that is cut off answers what it cannot do, the others go on, and nothing is lost, doubled or
// made up when it comes back.
func TestLeaderCutOff(t *testing.T) {
	for _, hole := range []bool{false, true} {
		name := "connections break"
		if hole {
			name = "connections swallow what is sent"
		}
		t.Run(name, func(t *testing.T) {
			c := newTestCluster(t, 3)
			c.hole = hole
			w := c.run(6, 1, 2, 3)
			w.more("writes before the cut", 50)
			old := c.leader()
			var others []uint64
			for id := range c.dirs {
				if id != old.NodeID() {
					others = append(others, id)
				}
			}
			c.isolate(old.NodeID(), true)
			// Until it knows, the old leader may fail writes in three ways; it must never take one.
			for i := range 5 {
				request := uuid.NewString()
				err := promised(t, fmt.Sprintf("write %d to the leader that is cut off", i), func() error {
					_, err := old.CreateJoinToken(bg, Actor{RequestID: request}, JoinToken{ID: NewID(), Format: "muster", MaxUses: 1, ExpiresAt: time.Now().Add(time.Hour)})
					return err
				})
				if !noLeader(err) {
					t.Errorf("the leader that is cut off answered %v", err)
				}
			}
			next := c.leader()
			if next == old {
				t.Fatal("the node that is cut off leads")
			}
			w.more("writes on the other side", 50)
			if err := promised(t, "linearisable read on the old leader", func() error { return old.Read(bg, Linearisable, func(*View) error { return nil }) }); !noLeader(err) {
				t.Errorf("linearisable read on the old leader: %v", err)
			}
			if err := old.Read(bg, Stale, func(*View) error { return nil }); err != nil {
				t.Errorf("stale read on the old leader: %v", err)
			}
			for _, id := range others {
				if got := c.node(id).LeaderID(); got != next.NodeID() {
					c.eventually("both follow the new leader", func() error {
						if got := c.node(id).LeaderID(); got != c.leader().NodeID() {
							return fmt.Errorf("node %d follows %d", id, got)
						}
						return nil
					})
				}
			}
			c.isolate(old.NodeID(), false)
			w.more("writes after healing", 50)
			w.finish()
		})
	}
}

// (b) A leader that leaves hands over before it goes: at the moment that Close returns another member leads.
func TestCloseHandsOver(t *testing.T) {
	c := newTestCluster(t, 3)
	w := c.run(4, 1, 2, 3)
	w.more("writes before", 20)
	old := c.leader().NodeID()
	c.stop(old)
	follows := map[uint64]uint64{}
	handed := false
	for id := range c.dirs {
		if s := c.node(id); s != nil {
			l, err := s.FollowsNow(bg)
			if err != nil {
				t.Error(err)
			}
			follows[id] = l
			handed = handed || l == id
		}
	}
	if !handed {
		t.Errorf("no other member led when the old leader had gone: they follow %v", follows)
	}
	w.more("writes after", 20)
	if got := c.leader().NodeID(); got == old {
		t.Errorf("node %d leads and is stopped", got)
	}
	c.start(old)
	w.finish()
}

// (c) Without a majority every call is answered, and the local replica still serves.
func TestMajorityLost(t *testing.T) {
	for _, survivor := range []string{"leader", "follower"} {
		t.Run("the "+survivor+" is left", func(t *testing.T) {
			c := newTestCluster(t, 3)
			l := c.leader()
			tok, err := mint(bg, l)
			if err != nil {
				t.Fatal(err)
			}
			left := l.NodeID()
			if survivor == "follower" {
				left = left%3 + 1
			}
			s := c.node(left)
			stale := func() error {
				return s.Read(bg, Stale, func(v *View) error {
					got, err := v.joinToken(tok.ID)
					if err == nil && got == nil {
						err = errors.New("the token is not there")
					}
					return err
				})
			}
			c.eventually("mirror of the survivor", stale)
			for id := range c.dirs {
				if id != left {
					c.stop(id)
				}
			}
			request := uuid.NewString()
			for i := range 3 {
				err := promised(t, "write", func() error {
					_, err := s.CreateJoinToken(bg, Actor{Name: "test", RequestID: request}, JoinToken{ID: NewID(), Format: "muster", MaxUses: 1, ExpiresAt: time.Now().Add(time.Hour)})
					return err
				})
				if !noLeader(err) {
					t.Errorf("write %d: %v", i, err)
				}
			}
			if err := promised(t, "linearisable read", func() error { return s.Read(bg, Linearisable, func(*View) error { return nil }) }); !noLeader(err) {
				t.Errorf("linearisable read: %v", err)
			}
			if err := promised(t, "list of members", func() error { _, err := s.Members(bg, Linearisable); return err }); !noLeader(err) {
				t.Errorf("linearisable list: %v", err)
			}
			if err := promised(t, "stale read", stale); err != nil {
				t.Errorf("stale read: %v", err)
			}
			if list, err := s.Members(bg, Stale); err != nil || len(list) != 3 {
				t.Errorf("stale list: %d members, %v", len(list), err)
			}
			ctx, cancel := context.WithTimeout(bg, 300*time.Millisecond)
			defer cancel()
			c.eventually("the survivor knows no leader", func() error {
				if id := s.LeaderID(); id != 0 {
					return fmt.Errorf("node %d", id)
				}
				return nil
			})
			if id, err := s.AwaitLeader(ctx); !errors.Is(err, ErrNoLeader) {
				t.Errorf("AwaitLeader: %d, %v", id, err)
			}
			for id := range c.dirs {
				if id != left {
					c.start(id)
				}
			}
			c.eventually("a write after the others are back", func() error { _, err := mint(bg, c.leader()); return err })
			if _, err := c.leader().Members(bg, Linearisable); err != nil {
				t.Error(err)
			}
			c.agree()
			checkRevisions(t, c.leader())
		})
	}
}

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
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// queued waits until n requests wait for the writer.
func (c *testCluster) queued(s *Store, n int) {
	c.t.Helper()
	c.eventually(fmt.Sprint(n, " requests in the queue"), func() error {
		if l := s.current(); l == nil || len(l.queue) < n {
			return errors.New("fewer")
		}
		return nil
	})
}

// (d) Panics, refusals and errors of SQL end their own request only; the rest of the batch is committed.
func TestRequestsFailAlone(t *testing.T) {
	c := newTestCluster(t, 1)
	l := c.leader()
	epoch := l.current().epoch
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
		{"panic", func(tx *Tx, name string) error { _ = change(tx, name); panic(name) }, func(err error) bool { return err != nil && !noLeader(err) }, false},
		{"panic before anything", func(tx *Tx, name string) error { panic(errors.New(name)) }, func(err error) bool { return err != nil && !noLeader(err) }, false},
		{"panic within a query", func(tx *Tx, name string) error {
			_ = change(tx, name)
			_, err := collect(&tx.View, scanAPIToken, selectAPITokens)
			var nobody *Member
			nobody.Name = "nil dereference"
			return err
		}, func(err error) bool { return err != nil && !noLeader(err) }, false},
		{"refusal", func(tx *Tx, name string) error { _ = change(tx, name); return refuse(Conflict, "no") }, func(err error) bool { return errors.As(err, &refusal) }, false},
		{"constraint", func(tx *Tx, name string) error {
			if err := change(tx, name); err != nil {
				return err
			}
			return tx.exec(insertSetting, name, "again", tx.Rev)
		}, isUnique, false},
		{"no audit row", func(tx *Tx, name string) error { return tx.exec(insertSetting, name, "x", tx.Rev) }, func(err error) bool { return err != nil && !noLeader(err) }, false},
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
	if now := l.current(); now == nil || now.epoch != epoch {
		t.Error("a request that failed has cost the leadership")
	}
	c.agree()
}

// A foreign key that is violated shows at COMMIT only. It must not spoil the batch.
func TestForeignKeyFailsAlone(t *testing.T) {
	c := newTestCluster(t, 1)
	l := c.leader()
	epoch := l.current().epoch
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
	if now := l.current(); now == nil || now.epoch != epoch {
		t.Error("one request has cost the leadership")
	}
	c.eventually("the store goes on", func() error { _, err := mint(bg, c.leader()); return err })
	if audits(t, c.leader(), "bad") != 0 {
		t.Error("the request that failed has left an audit row")
	}
}

// (e) A caller that no longer waits gets nothing done.
func TestExpiredContext(t *testing.T) {
	c := newTestCluster(t, 1)
	l := c.leader()
	if _, err := mint(bg, l); err != nil {
		t.Fatal(err)
	}
	rev := l.Revision()
	ctx, cancel := context.WithCancel(bg)
	cancel()
	var ran atomic.Int64
	for i := range 3000 {
		err := l.Write(ctx, Actor{Name: "late"}, func(tx *Tx) error {
			ran.Add(1)
			if err := tx.exec(insertSetting, fmt.Sprint("late ", i), "x", tx.Rev); err != nil {
				return err
			}
			return tx.audit("test", "late", "")
		})
		if !errors.Is(err, ErrNoLeader) {
			t.Fatalf("write %d: %v", i, err)
		}
	}
	// The queue may still hold requests that nobody waits for: one that somebody waits for comes after them.
	if _, err := mint(bg, l); err != nil {
		t.Fatal(err)
	}
	if n := ran.Load(); n != 0 || l.Revision() != rev+1 {
		t.Errorf("%d requests ran, revision %d after %d", n, l.Revision(), rev)
	}
	// One that gives up while it waits in the queue.
	release := hold(t, l)
	ctx, cancel = context.WithCancel(bg)
	gaveUp := make(chan error, 1)
	go func() {
		gaveUp <- l.Write(ctx, Actor{Name: "impatient"}, func(*Tx) error { ran.Add(1); return nil })
	}()
	c.queued(l, 1)
	cancel()
	if err := <-gaveUp; !errors.Is(err, ErrNoLeader) {
		t.Errorf("the impatient one: %v", err)
	}
	release()
	if _, err := mint(bg, l); err != nil {
		t.Fatal(err)
	}
	if n := ran.Load(); n != 0 {
		t.Errorf("%d requests ran although their callers were told that they had not", n)
	}
}

// (f) The same key and request give the same answer, also together, also on the next leader; another request is refused.
func TestIdempotencyKey(t *testing.T) {
	c := newTestCluster(t, 3)
	actor := Actor{Name: "test", Accessor: "admin", IdempotencyKey: "k/1", RequestHash: "h1"}
	create := func(s *Store, actor Actor) (string, error) {
		actor.RequestID = uuid.NewString()
		tok, err := s.CreateAPIToken(bg, actor, APIToken{ID: NewID(), Name: "ci", Secret: "s-" + NewID(), SecretHash: NewID(), Scopes: []string{ScopeEnroll}})
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
		_, err := write(bg, c.leader(), refused, func(tx *Tx) (int, error) {
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

// (g) Transfers move the leadership, and no request that is under way is lost, doubled or left without an answer.
func TestTransfers(t *testing.T) {
	c := newTestCluster(t, 3)
	w := c.run(6, 1, 2, 3)
	w.more("writes before", 20)
	epoch := integers(t, c.leader(), "SELECT epoch FROM cluster")[0]
	moved := 0
	for i := range 20 {
		from := c.leader()
		to := from.NodeID()%3 + 1
		ctx, cancel := context.WithTimeout(bg, answerLimit)
		err := from.Transfer(ctx, to)
		cancel()
		if err != nil {
			t.Logf("transfer %d from %d to %d: %v", i, from.NodeID(), to, err)
			continue
		}
		moved++
		w.more(fmt.Sprintf("writes after transfer %d", i), 5)
	}
	if moved < 18 {
		t.Errorf("only %d of 20 transfers went through", moved)
	}
	w.finish()
	if now := integers(t, c.leader(), "SELECT epoch FROM cluster")[0]; now < epoch+int64(moved) {
		t.Errorf("epoch %d after %d transfers from epoch %d", now, moved, epoch)
	}
	for _, s := range []*Store{c.node(1), c.node(2), c.node(3)} {
		if s.Leading() {
			continue
		}
		if err := s.Transfer(bg, 1); !errors.Is(err, ErrNotLeader) {
			t.Errorf("a follower transfers: %v", err)
		}
	}
}

func (c *testCluster) joinAny(recipient string) (Joined, error) {
	l := c.leader()
	tok, err := mint(bg, l)
	if err != nil {
		return Joined{}, err
	}
	return l.Join(bg, Actor{Name: "test"}, Joiner{TokenID: tok.ID, Member: Member{Mode: ModeFull, Recipient: recipient, RaftAddress: "10.0.0.9:7000"}})
}

// (h) All state survives a restart of all nodes, the epoch grows, and ids go on where they were.
func TestRestartOfAll(t *testing.T) {
	c := newTestCluster(t, 3)
	ids := map[uint64]bool{1: true, 2: true, 3: true}
	next := uint64(4)
	join := func(what string) {
		t.Helper()
		var j Joined
		c.eventually(what, func() (err error) { j, err = c.joinAny(uuid.NewString()); return err })
		if j.Member.NodeID != next || ids[j.Member.NodeID] {
			t.Errorf("%s: node %d, want %d", what, j.Member.NodeID, next)
		}
		ids[j.Member.NodeID] = true
		next++
	}
	join("join before the restart")
	epoch := integers(t, c.leader(), "SELECT epoch FROM cluster")[0]
	for round := range 2 {
		before := c.agree()
		for id := range c.dirs {
			c.stop(id)
		}
		for id := range c.dirs {
			c.start(id)
		}
		l := c.leader()
		now := integers(t, l, "SELECT epoch FROM cluster")[0]
		if now <= epoch {
			t.Errorf("round %d: epoch %d after %d", round, now, epoch)
		}
		epoch = now
		after := c.agree()
		for table, rows := range before {
			if table == "cluster" || table == "audit" { // the new leadership writes there
				continue
			}
			if err := difference(map[string][]string{table: rows}, map[string][]string{table: after[table]}); err != nil {
				t.Errorf("round %d: %v", round, err)
			}
		}
		have := map[string]bool{}
		for _, r := range after["audit"] {
			have[r] = true
		}
		for _, r := range before["audit"] {
			if !have[r] {
				t.Errorf("round %d: lost audit row %s", round, r)
			}
		}
		join(fmt.Sprintf("join after restart %d", round))
	}
	// A refused join uses no id up.
	l := c.leader()
	tok, err := mint(bg, l)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.RevokeJoinToken(bg, Actor{}, tok.ID); err != nil {
		t.Fatal(err)
	}
	var refusal *Refusal
	if _, err := l.Join(bg, Actor{}, Joiner{TokenID: tok.ID, Member: Member{Mode: ModeFull}}); !errors.As(err, &refusal) || refusal.Code != Unauthorized {
		t.Errorf("join with a revoked token: %v", err)
	}
	join("join after a refusal")
	c.stop(c.leader().NodeID())
	join("join on another leader")
	checkRevisions(t, c.leader())
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
		_, err := l.Join(bg, Actor{Name: "test"}, Joiner{TokenID: tok.ID, Member: Member{Mode: ModeFull, Recipient: uuid.NewString(), RaftAddress: "10.0.0.9:7000"}})
		return err
	}
	release := hold(t, l)
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- join() }()
	c.queued(l, 1)
	go func() { second <- join() }()
	c.queued(l, 2)
	c.isolate(l.NodeID(), true)
	released := make(chan struct{})
	go func() { release(); close(released) }()
	errFirst := promised(t, "the join that uses the token", func() error { return <-first })
	errSecond := promised(t, "the join after it", func() error { return <-second })
	<-released
	c.isolate(l.NodeID(), false)
	var refusal *Refusal
	c.agree()
	if uses := integers(t, c.leader(), "SELECT uses FROM join_tokens WHERE id = ?", tok.ID)[0]; uses == 0 && errors.As(errSecond, &refusal) {
		t.Errorf("the second was told %q, the first %v, and the token is not used", errSecond, errFirst)
	}
	if errFirst == nil {
		t.Error("the leader that is cut off has taken a join")
	}
}
