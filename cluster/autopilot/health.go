package autopilot

import (
	"cmp"
	"slices"
	"time"
)

// member is an Observation with values derived from it.
type member struct {
	*Observation
	leader, voter, inRaft bool
	// alive: answered within the threshold. dead: silent for longer, since the last answer and since this leader began. A
	// server that a new leader has not asked yet is neither.
	alive, dead bool
	healthy     bool
	recovering  bool
	failed      bool // it recovers from being unable to store
	// stable: healthy for long enough to get a vote.
	stable      bool
	stableSince time.Time
	silence     time.Duration // since the last answer, or since this leader began
	lag         uint64
	// fails is why it cannot store; empty when it can.
	fails string
	why   string // reason of its planned change
	due   bool   // to enter Raft, in this round or a later one
	zone  *zone  // nil while no member has a zone, and for an orphan
	// fresh runs the newest version, old an older one; both are false without an upgrade migration.
	fresh, old bool
}

func (m *member) full() bool   { return m.Member && m.Mode == ModeFull }
func (m *member) active() bool { return m.DrainState == DrainActive && !m.DiskLow && m.fails == "" }

// drained: it hands leadership over and loses its vote. So does a member whose disk is about to fill up, before it
// fails, and one that cannot store, because its vote is worth nothing.
func (m *member) drained() bool { return m.DrainState == DrainDrained || m.DiskLow || m.fails != "" }

// idle returns why a member is not active.
func (m *member) idle() string {
	switch {
	case m.fails != "":
		return "cannot store, " + m.fails
	case m.DiskLow && m.DrainState == DrainActive:
		return "low on disk space"
	}
	return m.DrainState
}

// good: a voter that keeps its vote. A draining one keeps it until it is drained, and one that lags because it will
// catch up.
func (m *member) good() bool {
	return m.voter && m.full() && !m.dead && !m.drained()
}

// lateGoodbye is how long after its goodbye a process may still answer while it closes.
const lateGoodbye = 10 * time.Second

// left: it does not answer after a goodbye.
func (m *member) left() bool {
	return !m.alive && !m.LeftAt.IsZero() && !m.LastContact.After(m.LeftAt.Add(lateGoodbye))
}

// candidate: full, active and alive; may become a voter.
func (m *member) candidate() bool {
	if !m.full() || !m.active() {
		return false
	}
	if m.voter {
		return !m.dead
	}
	return m.alive && !m.recovering
}

// round is one call of Decide.
type round struct {
	in  *Input
	cfg *Config
	now time.Time
	// young: this leader began less than a stabilization time ago.
	young bool
	ms    []member // ascending by id
	// voting and seated point into ms: the voters, and the other Raft servers with a member row.
	voting, seated []*member
	lead           *member

	voters, healthy, alive, goods, bads int
	// most is the maximum number of voters, without pinned ones.
	most int
	zoning
	migration
	// swap moves a vote to another zone; nil without such a move.
	swap *swap
	// want is the number of voters to fill up to; missing is how many it lacks.
	want, missing int
	seating       seating
}

func isLeader(in *Input, o *Observation) bool {
	if in.LeaderID == 0 {
		return o.IsLeader
	}
	return o.NodeID == in.LeaderID
}

func newRound(in *Input, cfg *Config, now time.Time) *round {
	r := &round{in: in, cfg: cfg, now: now}
	r.young = !in.LeaderSince.IsZero() && now.Sub(in.LeaderSince) < cfg.Stabilization.Std()

	r.ms = make([]member, len(in.Members))
	for i := range in.Members {
		r.ms[i].Observation = &in.Members[i]
	}
	byID := func(a, b member) int { return cmp.Compare(a.NodeID, b.NodeID) }
	if !slices.IsSortedFunc(r.ms, byID) {
		slices.SortStableFunc(r.ms, byID)
	}
	r.ms = slices.CompactFunc(r.ms, func(a, b member) bool { return a.NodeID == b.NodeID })

	for i := range r.ms {
		r.assess(&r.ms[i])
	}
	r.classify()
	zoned, zones := r.zoned(), map[string]*zone{}
	eligible, full := 0, 0
	for i := range r.ms {
		m := &r.ms[i]
		if zoned {
			r.place(m, zones)
		}
		if m.candidate() && r.counts(m) {
			eligible++
		}
		if m.voter && m.full() {
			full++
		}
		r.tally(m)
	}
	// As many as the eligible members allow, and never less than before voters died or drained: those are replaced one for
	// one.
	r.arrange()
	r.most = r.zoning.most(cfg)
	r.want = max(TargetVoters(eligible, r.most), TargetVoters(full, r.most))
	if full > r.goods && r.voters%2 == 1 { // one bad voter can be replaced now
		r.want = max(r.want, min(r.goods+1, r.most))
	}
	r.missing = max(0, r.want-r.goods)
	return r
}

// tally adds a member to the voters or to the stand-bys.
func (r *round) tally(m *member) {
	if m.leader && r.lead == nil {
		r.lead = m
	}
	if !m.voter {
		if m.inRaft && m.Member {
			r.seated = append(r.seated, m)
		}
		return
	}
	r.voting = append(r.voting, m)
	r.voters++
	if m.healthy {
		r.healthy++
	}
	if m.alive {
		r.alive++
	}
	if m.good() {
		r.goods++
	} else {
		r.bads++
	}
}

// assess derives health, and the time of its last change, from one observation.
func (r *round) assess(m *member) {
	m.leader = isLeader(r.in, m.Observation)
	m.voter = m.Role == RoleVoter
	m.inRaft = m.voter || m.Role == RoleStandBy || m.Role == RoleSpare

	answered := m.leader || !m.LastContact.IsZero()
	if m.leader {
		m.alive = true
	} else {
		limit := max(r.cfg.LastContactThreshold.Std(), 2*m.ProbeInterval.Std())
		since := r.in.LeaderSince
		if answered {
			since = m.LastContact
		}
		m.silence = r.now.Sub(since)
		m.alive = answered && m.silence <= limit
		m.dead = !m.alive && m.silence > limit && r.now.Sub(r.in.LeaderSince) > limit
	}

	replicates := m.voter || m.Role == RoleStandBy
	if !m.leader && (replicates || m.Revision > 0) && m.Revision < r.in.LeaderRevision {
		m.lag = r.in.LeaderRevision - m.Revision
	}
	m.fails = m.CannotStore
	if m.fails == "" && replicates && !m.leader && m.Stalled > r.cfg.MaxLagTime {
		m.fails = "its replica has not moved for more than " + brief(r.cfg.MaxLagTime.Std()) + " although there is more " +
			"to replicate"
	}
	m.healthy = m.alive && m.fails == "" && (!replicates || m.lag <= r.cfg.MaxLagRevisions)

	prev, known := r.in.Previous[m.NodeID]
	switch {
	case known && prev.Healthy == m.healthy && (!m.healthy || !prev.StableSince.IsZero()):
		m.stableSince = prev.StableSince
	case !known && !answered: // nothing is known of its health
	default:
		m.stableSince = r.now // keeps the monotonic reading, because clocks are set
	}
	steady := m.healthy && r.now.Sub(m.stableSince) >= r.cfg.Stabilization.Std()
	m.recovering = (answered && !m.alive) || m.fails != "" || (prev.Recovering && !steady && !m.leader)
	m.failed = m.fails != "" || (prev.Failed && m.recovering)
	m.stable = steady || (m.healthy && r.young && !m.recovering)
}

// byPromise orders candidates for a vote: longest stable, then lowest lag,
// then lowest id.
func byPromise(a, b *member) int {
	return cmp.Or(a.stableSince.Compare(b.stableSince), cmp.Compare(a.lag, b.lag), cmp.Compare(a.NodeID, b.NodeID))
}
