package store

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
	for _, hole := range []bool{false, true} {
		name := "connections break"
		if hole {
			name = "connections swallow what is sent"
		}
		t.Run(name, func(t *testing.T) {
			c := newTestCluster(t, 3)
			c.net.Swallow(hole)
			w := c.run(6, 1, 2, 3)
			w.more("writes before the cut", 50)
			old := c.leader()
			var others []uint64
			for id := range c.dirs {
				if id != old.NodeID() {
					others = append(others, id)
				}
			}
			c.net.Isolate(old.NodeID(), true)
			// It still believes that it leads, and only the others can tell it otherwise.
			if err := promised(t, "linearisable read as soon as the leader is cut off", func() error { return old.Read(bg, Linearisable, func(*View) error { return nil }) }); !noLeader(err) {
				t.Errorf("linearisable read as soon as the leader is cut off: %v", err)
			}
			// Until it knows, the old leader may fail writes in three ways; it must never take one.
			for i := range 5 {
				request := uuid.NewString()
				err := promised(t, fmt.Sprintf("write %d to the leader that is cut off", i), func() error {
					_, err := old.JoinTokens.Create(bg, Actor{RequestID: request}, JoinToken{ID: NewID(), Format: FormatMuster, KeyEpoch: 1, MaxUses: 1, ExpiresAt: time.Now().Add(time.Hour)})
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
			c.net.Isolate(old.NodeID(), false)
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
					_, err := s.JoinTokens.Create(bg, Actor{Name: "test", RequestID: request}, JoinToken{ID: NewID(), Format: FormatMuster, KeyEpoch: 1, MaxUses: 1, ExpiresAt: time.Now().Add(time.Hour)})
					return err
				})
				if !noLeader(err) {
					t.Errorf("write %d: %v", i, err)
				}
			}
			if err := promised(t, "linearisable read", func() error { return s.Read(bg, Linearisable, func(*View) error { return nil }) }); !noLeader(err) {
				t.Errorf("linearisable read: %v", err)
			}
			if err := promised(t, "list of members", func() error { _, err := s.Members.List(bg, Linearisable); return err }); !noLeader(err) {
				t.Errorf("linearisable list: %v", err)
			}
			if err := promised(t, "stale read", stale); err != nil {
				t.Errorf("stale read: %v", err)
			}
			if list, err := s.Members.List(bg, Stale); err != nil || len(list) != 3 {
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
			if _, err := c.leader().Members.List(bg, Linearisable); err != nil {
				t.Error(err)
			}
			c.agree()
			checkRevisions(t, c.leader())
		})
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
	return l.Members.Join(bg, Actor{Name: "test"}, Joiner{TokenID: tok.ID, Member: Member{Mode: ModeFull, Recipient: recipient, RaftAddress: "10.0.0.9:7000"}})
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
	if err := l.JoinTokens.Revoke(bg, Actor{}, tok.ID); err != nil {
		t.Fatal(err)
	}
	var refusal *Refusal
	if _, err := l.Members.Join(bg, Actor{}, Joiner{TokenID: tok.ID, Member: Member{Mode: ModeFull}}); !errors.As(err, &refusal) || refusal.Code != Unauthorized {
		t.Errorf("join with a revoked token: %v", err)
	}
	join("join after a refusal")
	c.stop(c.leader().NodeID())
	join("join on another leader")
	checkRevisions(t, c.leader())
}

// A linearisable read counts the voters of the configuration that holds, from the first moment of a leadership on:
// a member that was told of an older one would ask too few.
func TestNewLeaderKnowsTheVoters(t *testing.T) {
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
