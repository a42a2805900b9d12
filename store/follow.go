package store

import (
	"context"
	"time"
)

// restlessFor is how long the leader is looked for often after a connection to it has broken: an election takes less.
const restlessFor = 2 * time.Second

// LeaderID returns the leader that the local Raft server follows or, on a member that is not a Raft server, the one
// that others have named; 0 for none. It does not block; the answer is at most 100 ms old, or as old as the hint.
func (s *Store) LeaderID() uint64 {
	if id := s.leaderID.Load(); id != 0 {
		return id
	}
	if h := s.hint.Load(); h != nil && time.Now().Before(h.until) {
		return h.id
	}
	return 0
}

// SinceLeader returns how long ago this member last knew a leader: 0 while it knows one. known is false when it has known
// none since it started. It does not block; the answer is as exact as that of LeaderID.
func (s *Store) SinceLeader() (ago time.Duration, known bool) {
	if s.LeaderID() != 0 {
		return 0, true
	}
	last := s.lastLed.Load()
	if h := s.hint.Load(); h != nil {
		last = max(last, h.until.UnixNano())
	}
	if last == 0 {
		return 0, false
	}
	return max(0, time.Since(time.Unix(0, last))), true
}

// leaderHint is what a member outside Raft was told by one that is inside.
type leaderHint struct {
	id    uint64
	until time.Time
}

// HintLeader names the leader to a member whose own Raft server does not know one. It is forgotten after a while, and as
// soon as that server sees an election.
func (s *Store) HintLeader(id uint64, valid time.Duration) {
	before := s.LeaderID()
	s.hint.Store(&leaderHint{id: id, until: time.Now().Add(valid)})
	if before != s.LeaderID() {
		s.announceTurn()
	}
}

// Unreachable says that a leader could not be reached: a hint that names it is forgotten, and this member looks at once
// who leads now.
func (s *Store) Unreachable(id uint64) {
	if h := s.hint.Load(); h != nil && h.id == id && s.hint.CompareAndSwap(h, nil) && s.leaderID.Load() == 0 {
		s.announceTurn()
	}
	s.Suspect(id)
}

// Suspect says that a connection to a member has broken. If it is the leader, this member looks often who leads.
func (s *Store) Suspect(id uint64) {
	if id == s.LeaderID() && id != s.cfg.NodeID {
		s.restless.Store(time.Now().Add(restlessFor).UnixNano())
		s.Look()
	}
}

// Outside tells whether this member takes no part in Raft: others know a leader and its own server does not.
func (s *Store) Outside() bool { return s.leaderID.Load() == 0 && s.LeaderID() != 0 }

// term is the time for which this member follows one leader.
type term struct {
	leader uint64
	ctx    context.Context
	end    context.CancelFunc
}

// Following returns a context that ends as soon as this member no longer takes a node for the leader. What waits for that
// node's answer need not wait any longer.
func (s *Store) Following(id uint64) context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.LeaderID()
	if s.term.ctx == nil || s.term.leader != now {
		s.beginTerm(now)
	}
	if id != now {
		return ended
	}
	return s.term.ctx
}

// beginTerm is called with the lock held.
func (s *Store) beginTerm(leader uint64) {
	if s.term.end != nil {
		s.term.end()
	}
	s.term.leader = leader
	s.term.ctx, s.term.end = context.WithCancel(context.Background())
}

// ended is a context that has ended.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

func (s *Store) observeLeader(id uint64) {
	old := s.leaderID.Swap(id)
	if id != 0 {
		s.lastLed.Store(time.Now().UnixNano())
	}
	if old == id {
		return
	}
	s.hint.Store(nil) // an election seen is a leader forgotten
	s.log.Info("leader", "node", id, "before", old)
	if id != 0 {
		s.metrics.leaders.Inc()
	}
	s.announceTurn()
}

func (s *Store) announceTurn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.turned)
	s.turned = make(chan struct{})
	if now := s.LeaderID(); s.term.ctx != nil && s.term.leader != now {
		s.beginTerm(now)
	}
}
