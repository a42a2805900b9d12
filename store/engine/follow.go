package engine

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// moment is a time that goroutines share, the zero time at first. Unlike a number of nanoseconds it keeps the monotonic
// reading: a clock that is set while the process runs moves no deadline and no age.
type moment struct{ at atomic.Pointer[time.Time] }

func (m *moment) set(t time.Time) { m.at.Store(&t) }

func (m *moment) get() time.Time {
	if t := m.at.Load(); t != nil {
		return *t
	}
	return time.Time{}
}

// restlessFor is how long the leader is looked for often after a connection to it has broken: an election takes less.
const restlessFor = 2 * time.Second

// LeaderID returns the leader that the local Raft server follows or, on a member that is not a Raft server, the one
// that others have named; 0 for none. It does not block; the answer is at most half a second old, or as old as the
// hint.
func (e *Engine) LeaderID() uint64 {
	if id := e.leaderID.Load(); id != 0 {
		return id
	}
	if h := e.hint.Load(); h != nil && time.Now().Before(h.until) {
		return h.id
	}
	return 0
}

// SinceLeader returns how long ago this member last knew a leader: 0 while it knows one. known is false when it has
// known none since it started. It does not block; the answer is as exact as that of LeaderID.
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

// leaderHint is what a member outside Raft was told by one that is inside.
type leaderHint struct {
	id    uint64
	until time.Time
}

// HintLeader names the leader to a member whose own Raft server does not know one. It is forgotten after a while, and
// as soon as that server sees an election.
func (e *Engine) HintLeader(id uint64, valid time.Duration) {
	before := e.LeaderID()
	e.hint.Store(&leaderHint{id: id, until: time.Now().Add(valid)})
	if before != e.LeaderID() {
		e.announceTurn()
	}
}

// Unreachable says that a leader could not be reached: a hint that names it is forgotten, and this member looks at once
// who leads now.
func (e *Engine) Unreachable(id uint64) {
	if h := e.hint.Load(); h != nil && h.id == id && e.hint.CompareAndSwap(h, nil) && e.leaderID.Load() == 0 {
		e.announceTurn()
	}
	e.Suspect(id)
}

// Suspect says that a connection to a member has broken. If it is the leader, this member looks often who leads.
func (e *Engine) Suspect(id uint64) {
	if id == e.LeaderID() && id != e.cfg.NodeID {
		e.restless.set(time.Now().Add(restlessFor))
		e.Look()
	}
}

// eagerFor is how long the leader is looked for without a pause after a Raft server has spoken that does not lead: what
// it says takes effect after a moment.
const eagerFor = 20 * time.Millisecond

// heartbeatsAtMost is more than Raft says where it has nothing to say, and less than any entry that changes the
// database, which has a page of it at least.
const heartbeatsAtMost = 512

// heard is called when another member's Raft server has said something to this one's, of so many bytes. Who follows a
// leader hears from that one alone: others ask for votes, give theirs, or lead.
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
	case e.Outside(): // its own Raft server never names a leader: there is nothing to wait for
		e.Look()
	default:
		e.expectElection(eagerFor)
	}
}

// expectElection has this member look who leads without a pause.
func (e *Engine) expectElection(within time.Duration) {
	e.eager.set(time.Now().Add(within))
	e.Look()
}

// Outside reports whether this member takes no part in Raft: others know a leader and its own server does not.
func (e *Engine) Outside() bool { return e.leaderID.Load() == 0 && e.LeaderID() != 0 }

// Follows reports whether this member's own Raft server knows who leads, be it itself.
func (e *Engine) Follows() bool { return e.leaderID.Load() != 0 }

// term is the time for which this member follows one leader.
type term struct {
	leader uint64
	ctx    context.Context
	end    context.CancelFunc
}

// Following returns a context that ends as soon as this member no longer takes a node for the leader. What waits for
// that node's answer need not wait any longer.
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

// ended is a context that has ended.
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
	e.hint.Store(nil) // an election seen is a leader forgotten
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

// AwaitLeader blocks until there is a leader and, if it is this member, until it accepts writes.
// It returns ErrNoLeader when ctx ends first.
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

// AwaitOwn blocks while this member's Raft server leads and the engine does not accept writes yet, at most until ctx ends
// or another member leads. It is for requests of those that have heard of an election before this member has.
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

// Leadership returns a channel that is closed when leadership next changes in any way, for loops that run on
// the leader only.
func (e *Engine) Leadership() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.turned
}

// Beat returns when this member last set out to look who leads, which it does all the time while it is well.
func (e *Engine) Beat() time.Time { return e.beat.get() }

// Look makes this member find out at once who leads, instead of at its next look.
func (e *Engine) Look() {
	select {
	case e.look <- struct{}{}:
	default:
	}
}

// maxFailures is how often in a row a member may fail to take leadership up before it passes it on: it may be out of
// room or of file descriptors, and Raft does not know.
const maxFailures = 3

// followLeadership keeps leaderID, the configuration and the leadership of this process in step with Raft.
func (e *Engine) followLeadership(ctx context.Context) {
	failures := 0 // to take leadership up, one after the other
	for {
		e.beat.set(time.Now())
		asked := time.Now()
		id, err := e.FollowsNow(ctx)
		if err != nil && ctx.Err() == nil {
			e.log.Debug("the local Raft server does not answer", "err", err)
			id = 0
		}
		if l := e.current(); l != nil && id == e.cfg.NodeID {
			// Between two looks that are an election apart, leadership may have been lost and won again.
			if !e.unbroken() && !l.verify(ctx) {
				e.log.Warn("leadership was lost and won again unnoticed; it starts afresh")
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
// that an election takes, see unbroken. Elsewhere nothing is to be seen while the leader speaks: who follows it is woken
// by what others say, and by a connection that breaks.
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

// unbroken reports whether leadership was looked at so recently that no other member can have led since: that takes an
// election, 15 times the network latency.
func (e *Engine) unbroken() bool {
	return time.Since(e.observed.get()) < 15*e.cfg.NetworkLatency
}
