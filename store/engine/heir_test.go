package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"muster/store/engine/enginetest"
)

// handOver transfers leadership to a voter until that has begun a leadership, and returns it with its state.
func (c *testCluster) handOver(to uint64) (l *leadership) {
	c.T.Helper()
	c.eventually(fmt.Sprint("node ", to, " leads"), func() error {
		ctx, cancel := context.WithTimeout(bg, 2*time.Second)
		defer cancel()
		if from := c.leader(); from.NodeID() != to {
			if err := from.Transfer(ctx, to); err != nil {
				return err
			}
		}
		c.node(to).AwaitOwn(ctx)
		if l = c.node(to).current(); l == nil {
			return errors.New("not yet")
		}
		return nil
	})
	return l
}

// Who is handed leadership to has made its working copy before, while the old leader wrote on, and the copy is what
// dqlite has.
func TestHandOverIsPrepared(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, 3)
	w := c.run(6, 1, 2, 3)
	w.more("writes before", 20)
	c.eventually("a prepared leader", func() error {
		l := c.handOver(c.leader().NodeID()%3 + 1)
		w.more("writes after", 5)
		if !l.prepared {
			return errors.New("it made its copy after its election")
		}
		return nil
	})
	w.finish()
	c.agree()
}

// A copy that is not what the cluster ends with is not used: the last texts were lost, or another leader came in
// between.
func TestHeirIsNotTrusted(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(ctx context.Context, from uint64, heir *Engine, p Preparation) (uint64,
		error){
		"the last texts are lost": func(ctx context.Context, from uint64, heir *Engine, p Preparation) (uint64, error) {
			if p.Last {
				return 0, errors.New("lost")
			}
			return heir.PrepareToLead(ctx, from, p)
		},
		"a text is missing": func(ctx context.Context, from uint64, heir *Engine, p Preparation) (uint64, error) {
			if len(p.Texts) > 0 {
				p.Texts = p.Texts[1:]
			}
			return heir.PrepareToLead(ctx, from, p)
		},
		"a batch is another one": func(ctx context.Context, from uint64, heir *Engine, p Preparation) (uint64, error) {
			revision, err := heir.PrepareToLead(ctx, from, p)
			if err == nil && p.Last {
				heir.heir.mu.Lock()
				defer heir.heir.mu.Unlock()
				_, err = heir.heir.work.writer.exec("UPDATE cluster SET batch_id = 'of another leader'")
			}
			return revision, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newTestCluster(t, 3)
			w := c.run(3, 1, 2, 3)
			w.more("writes before", 5)
			// It writes between the copy and the last texts, which are never none therefore.
			c.prepare = func(ctx context.Context, from uint64, heir *Engine, p Preparation) (uint64, error) {
				revision, err := spoil(ctx, from, heir, p)
				if leader := c.node(from); err == nil && !p.Last && leader != nil {
					_, _ = write(ctx, leader)
				}
				return revision, err
			}
			if l := c.handOver(c.leader().NodeID()%3 + 1); l.prepared {
				t.Error("it leads with the copy")
			}
			w.more("writes after", 10)
			w.finish()
			c.agree()
		})
	}
}

// Nobody but the leader that a member follows has it prepare, and nobody has the leader itself. A copy that is not used
// goes with the member.
func TestOnlyTheLeaderPrepares(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, 3)
	l := c.leader()
	heir := c.node(l.NodeID()%3 + 1)
	c.eventually("it follows", func() error {
		if heir.LeaderID() != l.NodeID() {
			return errors.New("not yet")
		}
		return nil
	})
	var refusal *Refusal
	for from, to := range map[uint64]*Engine{heir.NodeID()%3 + 1: heir, heir.NodeID(): heir, l.NodeID(): l} {
		if _, err := to.PrepareToLead(bg, from, Preparation{}); from != l.NodeID() && !errors.As(err, &refusal) {
			t.Errorf("node %d has node %d prepare: %v", from, to.NodeID(), err)
		}
	}
	if _, err := l.PrepareToLead(bg, l.NodeID(), Preparation{}); !errors.As(err, &refusal) {
		t.Errorf("the leader prepares: %v", err)
	}
	if _, err := heir.PrepareToLead(bg, l.NodeID(), Preparation{Last: true}); err == nil {
		t.Error("texts were taken without a copy")
	}
	have, err := heir.PrepareToLead(bg, l.NodeID(), Preparation{})
	if err != nil || have == 0 {
		t.Fatalf("revision %d, %v", have, err)
	}
	c.stop(heir.NodeID())
	if _, err := os.Stat(filepath.Join(c.Dirs[heir.NodeID()], workingName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the copy is left: %v", err)
	}
}

// The newest texts are remembered, up to a size.
func TestRecent(t *testing.T) {
	var r recent
	for rev := uint64(5); rev <= 9; rev++ {
		r.add(rev, fmt.Sprint(rev))
	}
	for _, x := range []struct {
		rev   uint64
		known bool
		want  string
	}{{3, false, "[]"}, {4, true, "[5 6 7 8 9]"}, {7, true, "[8 9]"}, {9, true, "[]"}, {12, true, "[]"}} {
		if texts, known := r.since(x.rev); known != x.known || fmt.Sprint(texts) != x.want {
			t.Errorf("since %d: %v, %v", x.rev, texts, known)
		}
	}
	r.add(20, "20")
	if texts, known := r.since(9); known {
		t.Errorf("behind a gap: %v", texts)
	}
	large := string(make([]byte, recentBytes/2))
	for rev := uint64(21); rev < 25; rev++ {
		r.add(rev, large)
	}
	if _, known := r.since(21); known || r.bytes > recentBytes {
		t.Errorf("%d bytes are remembered", r.bytes)
	}
	if texts, known := r.since(23); !known || len(texts) != 1 {
		t.Errorf("the newest one is not remembered")
	}
	r.add(25, large+large+large)
	if _, known := r.since(24); known {
		t.Error("a text that is too large is remembered")
	}
	r.add(26, "26")
	if texts, known := r.since(25); !known || len(texts) != 1 {
		t.Error("what comes behind it is not")
	}
}

// What is dumped is the whole replica; a server without any state, and a caller that has gone, get an error.
func TestDump(t *testing.T) {
	c := newTestCluster(t, 1)
	for range 20 {
		if _, err := write(bg, c.leader()); err != nil {
			t.Fatal(err)
		}
	}
	c.agree()
	path := filepath.Join(t.TempDir(), "dump.db")
	ended, cancel := context.WithCancel(bg)
	cancel()
	if _, err := c.node(1).node.dumpInto(ended, path, point{}); !errors.Is(err, context.Canceled) {
		t.Errorf("the caller has gone: %v", err)
	}
	c.Dirs[2] = t.TempDir()
	c.start(2, testHooks(false))
	if _, err := c.node(2).node.dumpInto(bg, path, point{}); !errors.Is(err, errNoReplica) {
		t.Errorf("a server without state: %v", err)
	}
	if _, err := c.node(1).node.dumpInto(bg, path, point{}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if err := plainHeader(path); err != nil {
		t.Fatal(err)
	}
	f, err := OpenFile(path, testSchema.Latest)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := c.leader().Read(bg, AsLeader, func(v *View) error {
		return enginetest.Difference(contents(t, v.s), contents(t, f.session))
	}); err != nil {
		t.Error(err)
	}
}

// Who has heard of an election first finds a leader that answers when it is ready to, not one that refuses.
func TestAwaitOwn(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, 3)
	to := c.leader().NodeID()%3 + 1
	c.stop(to)
	hooks, goOn, elected := testHooks(to == 1), make(chan struct{}), atomic.Bool{}
	hooks.Found = nil
	hooks.Prepare = func(*View) error {
		elected.Store(true)
		<-goOn
		return nil
	}
	c.start(to, hooks)
	var release sync.Once
	defer release.Do(func() { close(goOn) })
	c.eventually("it is elected", func() error {
		ctx, cancel := context.WithTimeout(bg, 2*time.Second)
		defer cancel()
		if l := c.node(to); elected.Load() || l.Leading() {
			return nil
		}
		for id := range c.Dirs {
			if e := c.node(id); e.Leading() {
				_ = e.Transfer(ctx, to)
			}
		}
		return errors.New("not yet")
	})
	e, done := c.node(to), make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(bg, 30*time.Second)
		defer cancel()
		e.AwaitOwn(ctx)
		_, err := write(ctx, e)
		done <- err
	}()
	for id := range c.Dirs {
		if id != to {
			c.node(id).AwaitOwn(bg) // returns at once where somebody else leads
		}
	}
	release.Do(func() { close(goOn) })
	if err := <-done; err != nil {
		t.Errorf("a write that was there before the leader was ready: %v", err)
	}
}

// A Raft server that speaks and does not lead has this member look who does, and only such a one.
func TestElectionIsHeard(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, 3)
	l := c.leader()
	e := c.node(l.NodeID()%3 + 1)
	c.eventually("it follows", func() error {
		if e.LeaderID() != l.NodeID() {
			return errors.New("not yet")
		}
		return nil
	})
	e.eager.set(time.Time{})
	e.heard(l.NodeID(), 64)
	if !e.eager.get().IsZero() {
		t.Error("the leader speaks, and an election is expected")
	}
	e.heard(e.NodeID()%3+1, 64)
	if e.eager.get().IsZero() || e.poll(l.NodeID()) != leaderSpin {
		t.Error("another member speaks, and nobody looks")
	}
	l.eager.set(time.Time{})
	l.heard(e.NodeID(), 64)
	if !l.eager.get().IsZero() {
		t.Error("the leader is answered, and expects an election")
	}
}
