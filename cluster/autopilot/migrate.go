package autopilot

import "slices"

// phase is the progress of an upgrade migration: new machines with a newer muster join beside the old ones, and take
// over their votes once there are enough of them.
type phase int

const (
	phaseNone phase = iota
	phaseHold       // too few run the newest version: they only get votes that no other member can take
	phaseMove       // enough run it: votes move to them
)

// migration is the state of an upgrade migration in one round.
type migration struct {
	phase         phase
	newest        string
	fresh, behind int // members that may vote and run the newest version; voters that run an older one
}

// classify finds the newest version among the candidates, and the members that run an older one. A member with an
// unknown version is neither.
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
		case m.old && m.voter: // a lost one counts too: its loss must not begin a migration
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

// counts reports whether a candidate counts for the wanted number of voters.
func (r *round) counts(m *member) bool {
	switch r.phase {
	case phaseHold:
		return m.voter || !m.fresh
	case phaseMove:
		return !m.old
	}
	return true
}

// suits reports whether a candidate for a vote comes first. None is excluded from replacing a lost voter.
func (r *round) suits(m *member) bool {
	return r.phase == phaseNone || r.phase == phaseMove && !m.old || r.phase == phaseHold && !m.fresh
}

// elect returns the members that fill may promote.
func (r *round) elect() []*member {
	return slices.DeleteFunc(r.ready(), func(m *member) bool { return !r.suits(m) })
}

// limit is the maximum number of good voters that are not pinned. Where votes move, one is given first, so that one
// more than wanted is one too many. Two voters stay two: with a single one, all committed data would be in one place.
func (r *round) limit() int {
	if (len(r.list) > 0 || r.phase == phaseMove) && r.bads == 0 {
		return min(r.most, max(r.want, 2))
	}
	return r.most
}

// relieve finds the member of the newest version that takes over the vote of an older one.
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

// outdated reports whether the leader must hand leadership over: it is the last voter of an older version, and its vote
// is to move.
func (r *round) outdated() bool {
	return r.phase == phaseMove && r.lead.old && !r.lead.Pinned && !slices.ContainsFunc(r.voting, func(m *member) bool {
		return m.old && m.good() && !m.leader && !m.Pinned
	})
}

// spared reports whether a good voter keeps its vote because an older version goes first.
func (r *round) spared(m *member) bool {
	return r.phase == phaseMove && !m.old && slices.ContainsFunc(r.voting, func(o *member) bool {
		return o.old && o.good() && !o.Pinned
	})
}

// migrating returns the reason for the place of a member if the migration is that reason.
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
