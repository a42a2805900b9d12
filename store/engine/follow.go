package engine

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// moment is a time that goroutines share; the zero time at first. It keeps the monotonic reading, so setting the clock
// moves no deadline and no age.
type moment struct{ at atomic.Pointer[time.Time] }

func (m *moment) set(t time.Time) { m.at.Store(&t) }

func (m *moment) get() time.Time {
	if t := m.at.Load(); t != nil {
		return *t
	}
	return time.Time{}
}

// restlessFor is how long this member looks often for the leader after a connection to it has broken. An election takes
// less.
const restlessFor = 2 * time.Second

// LeaderID returns the leader that the local Raft server follows or, on a member that is not a Raft server, the leader
// of the last hint; 0 for none. It does not block. The answer is at most half a second old, or as old as the hint.
func (e *Engine) LeaderID() uint64 {
	if id := e.leaderID.Load(); id != 0 {
		return id
	}
	if h := e.hint.Load(); h != nil && time.Now().Before(h.until) {
		return h.id
	}
	return 0
}

// SinceLeader returns how long ago this member last knew a leader, 0 while it knows one. known is false when it has
// known none since it started. It does not block; it is as accurate as LeaderID.
func (e *Engine) SinceLeader() (ago time.Duration, known bool) {
	if e.LeaderID() != 0 {
		return 0, true
	}
	last := e.lastLed.get()
	if h := e.hint.Load(); h != nil && h.until.After(last) {
		last = h.until
	}
	if last.IsZero() {
		return 0, false
	}
	return max(0, time.Since(last)), true
}

// leaderHint is the leader that a Raft server has named to a member outside Raft.
type leaderHint struct {
	id    uint64
	until time.Time
}

// HintLeader names the leader to a member whose own Raft server knows none. The hint expires after valid, or when that
// server sees an election.
func (e *Engine) HintLeader(id uint64, valid time.Duration) {
	before := e.LeaderID()
	e.hint.Store(&leaderHint{id: id, until: time.Now().Add(valid)})
	if before != e.LeaderID() {
		e.announceTurn()
	}
}

// Unreachable reports that a leader could not be reached: a hint that names it is dropped, and this member looks for
// the leader at once.
func (e *Engine) Unreachable(id uint64) {
	if h := e.hint.Load(); h != nil && h.id == id && e.hint.CompareAndSwap(h, nil) && e.leaderID.Load() == 0 {
		e.announceTurn()
	}
	e.Suspect(id)
}

// Suspect reports that a connection to a member has broken. If it is the leader, this member looks for the leader
// often.
func (e *Engine) Suspect(id uint64) {
	if id == e.LeaderID() && id != e.cfg.NodeID {
		e.restless.set(time.Now().Add(restlessFor))
		e.Look()
	}
}

// eagerFor is how long this member looks for the leader without a pause after another Raft server than the leader's has
// sent something. Its message takes effect after a moment.
const eagerFor = 20 * time.Millisecond

// heartbeatsAtMost is more bytes than an empty Raft message has, and less than any entry that changes the database:
// such an entry holds at least a page of it.
const heartbeatsAtMost = 512

// heard is called when another member's Raft server has sent so many bytes to this one's. A follower hears from its
// leader alone; others send requests for votes, votes, or the first message as leader.
func (e *Engine) heard(from uint64, bytes int) {
	if bytes > heartbeatsAtMost {
		select {
		case e.grown <- struct{}{}:
		default:
		}
	}
	switch known := e.leaderID.Load(); {
	case from == e.LeaderID():
		e.spoke.set(time.Now())
	case known == e.cfg.NodeID && e.Leading():
	case e.Outside(): // its own Raft server never names a leader
		e.Look()
	default:
		e.expectElection(eagerFor)
	}
}

// expectElection makes this member look for the leader without a pause.
func (e *Engine) expectElection(within time.Duration) {
	e.eager.set(time.Now().Add(within))
	e.Look()
}

// Outside reports whether this member is outside Raft: it knows a leader only from others.
func (e *Engine) Outside() bool { return e.leaderID.Load() == 0 && e.LeaderID() != 0 }

// Follows reports whether this member's own Raft server knows the leader, which may be itself.
func (e *Engine) Follows() bool { return e.leaderID.Load() != 0 }

// term is the period in which this member follows one leader. It is not Raft's term.
type term struct {
	leader uint64
	ctx    context.Context
	end    context.CancelFunc
}

// Following returns a context that ends as soon as this member no longer follows the node. A wait for that node's
// answer may then end.
func (e *Engine) Following(id uint64) context.Context {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.LeaderID()
	if e.term.ctx == nil || e.term.leader != now {
		e.beginTerm(now)
	}
	if id != now {
		return ended
	}
	return e.term.ctx
}

// beginTerm is called with the lock held.
func (e *Engine) beginTerm(leader uint64) {
	if e.term.end != nil {
		e.term.end()
	}
	e.term.leader = leader
	e.term.ctx, e.term.end = context.WithCancel(context.Background())
}

// ended is a context that is done.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

func (e *Engine) observeLeader(id uint64) {
	old := e.leaderID.Swap(id)
	if id != 0 {
		e.lastLed.set(time.Now())
	}
	if old == id {
		return
	}
	e.hint.Store(nil) // an election invalidates the hint
	e.log.Info("leader", "node", id, "before", old)
	if id != 0 {
		e.metrics.leaders.Inc()
	}
	e.announceTurn()
}

func (e *Engine) announceTurn() {
	e.mu.Lock()
	defer e.mu.Unlock()
	close(e.turned)
	e.turned = make(chan struct{})
	if now := e.LeaderID(); e.term.ctx != nil && e.term.leader != now {
		e.beginTerm(now)
	}
}

// AwaitLeader blocks until there is a leader and, if it is this member, until it accepts writes. It returns the
// leader's node id, ErrNoLeader when ctx ends first, or ErrClosed.
func (e *Engine) AwaitLeader(ctx context.Context) (uint64, error) {
	for {
		e.mu.Lock()
		turned, leading := e.turned, e.lead != nil
		e.mu.Unlock()
		if e.closing.Load() {
			return 0, ErrClosed
		}
		if id := e.LeaderID(); id != 0 && (id != e.cfg.NodeID || leading) {
			return id, nil
		}
		select {
		case <-turned:
		case <-ctx.Done():
			return 0, ErrNoLeader
		}
	}
}

// AwaitOwn blocks while this member's Raft server leads and the engine does not accept writes yet, at most until ctx
// ends or another member leads. Requests need it when their sender has learned of an election before this member has.
func (e *Engine) AwaitOwn(ctx context.Context) {
	if e.Leading() || e.yielding.Load() {
		return
	}
	if id, err := e.FollowsNow(ctx); err != nil || id != e.cfg.NodeID {
		return
	}
	e.observeLeader(e.cfg.NodeID)
	e.Look()
	_, _ = e.AwaitLeader(ctx)
}

// Leadership returns a channel that is closed when leadership next changes in any way. Loops that run only on the
// leader wait for it.
func (e *Engine) Leadership() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.turned
}

// Beat returns when this member last looked for the leader. On a healthy member that is never long ago.
func (e *Engine) Beat() time.Time { return e.beat.get() }

// Look makes this member look for the leader at once.
func (e *Engine) Look() {
	select {
	case e.look <- struct{}{}:
	default:
	}
}

// maxFailures is how many times in a row a member may fail to take leadership up before it hands it over. Raft does not
// notice that it has no disk space or file descriptors left.
const maxFailures = 3

// followLeadership keeps leaderID, the configuration and the leadership of this process in step with Raft.
func (e *Engine) followLeadership(ctx context.Context) {
	failures := 0 // to take leadership up, in a row
	for {
		e.beat.set(time.Now())
		asked := time.Now()
		id, err := e.FollowsNow(ctx)
		if err != nil && ctx.Err() == nil {
			e.log.Debug("the local Raft server does not answer", "err", err)
			id = 0
		}
		if l := e.current(); l != nil && id == e.cfg.NodeID {
			// If the last look is an election ago, leadership may have been lost and won again.
			if !e.unbroken() && !l.verify(ctx) {
				e.log.Warn("leadership was lost and won again unnoticed; it begins again")
				e.descend(ErrNotLeader)
			}
			e.observed.set(asked)
		}
		e.observeLeader(id)
		switch {
		case id == e.cfg.NodeID && !e.Leading() && !e.yielding.Load() && !e.closing.Load():
			err := e.ascend(ctx)
			if err == nil || ctx.Err() != nil {
				failures = 0
				break
			}
			failures++
			e.log.Warn("leadership could not be taken up", "err", err)
			if errors.Is(err, errNewSchema) || errors.Is(err, errDiskHolds) || failures >= maxFailures {
				failures = 0
				_, _ = e.RefreshServers(ctx)
				e.passOn(ctx)
			}
		case id != e.cfg.NodeID:
			failures = 0
			e.descend(ErrNotLeader)
		}
		if e.serversAge() > serversEvery {
			_, _ = e.RefreshServers(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(e.poll(id)):
		case <-e.look:
		}
	}
}

// poll is how long followLeadership waits for its next look while it follows a node. A leader looks twice in the time
// that an election takes, see unbroken. A follower need not look while the leader sends: messages of others and a
// broken connection wake it.
func (e *Engine) poll(id uint64) time.Duration {
	switch now := time.Now(); {
	case now.Before(e.eager.get()):
		return leaderSpin
	case id == 0 && !e.Outside(), now.Before(e.restless.get()):
		return electionPoll
	case id == e.cfg.NodeID:
		return max(leaderPoll, 15*e.cfg.NetworkLatency/2)
	case e.Outside(), now.Sub(e.spoke.get()) < calmPoll:
		return calmPoll
	}
	return leaderPoll
}

// unbroken reports whether the last look is so recent that no other member can have led since: that takes an election,
// 15 times the network latency.
func (e *Engine) unbroken() bool {
	return time.Since(e.observed.get()) < 15*e.cfg.NetworkLatency
}
