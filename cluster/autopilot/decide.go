package autopilot

import (
	"cmp"
	"slices"
	"time"
)

// Decide returns the state of the cluster and the next changes. It keeps nothing between calls and does not modify in;
// equal arguments give equal answers, whatever the order of in.Members. The plan is empty on a node that sees no
// leader, when the leader does not vote, and while less than a majority of the voters answer, because no change could
// be committed.
func Decide(in Input, cfg Config, now time.Time) (State, Plan) {
	r := newRound(&in, &cfg, now)
	if r.swap = r.relieve(); r.swap == nil {
		r.swap = r.imbalance()
	}
	r.seating = r.seat()
	plan := Plan{}
	if r.mayChange() {
		steps := []func() Plan{
			r.replace, r.transfer, r.orphans, r.demote, r.fill, r.balance, r.standBy, r.add, r.evict, r.cleanup,
		}
		if r.lead.fails != "" { // its disk may not store the next change of the log
			steps = slices.Insert(steps, 0, r.transfer)
		}
		for _, step := range steps {
			if p := step(); len(p) > 0 {
				plan = p
				break
			}
		}
	}
	return r.state(), plan
}

func (r *round) mayChange() bool {
	return r.lead != nil && r.lead.voter && r.alive >= majority(r.voters)
}

// change returns a Change. It also sets the reason in the member, for State.
func change(k Kind, m *member, role, why string) Change {
	m.why = why
	return Change{Kind: k, NodeID: m.NodeID, Role: role, Reason: why}
}

// ready returns the stand-bys that may get a vote now, best first.
func (r *round) ready() []*member {
	var c []*member
	for _, m := range r.seated {
		if m.Role == RoleStandBy && m.candidate() && m.healthy && m.stable {
			c = append(c, m)
		}
	}
	slices.SortFunc(c, func(a, b *member) int { return cmp.Or(compareBool(!r.suits(a), !r.suits(b)), byPromise(a, b)) })
	return c
}

// replace promotes pinned members, and otherwise one stand-by for a voter that is dead, drained, replicate-only or an
// orphan. With an even number of voters it waits until demote has taken a vote away. So a replacement always gives one
// vote and takes one.
func (r *round) replace() Plan {
	var p Plan
	for _, m := range r.seated {
		if m.Pinned && m.candidate() && m.healthy {
			p = append(p, change(KindPromote, m, RoleVoter, "promoted by an operator"))
		}
	}
	if len(p) > 0 || r.bads == 0 || r.voters%2 == 0 || r.missing == 0 {
		return p
	}
	c := r.ready()
	if best := r.elect(); len(best) > 0 {
		c = best
	}
	if c = r.choose(c, 1); len(c) > 0 {
		p = append(p, change(KindPromote, c[0], RoleVoter, "takes the place of "+r.worstVoter().culprit()))
	}
	return p
}

// fill promotes up to the wanted number, in steps that leave an odd number of voters.
func (r *round) fill() Plan {
	c := r.elect()
	n := min(r.missing, len(c))
	if (r.voters+n)%2 == 0 {
		n--
	}
	if r.bads > 0 {
		n = min(n, 1)
	}
	var p Plan
	for i, m := range r.choose(c, n) {
		p = append(p, change(KindPromote, m, RoleVoter,
			"stable for "+brief(r.now.Sub(m.stableSince))+": becomes voter "+outOf(r.voters+i+1, max(r.want, r.voters+n))))
	}
	return p
}

// transfer hands leadership over when the leader should not have it.
func (r *round) transfer() Plan {
	outdated := r.outdated()
	if l := r.lead; l.full() && !l.drained() && !outdated {
		return nil
	}
	var c []*member
	for _, m := range r.voting {
		if !m.leader && m.candidate() && m.healthy && (m.fresh || !outdated) {
			c = append(c, m)
		}
	}
	if len(c) == 0 {
		return nil
	}
	slices.SortFunc(c, byPromise)
	if outdated && !r.lead.drained() {
		return Plan{change(KindTransfer, c[0], RoleVoter, "takes leadership from node "+utoa(r.lead.NodeID)+
			", which runs the older "+
			r.lead.Version)}
	}
	return Plan{change(KindTransfer, c[0], RoleVoter, "takes leadership from "+r.lead.culprit())}
}

// orphans removes Raft servers without a member row from the configuration.
func (r *round) orphans() Plan {
	var p Plan
	t := tally{r.voters, r.healthy}
	for _, dead := range []bool{true, false} { // a dead server costs no healthy vote
		for i := range r.ms {
			m := &r.ms[i]
			if m.Member || !m.inRaft || m.leader || m.healthy == dead || (m.voter && !t.drop(m.healthy)) {
				continue
			}
			p = append(p, change(KindRemove, m, RoleOutside, "no member row: leaves the Raft configuration"))
		}
	}
	return p
}

// demote takes votes away: from replicate-only members, from more voters than MaxVoters, and from one bad voter when
// the number is even. The rest then needs one vote less for its majority. With an odd number that would gain nothing,
// so a bad voter without a replacement keeps its vote.
func (r *round) demote() Plan {
	t := tally{r.voters, r.healthy}
	var p Plan
	victims := slices.Clone(r.voting)
	slices.SortFunc(victims, worstFirst)
	drop := func(m *member, why string) bool {
		if m.why != "" || m.leader || !m.Member || !t.drop(m.healthy) {
			return false
		}
		p = append(p, change(KindDemote, m, RoleStandBy, why))
		return true
	}

	loose := 0 // voters that count against r.most
	for _, m := range victims {
		switch {
		case m.Member && !m.full() && drop(m, "replicate-only: never votes"):
		case m.full() && !m.Pinned:
			loose++
		}
	}
	for _, m := range victims {
		if !m.Pinned && m.full() && !m.good() && loose > r.most && drop(m, m.fault()+": another votes in its place") {
			loose--
		}
	}
	r.shed(victims, drop)
	for _, m := range victims {
		if t.voters%2 == 0 && !m.good() && drop(m, m.fault()+": one vote fewer survives as many failures") {
			break
		}
	}
	return p
}

// worstFirst orders voters for demotion.
func worstFirst(a, b *member) int {
	return cmp.Or(cmp.Compare(a.worth(), b.worth()), cmp.Compare(b.NodeID, a.NodeID))
}

func (m *member) worth() int {
	switch {
	case m.dead && !m.Pinned:
		return 0
	case m.dead:
		return 1
	case m.voter && !m.good() && !m.Pinned:
		return 2
	case m.voter && !m.good():
		return 3
	case !m.active():
		return 4
	case !m.healthy:
		return 5
	}
	return 6
}

func (r *round) worstVoter() *member { return slices.MinFunc(r.voting, worstFirst) }

// cleanup removes members that have been silent for DeadAfter. It removes a voter only when no stand-by is about to
// replace it.
func (r *round) cleanup() Plan {
	if !r.cfg.CleanupDeadMembers || r.healthy < r.cfg.MinQuorum {
		return nil
	}
	var p Plan
	t := tally{r.voters, r.healthy}
	successor := slices.ContainsFunc(r.seated, (*member).candidate)
	for i := range r.ms {
		m := &r.ms[i]
		unasked := m.LastContact.IsZero() && r.in.LeaderSince.IsZero()
		if !m.Member || !m.dead || unasked || m.silence < r.cfg.DeadAfter.Std() {
			continue
		}
		if m.voter && (successor || !t.drop(m.healthy)) {
			continue
		}
		p = append(p, change(KindCleanup, m, RoleOutside,
			"silent for "+brief(m.silence)+": removed, as cleanupDeadMembers says after "+brief(r.cfg.DeadAfter.Std())))
	}
	return p
}
