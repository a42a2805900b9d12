package autopilot

import (
	"slices"
	"strconv"
	"time"
)

func (r *round) state() State {
	s := State{
		Healthy:          r.lead != nil && r.voters > 0 && r.healthy == r.voters,
		FailureTolerance: FailureTolerance(r.voters, r.healthy),
		LeaderNodeID:     r.in.LeaderID,
		Voters:           make([]uint64, 0, r.voters),
		Servers:          make([]Server, len(r.ms)),
	}
	if r.lead != nil {
		s.LeaderNodeID = r.lead.NodeID
	}
	for _, m := range r.voting {
		s.Voters = append(s.Voters, m.NodeID)
	}
	s.Zones, s.Spread = r.losses()
	electable := r.electable()
	t := r.newTeller()
	for i := range r.ms {
		m := &r.ms[i]
		v := &s.Servers[i]
		*v = Server{
			NodeID:          m.NodeID,
			NodeStatus:      StatusDown,
			Healthy:         m.healthy,
			IsLeader:        m.leader,
			HasVotingRights: m.voter,
			StableSince:     Stamp{m.stableSince},
			Name:            m.Name,
			Role:            m.Role,
			Mode:            m.Mode,
			Zone:            m.Zone,
			DrainState:      m.DrainState,
			Pinned:          m.Pinned,
			Electable:       m.voter && electable(m),
			Recovering:      m.recovering,
			Failed:          m.failed,
			DiskLow:         m.DiskLow,
			CannotStore:     m.fails,
			Stalled:         m.Stalled,
			Lag:             m.lag,
			RTT:             m.RTT,
			Version:         m.Version,
			ZoneCost:        r.cost(m),
			Reason:          t.reason(m),
		}
		r.contact(m, v)
	}
	return s
}

// contact sets the status of a server and the times behind it, to the millisecond.
func (r *round) contact(m *member, v *Server) {
	stamp := func(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }
	switch {
	case m.alive:
		v.NodeStatus = StatusAlive
	case m.left():
		v.NodeStatus, v.LeftAt = StatusLeft, stamp(m.LeftAt)
	case m.LastContact.IsZero() && !m.dead && !r.in.LeaderSince.IsZero():
		v.NodeStatus = StatusUnknown
	case m.LastContact.IsZero():
		v.DownSince = stamp(r.in.LeaderSince)
	default:
		v.DownSince = stamp(m.LastContact)
	}
	if !m.LastContact.IsZero() {
		v.LastContact = stamp(m.LastContact)
	}
}

// electable returns the strictest rule that an answering voter passes, so that a leader can always be elected.
func (r *round) electable() func(*member) bool {
	rules := []func(*member) bool{
		func(m *member) bool { return m.full() && m.active() },
		func(m *member) bool { return m.full() },
		func(m *member) bool { return m.Member },
	}
	for _, rule := range rules {
		if slices.ContainsFunc(r.voting, func(m *member) bool { return m.alive && rule(m) }) {
			return rule
		}
	}
	return func(*member) bool { return true }
}

// teller words the reasons.
type teller struct {
	*round
	outside   string
	seatOrder []*member // healthy stand-bys that can vote, in order of promotion
	votes     int
}

func (r *round) newTeller() *teller {
	t := &teller{round: r, outside: "outside Raft: " + r.enough()}
	for _, m := range r.seated {
		if m.Role == RoleStandBy && m.candidate() && m.healthy {
			t.seatOrder = append(t.seatOrder, m)
		}
	}
	slices.SortFunc(t.seatOrder, byPromise)
	return t
}

func (t *teller) reason(m *member) string {
	place := ""
	if m.voter {
		t.votes++
		place = "voter: " + outOf(t.votes, t.voters)
		if m.leader {
			place = "leader, " + place
		}
	}
	switch {
	case m.why != "":
		return m.why
	case !m.Member && !m.inRaft:
		return "no member row, not in Raft"
	case !m.Member && m.leader:
		return "no member row: hands leadership on and leaves Raft when another healthy voter exists"
	case !m.Member:
		return "no member row: leaves Raft when the healthy voters are a majority without it"
	case m.voter:
		return t.voterReason(m, place)
	}
	switch {
	case m.left():
		return "has left: its process was ended in order"
	case !m.alive && m.LastContact.IsZero() && m.inRaft:
		return "has not answered this leader yet"
	case !m.alive && m.LastContact.IsZero():
		return "has not answered a probe yet: enters Raft only after that"
	case !m.alive:
		return "silent for " + brief(m.silence)
	case m.Mode != ModeFull && m.inRaft:
		return "replicate-only: never votes, replicates in a stand-by seat"
	case m.Mode != ModeFull:
		return "replicate-only: never votes"
	case !m.active():
		switch {
		case m.fails != "":
			return m.idle() + ": gets no vote before it stores again"
		case m.DrainState == DrainActive:
			return m.idle() + ": gets no vote before there is room again"
		}
		return m.DrainState + ": gets no vote before it is resumed"
	case m.inRaft:
		return t.standByReason(m)
	case m.recovering:
		return m.was() + ", back for " + t.waited(m) + ", then considered for Raft again"
	case m.due:
		return "outside Raft: enters as stand-by in the next round"
	case t.migrating(m) != "":
		return "outside Raft: " + t.migrating(m)
	case t.seating.wanted > 0:
		return "outside Raft: enters after its next probe"
	}
	return t.outside
}

func (t *teller) voterReason(m *member, place string) string {
	switch {
	case m.Mode != ModeFull && m.leader:
		return "replicate-only: gives leadership and vote away when another healthy voter exists"
	case m.Mode != ModeFull:
		return "replicate-only: loses its vote when the healthy voters are a majority without it"
	case m.left():
		return "has left: keeps its vote until a stand-by takes it"
	case m.dead && m.LastContact.IsZero():
		return "has not answered this leader: keeps its vote until a stand-by takes it"
	case m.dead:
		return "silent for " + brief(m.silence) + ": keeps its vote until a stand-by takes it"
	case !m.alive:
		return place + ", has not answered this leader yet"
	case m.drained():
		return m.fault() + ": keeps its vote until an eligible stand-by takes it"
	case m.DrainState == DrainDraining:
		return place + ", draining"
	case !m.healthy:
		return place + ", " + t.behind(m)
	case m.Pinned:
		return place + ", promoted by an operator"
	}
	return place
}

func (t *teller) standByReason(m *member) string {
	i := slices.Index(t.seatOrder, m)
	switch held := t.migrating(m); {
	case !m.healthy:
		return "stand-by: " + t.behind(m)
	case m.recovering:
		return "stand-by: " + m.was() + ", back for " + t.waited(m)
	case i < 0:
		return "spare: waits for a stand-by seat"
	case !t.mayChange():
		return "stand-by: no change while only " + outOf(t.alive, t.voters) + " voters answer"
	case held != "" && (t.swap == nil || m != t.swap.to):
		return "stand-by: " + held
	case !m.stable && i < t.missing:
		return "stable for " + t.waited(m) + ", then voter"
	case !m.stable:
		return "stand-by: stable for " + t.waited(m)
	case i < t.missing && t.bads == 0:
		return "stand-by: votes together with another one, so that the voters stay an odd number"
	}
	s := "stand-by: " + outOf(i+1, len(t.seatOrder))
	if i == 0 {
		s += ", next voter when one dies"
	}
	return s
}

func (t *teller) behind(m *member) string {
	return strconv.FormatUint(m.lag, 10) + " revisions behind, " + strconv.FormatUint(t.cfg.MaxLagRevisions,
		10) + " allowed"
}

// waited returns how much of the stabilization time has passed, "4 s of 10 s".
func (t *teller) waited(m *member) string {
	return brief(max(0, t.now.Sub(m.stableSince))) + " of " + brief(t.cfg.Stabilization.Std())
}

// was returns what a member recovers from.
func (m *member) was() string {
	if m.failed {
		return "could not store"
	}
	return "was silent"
}

// fault returns why a voter has to go.
func (m *member) fault() string {
	switch {
	case !m.Member:
		return "no member row"
	case m.Mode != ModeFull:
		return "replicate-only"
	case m.dead && m.LastContact.IsZero():
		return "has not answered this leader"
	case m.dead:
		return "silent for " + brief(m.silence)
	}
	return m.idle()
}

// culprit is fault with the node's id, for the reason of another node.
func (m *member) culprit() string {
	return "node " + strconv.FormatUint(m.NodeID, 10) + " (" + m.fault() + ")"
}

func (r *round) enough() string {
	return count(r.voters, "voter") + " and " + count(r.seating.taken, "stand-by") + " are enough"
}

func itoa(n int) string { return strconv.Itoa(n) }

func utoa(n uint64) string { return strconv.FormatUint(n, 10) }

func outOf(i, n int) string { return itoa(i) + " of " + itoa(n) }

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return itoa(n) + " " + noun + "s"
}

// brief formats a duration for people: "3.2 s", "4 s", "12 min", "26 h".
func brief(d time.Duration) string {
	switch {
	case d < 10*time.Second && d%time.Second >= 100*time.Millisecond:
		return strconv.FormatFloat(float64(d/(100*time.Millisecond))/10, 'f', 1, 64) + " s"
	case d < 2*time.Minute:
		return strconv.FormatInt(int64(d/time.Second), 10) + " s"
	case d < 2*time.Hour:
		return strconv.FormatInt(int64(d/time.Minute), 10) + " min"
	}
	return strconv.FormatInt(int64(d/time.Hour), 10) + " h"
}
