package engine

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
)

// A leader that is cut off does not dump its replica until it follows another leader: its mirror stays as it is, and
// catches up then.
func TestUndecidedReplicaIsNotDumped(t *testing.T) {
	before := undecidedAtMost
	undecidedAtMost = time.Hour
	t.Cleanup(func() { undecidedAtMost = before }) // registered first, so it runs when the members have stopped
	c := newTestCluster(t, 3)
	old := c.leader()
	if _, err := write(bg, old); err != nil {
		t.Fatal(err)
	}
	if err := old.decided(bg); err != nil {
		t.Errorf("on a leader: %v", err)
	}
	c.eventually("a mirror of the leader", func() error {
		if old.Mirror.Revision() == 0 {
			return errors.New("none")
		}
		return nil
	})
	c.Net.Isolate(old.NodeID(), true)
	c.eventually("the old leader steps down", func() error {
		if old.Leading() {
			return errors.New("it leads")
		}
		return nil
	})
	if _, err := old.dumpTo(bg, filepath.Join(t.TempDir(), "dump.db")); !errors.Is(err, errUndecided) {
		t.Errorf("a dump of the leader that was cut off: %v", err)
	}
	c.Net.Isolate(old.NodeID(), false)
	var request string
	c.eventually("a write", func() (err error) {
		request, err = write(bg, c.leader())
		return err
	})
	c.eventually("the mirror catches up", func() error {
		return old.Read(bg, Stale, func(v *View) error {
			there, err := noted(v, request)
			if err == nil && !there {
				err = errors.New("the note is not there")
			}
			return err
		})
	})
	if err := old.decided(bg); err != nil {
		t.Errorf("when the cluster has a leader again: %v", err)
	}
}

// Without a majority there is no other leader to wait for: after a while the replica is dumped all the same.
func TestUndecidedEnds(t *testing.T) {
	before := undecidedAtMost
	undecidedAtMost = time.Millisecond
	t.Cleanup(func() { undecidedAtMost = before })
	c := newTestCluster(t, 3)
	old := c.leader()
	for id := range c.Dirs {
		if id != old.NodeID() {
			c.stop(id)
		}
	}
	c.eventually("a dump without a leader", func() error {
		if old.Leading() {
			return errors.New("it leads")
		}
		_, err := old.dumpTo(bg, filepath.Join(t.TempDir(), "dump.db"))
		return err
	})
}

// A member that leads again finds in its working copy what became of a batch of an earlier epoch.
func TestOutcomeOnTheLeader(t *testing.T) {
	c := newTestCluster(t, 1)
	l := c.leader()
	request, err := write(bg, l)
	if err != nil {
		t.Fatal(err)
	}
	rev := l.changes.revision()
	for _, k := range []struct {
		request   string
		committed bool
	}{{request, true}, {uuid.NewString(), false}} {
		committed, later, err := l.outcome(bg, 0, rev, k.request)
		if err != nil || committed != k.committed || !later {
			t.Errorf("request %s: committed %v, later %v, %v", k.request, committed, later, err)
		}
	}
}
