package autopilot

import "slices"

// phase is how far an upgrade migration is: new machines with a newer muster stand beside the old ones, and take their votes
// over once there are enough of them.
type phase int

const (
	phaseNone phase = iota
	phaseHold       // too few run the newest version: they get no votes but those that somebody has to take
	phaseMove       // enough do: votes go to them, and from the others
)

// migration is what one round knows of it.
type migration struct {
	phase         phase
	newest        string
	fresh, behind int // members that may vote and run the newest version; voters that run an older one
}

// classify finds the newest version that a member runs which may vote, and who runs an older one. A member whose version is
// not known is neither.
func (r *round) classify() {
	if !r.cfg.UpgradeMigration {
		return
	}
	for i := range r.ms {
		m := &r.ms[i]
		if m.candidate() && m.Version != "" && (r.newest == "" || compareVersions(m.Version, r.newest) > 0) {
			r.newest = m.Version
		}
	}
	older := false
	for i := range r.ms {
		m := &r.ms[i]
		if !m.full() || m.Version == "" || r.newest == "" {
			continue
		}
		m.fresh = compareVersions(m.Version, r.newest) == 0
		m.old = compareVersions(m.Version, r.newest) < 0
		older = older || m.old
		switch {
		case m.fresh && m.candidate():
			r.fresh++
		case m.old && m.voter: // one that is lost counts too: else its loss would begin a migration
			r.behind++
		}
	}
	switch {
	case !older:
	case r.fresh >= r.behind:
		r.phase = phaseMove
	default:
		r.phase = phaseHold
	}
}

// counts reports whether a candidate counts for the number of voters that is wanted.
func (r *round) counts(m *member) bool {
	switch r.phase {
	case phaseHold:
		return m.voter || !m.fresh
	case phaseMove:
		return !m.old
	}
	return true
}

// suits orders candidates for a vote: false comes later. Nobody is excluded from replacing a voter that is lost.
func (r *round) suits(m *member) bool {
	return r.phase == phaseNone || r.phase == phaseMove && !m.old || r.phase == phaseHold && !m.fresh
}

// elect is what fill promotes from.
func (r *round) elect() []*member {
	return slices.DeleteFunc(r.ready(), func(m *member) bool { return !r.suits(m) })
}

// limit is how many good voters may stay that nobody has pinned. Where votes move one is given first, so that more than are
// wanted are too many then. Two stay two: with one alone all that it has confirmed is in one place.
func (r *round) limit() int {
	if (len(r.list) > 0 || r.phase == phaseMove) && r.bads == 0 {
		return min(r.most, max(r.want, 2))
	}
	return r.most
}

// relieve finds the member of the newest version that is to get the vote of one that runs an older one.
func (r *round) relieve() *swap {
	if r.phase != phaseMove || r.bads > 0 || r.missing > 0 || r.lead == nil || r.behind == 0 {
		return nil
	}
	loose, old := 0, false
	for _, m := range r.voting {
		if m.good() && !m.Pinned {
			loose++
			old = old || m.old
		}
	}
	if !old || loose != r.limit() {
		return nil
	}
	var to *member
	for i := range r.ms {
		m := &r.ms[i]
		if m.voter || !m.fresh || !m.candidate() || !m.inRaft && !r.enterable(m) {
			continue
		}
		if to == nil || r.sooner(m, to) < 0 {
			to = m
		}
	}
	if to == nil {
		return nil
	}
	return &swap{to: to}
}

// outdated reports whether leadership is to leave the leader: it is the last of an older version whose vote is to move.
func (r *round) outdated() bool {
	return r.phase == phaseMove && r.lead.old && !r.lead.Pinned && !slices.ContainsFunc(r.voting, func(m *member) bool {
		return m.old && m.good() && !m.leader && !m.Pinned
	})
}

// spared reports whether a good voter keeps its vote because one of an older version goes first.
func (r *round) spared(m *member) bool {
	return r.phase == phaseMove && !m.old && slices.ContainsFunc(r.voting, func(o *member) bool {
		return o.old && o.good() && !o.Pinned
	})
}

// migrating says why a member has the place that it has, if that is the reason.
func (r *round) migrating(m *member) string {
	switch {
	case r.phase == phaseHold && m.fresh:
		return "runs the newer " + r.newest + ": votes move when as many members run it as voters run an older one, " +
			outOf(r.fresh, r.behind)
	case r.phase == phaseMove && m.old:
		return "runs the older " + m.Version + ": votes only while nobody with " + r.newest + " can"
	}
	return ""
}
