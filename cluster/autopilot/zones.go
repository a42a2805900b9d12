package autopilot

import (
	"cmp"
	"slices"
)

// zone is the state of a zone in one round.
type zone struct {
	name                                string
	members, alive, eligible, full      int
	standBys                            int
	voters, healthy, good, loose, seats int // loose: good voters whose vote autopilot may take
	enter                               []*member
}

// zoning groups the members by zone. It is empty while no member has a zone.
type zoning struct {
	list []*zone // by name; the members without a zone come last
	// full counts the zones with a member that may vote some day, votable those with one that may now.
	full, votable int
}

// swap gives one vote to a zone and then takes one from another.
type swap struct {
	to   *member
	from *zone // nil: from a voter that runs an older version
}

// zoned reports whether any member has a zone.
func (r *round) zoned() bool {
	for i := range r.ms {
		if r.ms[i].Zone != "" && r.ms[i].Member {
			return true
		}
	}
	return false
}

// place finds the zone of a member and counts it there.
func (r *round) place(m *member, by map[string]*zone) {
	if !m.Member {
		return
	}
	if m.zone = r.near(m.Zone); m.zone == nil {
		if m.zone = by[m.Zone]; m.zone == nil {
			m.zone = &zone{name: m.Zone}
			by[m.Zone] = m.zone
			r.list = append(r.list, m.zone)
		}
	}
	r.count(m)
}

// arrange sorts the zones after all members were counted.
func (z *zoning) arrange() {
	slices.SortFunc(z.list, func(a, b *zone) int {
		return cmp.Or(compareBool(a.name == "", b.name == ""), cmp.Compare(a.name, b.name))
	})
	for _, one := range z.list {
		if one.full > 0 {
			z.full++
		}
		if one.eligible > 0 {
			z.votable++
		}
	}
}

// near searches the first zones, which are all zones of most clusters. That is cheaper than a map.
func (z *zoning) near(name string) *zone {
	for _, one := range z.list[:min(len(z.list), 8)] {
		if one.name == name {
			return one
		}
	}
	return nil
}

func (r *round) count(m *member) {
	z := m.zone
	z.members++
	if m.alive {
		z.alive++
	}
	if m.candidate() {
		z.eligible++
	}
	if m.full() {
		z.full++
	}
	switch {
	case !m.voter:
		if m.inRaft {
			z.standBys++
		}
		if m.inRaft && m.full() && r.holds(m) {
			z.seats++
		}
		return
	case m.healthy:
		z.healthy++
	}
	z.voters++
	if m.good() {
		z.good++
		if !m.leader && !m.Pinned {
			z.loose++
		}
	}
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// most is the maximum number of voters: with redundancy zones one for each zone, and three with fewer zones, because
// with one or two voters any machine would be decisive.
func (z *zoning) most(cfg *Config) int {
	if !cfg.RedundancyZones || len(z.list) == 0 {
		return cfg.MaxVoters
	}
	return min(cfg.MaxVoters, max(3, oddFloor(z.full)))
}

// choose returns n of the candidates, which come best first: each time the best one in the zones with the fewest votes.
func (r *round) choose(c []*member, n int) []*member {
	n = max(0, min(n, len(c)))
	if len(r.list) == 0 {
		return c[:n]
	}
	rest, given := slices.Clone(c), map[*zone]int{}
	var chosen []*member
	for range n {
		best := 0
		for i, m := range rest {
			if m.zone.good+given[m.zone] < rest[best].zone.good+given[rest[best].zone] {
				best = i
			}
		}
		given[rest[best].zone]++
		chosen = append(chosen, rest[best])
		rest = slices.Delete(rest, best, best+1)
	}
	return chosen
}

// shed takes surplus votes of good voters away; where votes move, one more than wanted is a surplus. An older version
// goes first, then the fullest zone.
func (r *round) shed(victims []*member, drop func(*member, string) bool) {
	good := 0
	for _, m := range victims {
		if m.good() && !m.Pinned && m.why == "" {
			good++
		}
	}
	limit := r.limit()
	taken := map[*zone]int{}
	for good > limit {
		best := -1
		for i, m := range victims {
			if m.Pinned || !m.good() || m.leader || m.why != "" || r.spared(m) {
				continue
			}
			if best < 0 || m.zone != nil && m.zone.good-taken[m.zone] > victims[best].zone.good-taken[victims[best].zone] {
				best = i
			}
		}
		if best < 0 {
			return
		}
		m := victims[best]
		victims = slices.Delete(slices.Clone(victims), best, best+1)
		if !drop(m, r.tooMany(m, good, taken[m.zone])) {
			continue
		}
		taken[m.zone]++
		good--
	}
}

// tooMany returns why a good voter loses its vote.
func (r *round) tooMany(m *member, good, taken int) string {
	text := "more voters than maxVoters (" + itoa(r.cfg.MaxVoters) + ")"
	if r.phase == phaseMove && m.old {
		return "its vote moves to a member with " + r.newest + ": it runs the older " + m.Version
	}
	if r.most < r.cfg.MaxVoters {
		text = "redundancyZones: " + count(r.most, "voter") + " are enough for " + count(r.full, "zone")
	}
	if m.zone == nil || good > r.most+1 {
		return text
	}
	return "one voter too many: " + m.zone.title() + " has " + count(m.zone.good-taken, "vote")
}

// entrants are the members that may take a stand-by seat, in the order of their ids.
type entrants struct {
	zones []*zone   // with entrants
	any   []*member // while no member has a zone
}

// offer adds a member; more than most of one zone are never needed.
func (e *entrants) offer(m *member, most int) {
	switch {
	case m.zone == nil && len(e.any) < most:
		e.any = append(e.any, m)
	case m.zone != nil && len(m.zone.enter) < max(1, most):
		if len(m.zone.enter) == 0 {
			e.zones = append(e.zones, m.zone)
		}
		m.zone.enter = append(m.zone.enter, m)
	}
}

// take returns at most n of them, each time the first of the zone with the fewest stand-bys.
func (e *entrants) take(n int) (list []*member) {
	if n = max(0, n); e.zones == nil {
		return e.any[:min(n, len(e.any))]
	}
	for len(list) < n {
		z := e.emptiest()
		if z == nil {
			break
		}
		list = append(list, z.enter[0])
		z.enter = z.enter[1:]
		z.seats++
	}
	return list
}

func (e *entrants) emptiest() (best *zone) {
	for _, z := range e.zones {
		if len(z.enter) > 0 && (best == nil || cmp.Or(cmp.Compare(z.seats, best.seats), cmp.Compare(z.good, best.good)) < 0) {
			best = z
		}
	}
	return best
}

// fairer returns a member that takes a seat from another zone, which has two stand-bys more than its own.
func (e *entrants) fairer(seated []*member) []*member {
	z := e.emptiest()
	if z == nil || !slices.ContainsFunc(seated, func(m *member) bool {
		return m.zone != nil && m.zone.seats >= z.seats+2
	}) {
		return nil
	}
	return []*member{z.enter[0]}
}

// crowd counts the stand-bys in the zone of a member, without those that leave.
func (m *member) crowd(leaving map[*zone]int) int {
	if m.zone == nil {
		return 0
	}
	return m.zone.seats - leaving[m.zone]
}

// imbalance finds a vote to move from the zone with the most votes to the one with the fewest that has a candidate, if
// they differ by two or more. So no zone keeps a majority while another has a candidate, unless only two zones have
// any.
func (r *round) imbalance() *swap {
	if len(r.list) < 2 || r.phase != phaseNone || r.bads > 0 || r.missing > 0 || r.lead == nil {
		return nil
	}
	loose := 0
	var from *zone
	for _, z := range r.list {
		loose += z.loose
		if z.loose > 0 && (from == nil || z.good > from.good) {
			from = z
		}
	}
	if !r.lead.Pinned && r.lead.good() {
		loose++
	}
	// The surplus vote must be taken away afterwards, and autopilot does that only then.
	if from == nil || loose != r.want {
		return nil
	}
	if !slices.ContainsFunc(r.list, func(z *zone) bool { return z.good+2 <= from.good && z.eligible > 0 }) {
		return nil
	}
	var to *member
	for i := range r.ms {
		m := &r.ms[i]
		if m.zone == nil || m.voter || m.zone.good+2 > from.good || !m.candidate() || !m.inRaft && !r.enterable(m) {
			continue
		}
		if to == nil || r.sooner(m, to) < 0 {
			to = m
		}
	}
	if to == nil {
		return nil
	}
	return &swap{to: to, from: from}
}

// sooner orders members by how soon they should get a vote.
func (r *round) sooner(a, b *member) int {
	fuller := 0
	if a.zone != nil && b.zone != nil {
		fuller = cmp.Compare(a.zone.good, b.zone.good)
	}
	return cmp.Or(fuller, compareBool(!a.inRaft, !b.inRaft),
		compareBool(a.Role == RoleSpare, b.Role == RoleSpare), byPromise(a, b))
}

// balance gives the vote that moves; demote takes the other one afterwards. It is not urgent, so it waits for the full
// stabilization time even under a young leader.
func (r *round) balance() Plan {
	if r.swap == nil {
		return nil
	}
	m := r.swap.to
	if m.Role != RoleStandBy || !m.healthy || r.now.Sub(m.stableSince) < r.cfg.Stabilization.Std() {
		return nil
	}
	if r.swap.from == nil {
		return Plan{change(KindPromote, m, RoleVoter, "a vote moves to the newer "+r.newest+": "+outOf(r.fresh, r.behind)+
			" members run it")}
	}
	return Plan{change(KindPromote, m, RoleVoter, "a vote moves to "+m.zone.title()+", which has "+
		itoa(m.zone.good)+"; "+r.swap.from.title()+" has "+itoa(r.swap.from.good))}
}

func (z *zone) title() string {
	if z.name == "" {
		return "no zone"
	}
	return "zone " + z.name
}
