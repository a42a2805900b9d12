package autopilot

import (
	"cmp"
	"slices"
)

// seating describes who besides the voters is in the Raft configuration. There are StandBys seats and one more for each
// missing voter; pinned members need none. A member loses its seat only after another one has taken it: first add, then
// evict.
type seating struct {
	seats, taken      int
	raise, evict, add []*member
	// wanted seats that no member can take now.
	wanted int
}

// holds: its seat counts as taken. A silent stand-by keeps its seat for a stabilization time, so that a restart moves
// no seat.
func (r *round) holds(m *member) bool {
	if !m.active() {
		return false
	}
	return !m.dead || m.silence < r.cfg.LastContactThreshold.Std()+r.cfg.Stabilization.Std()
}

// enterable: it may be added now. Its last answer is so recent that it will not count as silent as soon as it is in
// Raft and probed every second.
func (r *round) enterable(m *member) bool {
	return !m.inRaft && m.Member && m.active() && m.alive && !m.recovering &&
		m.silence <= r.cfg.LastContactThreshold.Std()
}

// taken are the seats that are held now.
type taken struct {
	pending  int // pinned stand-bys that will vote
	holders  int // full members, including one that moves
	replicas int // replicate-only members
	moving   int // 1 while a vote moves to a stand-by
}

// takenSeats counts the seats that are held, and lists the stand-bys that may have to give theirs up.
func (r *round) takenSeats() (t taken, others []*member) {
	for _, m := range r.seated {
		switch {
		case m.Pinned && m.candidate():
			t.pending++
			continue
		case r.swap != nil && m == r.swap.to: // its seat is safe until it votes
			t.holders++
			t.moving++
			continue
		case !r.holds(m):
		case m.full():
			t.holders++
		default:
			t.replicas++
		}
		others = append(others, m)
	}
	for _, m := range r.voting {
		if m.Member && !m.full() && r.holds(m) { // soon demoted to a seat
			t.replicas++
		}
	}
	return t, others
}

// seat fills the seats: it says who enters the Raft configuration, who leaves it and which spare becomes a stand-by.
func (r *round) seat() seating {
	var s seating
	var pinned, repl []*member
	t, others := r.takenSeats()
	var full entrants
	most := r.cfg.StandBys + r.missing
	for i := range r.ms {
		m := &r.ms[i]
		switch {
		case !r.enterable(m):
		case m.full() && m.Pinned:
			pinned = append(pinned, m)
		case r.swap != nil && m == r.swap.to:
			s.add = append(s.add, m)
			t.holders++
		case m.full():
			full.offer(m, most)
		case len(repl) < most:
			repl = append(repl, m)
		}
	}

	missing := max(0, r.missing-t.pending-len(pinned))
	s.seats = r.cfg.StandBys + missing
	s.add = append(s.add, pinned...)
	entering := full.take(s.seats - t.holders)
	t.holders += len(entering)
	s.wanted = max(0, s.seats-t.holders)
	// Replicate-only members never replace a missing voter.
	repl = repl[:max(0, min(r.cfg.StandBys-max(0, t.holders-missing)-t.replicas, len(repl)))]
	s.add = append(append(s.add, entering...), repl...)
	t.replicas += len(repl)
	s.taken = min(s.seats, t.holders+t.replicas)
	if len(s.add) == 0 && s.seats > 1 {
		s.add = full.fairer(r.seated)
	}
	for _, m := range s.add {
		m.due = true
	}
	s.evict, others = r.leaving(others, max(0, s.seats-t.moving))
	for _, m := range others {
		if m.Role == RoleSpare && m.alive && m.active() {
			s.raise = append(s.raise, m)
		}
	}
	return s
}

// leaving splits the stand-bys into those that must leave, because there are fewer seats, and the others.
func (r *round) leaving(list []*member, seats int) (gone, stay []*member) {
	over := max(0, len(list)-seats)
	taken := map[*zone]int{}
	for range over {
		worst := slices.MinFunc(list, func(a, b *member) int {
			return cmp.Or(cmp.Compare(r.seatWorth(a), r.seatWorth(b)), cmp.Compare(b.crowd(taken), a.crowd(taken)),
				compareBool(!a.old, !b.old), compareBool(a.healthy, b.healthy), cmp.Compare(b.NodeID, a.NodeID))
		})
		taken[worst.zone]++
		gone = append(gone, worst)
		list = slices.DeleteFunc(slices.Clone(list), func(m *member) bool { return m == worst })
	}
	return gone, list
}

// seatWorth orders stand-bys for eviction, lowest first.
func (r *round) seatWorth(m *member) int {
	switch {
	case !r.holds(m) && m.dead:
		return 0
	case !r.holds(m):
		return 1
	case m.dead:
		return 2
	case !m.full():
		return 3
	case m.Role == RoleSpare:
		return 4
	}
	return 5
}

func (r *round) add() Plan {
	var p Plan
	for _, m := range r.seating.add {
		why := "stand-by seat is free"
		switch {
		case m.full() && m.Pinned:
			why = "promoted by an operator: enters as stand-by first"
		case !m.full():
			why = "replicate-only: takes a stand-by seat that no full member needs, never votes"
		case r.missing > 0:
			why = "enters as stand-by, then voter: " + count(r.goods, "voter") + " of " + itoa(r.want)
		}
		p = append(p, change(KindAdd, m, RoleStandBy, why))
	}
	return p
}

func (r *round) standBy() Plan {
	var p Plan
	for _, m := range r.seating.raise {
		p = append(p, change(KindStandBy, m, RoleStandBy, "spare until now: stand-by seat is free"))
	}
	return p
}

func (r *round) evict() Plan {
	var p Plan
	for _, m := range r.seating.evict {
		why := "leaves Raft: " + r.enough()
		switch {
		case m.dead:
			why = "silent for " + brief(m.silence) + ": another stand-by has its seat"
		case !m.active():
			why = m.idle() + ": another stand-by has its seat"
		}
		p = append(p, change(KindRemove, m, RoleOutside, why))
	}
	return p
}
