package engine

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
)

// (a) A leader that is cut off answers what it cannot do, the others go on, and nothing is lost, doubled or
// made up when it comes back.
func TestLeaderCutOff(t *testing.T) {
	t.Parallel()
	for _, hole := range []bool{false, true} {
		name := "connections break"
		if hole {
			name = "connections swallow what is sent"
		}
		t.Run(name, func(t *testing.T) {
			c := newTestCluster(t, 3)
			c.Net.Swallow(hole)
			w := c.run(6, 1, 2, 3)
			w.more("writes before the cut", 50)
			old := c.leader()
			var others []uint64
			for id := range c.Dirs {
				if id != old.NodeID() {
					others = append(others, id)
				}
			}
			c.Net.Isolate(old.NodeID(), true)
			// It still believes that it leads, and only the others can tell it otherwise.
			if err := promised(t, "linearisable read as soon as the leader is cut off",
				func() error { return old.Read(bg, Linearisable, func(*View) error { return nil }) }); !noLeader(err) {
				t.Errorf("linearisable read as soon as the leader is cut off: %v", err)
			}
			// Until it knows, the old leader may fail writes in three ways; it must never take one.
			for i := range 5 {
				request := uuid.NewString()
				err := promised(t, fmt.Sprintf("write %d to the leader that is cut off", i), func() error {
					return old.Write(bg, request, note(request))
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
			if err := promised(t, "linearisable read on the old leader",
				func() error { return old.Read(bg, Linearisable, func(*View) error { return nil }) }); !noLeader(err) {
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
			c.Net.Isolate(old.NodeID(), false)
			w.more("writes after healing", 50)
			w.finish()
		})
	}
}

// (b) A leader that leaves hands over before it goes: at the moment that Close returns another member leads.
func TestCloseHandsOver(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, 3)
	w := c.run(4, 1, 2, 3)
	w.more("writes before", 20)
	old := c.leader().NodeID()
	c.stop(old)
	follows := map[uint64]uint64{}
	handed := false
	for id := range c.Dirs {
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
	c.start(old, testHooks(old == 1))
	w.finish()
}

// (c) Without a majority every call is answered, and the local replica still serves.
func TestMajorityLost(t *testing.T) {
	t.Parallel()
	for _, survivor := range []string{"leader", "follower"} {
		t.Run("the "+survivor+" is left", func(t *testing.T) {
			c := newTestCluster(t, 3)
			l := c.leader()
			token, err := write(bg, l)
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
					there, err := noted(v, token)
					if err == nil && !there {
						err = errors.New("the note is not there")
					}
					return err
				})
			}
			c.eventually("mirror of the survivor", stale)
			for id := range c.Dirs {
				if id != left {
					c.stop(id)
				}
			}
			request := uuid.NewString()
			for i := range 3 {
				err := promised(t, "write", func() error {
					return s.Write(bg, request, note(request))
				})
				if !noLeader(err) {
					t.Errorf("write %d: %v", i, err)
				}
			}
			if err := promised(t, "linearisable read",
				func() error { return s.Read(bg, Linearisable, func(*View) error { return nil }) }); !noLeader(err) {
				t.Errorf("linearisable read: %v", err)
			}
			if err := promised(t, "stale read", stale); err != nil {
				t.Errorf("stale read: %v", err)
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
			for id := range c.Dirs {
				if id != left {
					c.start(id, testHooks(id == 1))
				}
			}
			c.eventually("a write after the others are back", func() error { _, err := write(bg, c.leader()); return err })
			if err := c.leader().Read(bg, Linearisable, func(*View) error { return nil }); err != nil {
				t.Error(err)
			}
			c.agree()
			checkRevisions(t, c.leader())
		})
	}
}

// (g) Transfers move the leadership, and no request that is under way is lost, doubled or left without an answer.
func TestTransfers(t *testing.T) {
	t.Parallel()
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
	for _, s := range []*Engine{c.node(1), c.node(2), c.node(3)} {
		if s.Leading() {
			continue
		}
		if err := s.Transfer(bg, 1); !errors.Is(err, ErrNotLeader) {
			t.Errorf("a follower transfers: %v", err)
		}
	}
}

// A linearisable read counts the voters of the configuration that holds, from the first moment of a leadership on:
// a member that was told of an older one would ask too few.
func TestNewLeaderKnowsTheVoters(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, 3)
	l := c.leader()
	to := l.NodeID()%3 + 1
	ctx, cancel := context.WithTimeout(bg, answerLimit)
	defer cancel()
	if err := l.Transfer(ctx, to); err != nil {
		t.Fatal(err)
	}
	next := c.leader()
	voters := 0
	for _, v := range next.Servers() {
		if v.Role == RoleVoter {
			voters++
		}
	}
	if voters != 3 {
		t.Errorf("node %d leads and knows of %d voters: %v", next.NodeID(), voters, next.Servers())
	}
}
