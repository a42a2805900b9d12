package autopilot

import (
	"testing"
)

// checkRest holds a cluster in which nothing has happened for long against
// what it should have become.
func (s *sim) checkRest() {
	eligible, full, standBys, goods, bads, loose := 0, 0, 0, 0, 0, 0
	pinnedOut := 0
	for _, n := range s.nodes {
		fit := n.works() && n.Member && n.Mode == ModeFull && n.DrainState == DrainActive
		if fit {
			eligible++
		}
		switch {
		case n.Role == RoleVoter && n.Member && n.Mode == ModeFull && n.works() && n.DrainState != DrainDrained:
			goods++
			if !n.Pinned {
				loose++
			}
		case n.Role == RoleVoter:
			bads++
			if all, up := s.voters(); n.Mode == ModeReplicate && n.NodeID != s.leader && n.works() && up-1 >= majority(all-1) {
				s.Fatalf("replicate-only node %d still votes", n.NodeID)
			}
		case fit && n.Role == RoleOutside:
			full++
			if n.Pinned {
				pinnedOut++
			}
		case fit && n.Role == RoleStandBy:
			standBys++
			if n.Pinned {
				pinnedOut++
			}
		}
	}
	want := min(eligible, TargetVoters(eligible, s.most()))
	switch {
	case goods < want:
		s.Fatalf("%d good voters, %d eligible, want %d", goods, eligible, want)
	case loose > s.cfg.MaxVoters:
		s.Fatalf("%d voters, at most %d", loose, s.cfg.MaxVoters)
	case bads > 0 && (goods+bads)%2 == 1 && standBys > 0 && goods < s.most():
		s.Fatalf("%d bad voters and %d stand-bys", bads, standBys)
	case full > 0 && standBys < s.cfg.StandBys:
		s.Fatalf("%d of %d stand-bys while %d are outside", standBys, s.cfg.StandBys, full)
	case pinnedOut > 0:
		s.Fatalf("%d pinned members do not vote", pinnedOut)
	}
}

// most is how many voters there may be.
func (s *sim) most() int {
	zones := map[string]bool{}
	for _, n := range s.nodes {
		if n.Member && n.Mode == ModeFull {
			zones[n.Zone] = true
		}
	}
	if s.zones == 0 || !s.cfg.RedundancyZones {
		return s.cfg.MaxVoters
	}
	return min(s.cfg.MaxVoters, max(3, oddFloor(len(zones))))
}

// checkZones: where all are well, their votes are spread.
func (s *sim) checkZones() {
	var all []Observation
	for _, n := range s.nodes {
		if !n.Member || n.Mode != ModeFull {
			continue
		}
		if n.Pinned || !n.works() || n.DrainState != DrainActive {
			return
		}
		all = append(all, n.Observation)
	}
	st, _ := Decide(s.input(), s.cfg, s.now)
	if s.zones > 0 && len(all) > 0 {
		checkSpread(s, all, s.cfg, st)
	}
}

func TestSimulatedCluster(t *testing.T) {
	seeds := 200
	if testing.Short() {
		seeds = 40
	}
	for seed := range uint64(seeds) {
		s := newSim(t, seed)
		for phase := range 6 {
			for range 60 {
				// Busy seconds, quiet ones.
				if s.rnd.IntN(1+3*phase) == 0 {
					s.event()
				}
				s.second()
			}
			for range 60 {
				s.second()
			}
			before := s.changes
			for range 60 {
				s.second()
			}
			if s.changes != before {
				s.Fatalf("seed %d: still changing things long after the last event", seed)
			}
			if s.leader != 0 {
				if all, up := s.voters(); up >= majority(all) {
					s.checkRest()
					s.checkZones()
				}
			}
			for _, n := range s.nodes {
				if n.Role == RoleVoter && !n.works() && s.rnd.IntN(2) == 0 {
					n.up, n.CannotStore = true, ""
					s.happened()
					s.say("node %d up", n.NodeID)
				}
			}
		}
		if s.changes > 8*s.events+20 {
			s.Fatalf("seed %d: %d changes for %d events", seed, s.changes, s.events)
		}
		if testing.Verbose() && seed < 3 {
			t.Logf("seed %d: %d events, %d changes, %d nodes", seed, s.events, s.changes, len(s.nodes))
		}
	}
}

// A machine that comes and goes every few seconds gets its place taken once
// and then moves nothing any more.
func TestBlinkingNode(t *testing.T) {
	for _, period := range []int{3, 4, 7, 9} {
		s := newSim(t, 1)
		s.cfg.MaxVoters, s.cfg.StandBys = 5, 1
		for range 4 {
			s.join(RoleOutside).Mode = ModeFull
		}
		for range 60 {
			s.second()
		}
		if all, _ := s.voters(); all != 5 {
			t.Fatalf("%d voters", all)
		}
		extra := s.join(RoleOutside)
		extra.Mode = ModeFull
		for range 60 {
			s.second()
		}
		before := s.changes
		for i := range 300 {
			if i%period == 0 {
				s.happened()
			}
			s.at(3).up = i/period%2 == 1
			s.second()
		}
		if d := s.changes - before; d > 4 {
			s.Fatalf("period %d s: %d changes", period, d)
		}
		if s.at(3).Role == RoleVoter {
			t.Errorf("period %d s: the blinking node votes", period)
		}
	}
}
