package autopilot

import "strings"

// losses returns for each zone whether the cluster survives its loss, and a sentence about the spread of the votes.
func (r *round) losses() (list []Zone, spread string) {
	if len(r.list) == 0 {
		return nil, ""
	}
	var decisive []string
	for _, z := range r.list {
		left := r.healthy - z.healthy
		one := Zone{
			Name:       z.name,
			Members:    z.members,
			Alive:      z.alive,
			Eligible:   z.eligible,
			Voters:     z.voters,
			StandBys:   z.standBys,
			Survivable: r.voters > 0 && left >= majority(r.voters),
		}
		switch {
		case r.voters == 0:
			one.Reason = "nobody votes"
		case z.voters == 0 && !one.Survivable:
			one.Reason = "no vote is here, but only " + outOf(left, r.voters) + " voters are healthy"
		case z.voters == 0:
			one.Reason = "no vote is here"
		default:
			one.Reason = "its loss leaves " + outOf(left, r.voters) + " voters, and a majority needs " +
				itoa(majority(r.voters))
			if !one.Survivable {
				one.Reason += ": " + r.obstacle(z)
			}
		}
		if !one.Survivable {
			decisive = append(decisive, z.title())
		}
		list = append(list, one)
	}
	switch {
	case r.lead == nil || r.voters == 0:
		spread = "who votes is not known"
	case len(decisive) == 0:
		spread = "the cluster survives the loss of any one zone"
	case len(decisive) == len(r.list) && len(decisive) > 1:
		spread = "the cluster does not survive the loss of any zone: " + r.obstacle(r.fullest())
	default:
		spread = "the cluster does not survive the loss of " + joined(decisive) + ": " + r.obstacle(r.fullest())
	}
	return list, spread
}

// fullest returns the zone with the most votes.
func (r *round) fullest() *zone {
	best := r.list[0]
	for _, z := range r.list {
		if z.voters > best.voters {
			best = z
		}
	}
	return best
}

// obstacle returns why a zone is decisive, and what would change that.
func (r *round) obstacle(z *zone) string {
	switch {
	case r.voters-z.voters >= majority(r.voters):
		return count(r.voters-r.healthy, "voter") + " elsewhere " + agree(r.voters-r.healthy, "is", "are") + " not healthy"
	case r.phase == phaseMove && r.behind > 0:
		return "votes move to members with " + r.newest + " first"
	case r.swap != nil:
		return "a vote moves from " + r.swap.from.title() + " to node " + utoa(r.swap.to.NodeID) + " in " +
			r.swap.to.zone.title() + " when that is stable"
	case r.votable == 1:
		return "no other zone has a member that may vote; start one in another zone"
	case r.missing > 0:
		return count(r.missing, "more voter") + " " + agree(r.missing, "is", "are") + " wanted, and no stand-by is ready"
	case r.votable == 2:
		return "of two zones one always has the majority; one member in a third zone would end that"
	}
	return "votes that an operator has given do not move; muster member drain takes one away"
}

// cost returns what the zone of a member loses when the member is drained or removed; empty when another member there
// may vote.
func (r *round) cost(m *member) string {
	z := m.zone
	if z == nil || !m.full() || len(r.list) < 2 {
		return ""
	}
	others := z.eligible
	if m.candidate() {
		others--
	}
	if others > 0 {
		return ""
	}
	left := r.votable
	if z.eligible > 0 {
		left--
	}
	text := "no other member of " + z.title() + " may vote: "
	switch left {
	case 0:
		return text + "nor may one of another zone"
	case 1:
		return text + "all votes will be in one zone, and the cluster does not survive its loss"
	case 2:
		return text + "votes will be in two zones, of which one always has the majority"
	}
	return text + "votes will be in " + itoa(left) + " zones"
}

func agree(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// joined lists at most five names as a sentence does.
func joined(names []string) string {
	const most = 5
	if len(names) > most {
		return strings.Join(names[:most], ", ") + " and " + itoa(len(names)-most) + " more"
	}
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}
