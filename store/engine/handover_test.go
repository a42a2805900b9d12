package engine

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

// A leader that goes hands over although the voter that comes first in the configuration does not answer, or comes
// first and swallows what it is sent.
func TestHandOverGoesOnBehindASilentVoter(t *testing.T) {
	t.Parallel()
	for _, hole := range []bool{false, true} {
		c := newTestCluster(t, 3)
		c.Net.Swallow(hole)
		l := c.leader()
		var silent, well uint64
		for _, v := range l.Servers() {
			if v.NodeID != l.NodeID() && silent == 0 {
				silent = v.NodeID
			} else if v.NodeID != l.NodeID() {
				well = v.NodeID
			}
		}
		c.Net.Isolate(silent, true)
		ctx, cancel := context.WithTimeout(bg, answerLimit)
		l.HandOver(ctx)
		cancel()
		c.eventually("the voter that answers leads", func() error {
			if !c.node(well).Leading() {
				return errors.New("not yet")
			}
			return nil
		})
		c.Close()
	}
}

// A transfer to a voter that does not take it is followed by one to the next; the leader counts as none in between.
func TestHandOverAfterAFailedTransfer(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, 3)
	l := c.leader()
	silent := l.NodeID()%3 + 1
	c.Net.Isolate(silent, true)
	ctx, cancel := context.WithTimeout(bg, 700*time.Millisecond)
	defer cancel()
	if err := l.Transfer(ctx, silent); err == nil {
		t.Fatal("a voter that is cut off took leadership")
	}
	if id := l.settledLeader(bg); id == 0 {
		t.Error("nobody leads after a transfer that has failed")
	}
}

// Who must wait for a majority no longer than it may is told so: that its write may happen, where it has been sent, and
// that it never will, where it has not.
func TestWriteEndsWithItsContext(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, 3)
	c.Net.Swallow(true)
	l := c.leader()
	c.Net.Isolate(l.NodeID(), true)
	outer, effects := WithEffects(bg)
	ctx, cancel := context.WithTimeout(outer, 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err := write(ctx, l)
	if !errors.Is(err, ErrUnknownOutcome) && !errors.Is(err, ErrNotLeader) {
		t.Errorf("the write that was sent: %v", err)
	}
	if errors.Is(err, ErrUnknownOutcome) != effects.Changed() {
		t.Errorf("%v, and changed is %v", err, effects.Changed())
	}
	second, cancel := context.WithTimeout(bg, 50*time.Millisecond)
	defer cancel()
	if _, err := write(second, l); !errors.Is(err, ErrNoLeader) && !errors.Is(err, ErrNotLeader) {
		t.Errorf("the write that waits behind it: %v", err)
	}
	if took := time.Since(begin); took > answerLimit {
		t.Errorf("both took %v", took)
	}
}

// A request whose caller has gone never runs, and one that has run may yet be committed.
func TestRequestIsLeft(t *testing.T) {
	db := memoryDB(t)
	if _, err := db.Exec("CREATE TABLE notes (revision, seq, request)"); err != nil {
		t.Fatal(err)
	}
	b := newBench(t, db)
	runs := 0
	r := &request{fn: func(tx *Tx) error {
		runs++
		return note("x")(tx)
	}}
	if _, err := b.write(r.run); err != nil || !r.leave() {
		t.Errorf("after it has run: %v", err)
	}
	if _, err := b.write(r.run); !errors.Is(err, errLeft) || runs != 1 {
		t.Errorf("after its caller has gone: %v, %d runs", err, runs)
	}
	if r := (&request{fn: func(*Tx) error { return nil }}); r.leave() {
		t.Error("it has not run")
	}
}

// An election seen is a leader forgotten, also one that others have named; so is one that cannot be reached.
func TestLeaderIsForgotten(t *testing.T) {
	c := newTestCluster(t, 1)
	s := c.node(1)
	s.hint.Store(&leaderHint{id: 7, until: time.Now().Add(time.Hour)})
	s.observeLeader(0)
	if id := s.LeaderID(); id == 7 {
		t.Error("the hint outlives an election")
	}
	s.leaderID.Store(0)
	s.HintLeader(7, time.Hour)
	following := s.Following(s.LeaderID())
	s.Unreachable(8)
	if s.LeaderID() != 1 && following.Err() != nil { // the member's own look may come in between
		t.Error("another one cannot be reached, and the leader is forgotten")
	}
	s.leaderID.Store(0)
	s.HintLeader(7, time.Hour)
	following = s.Following(7)
	s.Unreachable(7)
	if s.LeaderID() == 7 || following.Err() == nil {
		t.Error("the hint outlives an attempt to reach the member")
	}
	if s.Following(7).Err() == nil {
		t.Error("nobody follows node 7")
	}
}

// A member that Raft has made the leader and that cannot take leadership up, for want of room for example, passes it
// on.
func TestLeadershipIsPassedOn(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, 3)
	var poor uint64
	for id := range c.Dirs {
		if id != c.leader().NodeID() {
			poor = id
		}
	}
	c.stop(poor)
	hooks := testHooks(false)
	tries := atomic.Int32{}
	hooks.Prepare = func(*View) error { tries.Add(1); return errors.New("there is no room") }
	c.start(poor, hooks)
	c.eventually("leadership is given to it", func() error {
		ctx, cancel := context.WithTimeout(bg, 2*time.Second)
		defer cancel()
		_ = c.leader().Transfer(ctx, poor)
		if tries.Load() == 0 {
			return errors.New("it has not tried to lead")
		}
		return nil
	})
	c.eventually("another one leads", func() error {
		ctx, cancel := context.WithTimeout(bg, 2*time.Second)
		defer cancel()
		_, err := write(ctx, c.leader())
		return err
	})
	if c.leader().NodeID() == poor {
		t.Error("it leads")
	}
}
