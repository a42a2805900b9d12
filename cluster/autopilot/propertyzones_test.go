package autopilot

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// genZoned is a cluster in which every member is well and nobody is pinned.
func genZoned(t *rapid.T) Input {
	in := Input{LeaderRevision: 5000, LeaderSince: t0.Add(-time.Hour), LeaderID: 1, Previous: map[uint64]Health{}}
	zones := rapid.IntRange(1, 5).Draw(t, "zones")
	voters := rapid.SampledFrom([]int{1, 3, 3, 5}).Draw(t, "voters")
	for i := range rapid.IntRange(voters, 16).Draw(t, "n") {
		o := Observation{
			NodeID:      uint64(i + 1),
			Member:      true,
			Mode:        ModeFull,
			DrainState:  DrainActive,
			Revision:    5000,
			LastContact: t0,
		}
		o.Zone = string(rune('a' + rapid.IntRange(0, zones-1).Draw(t, "zone")))
		switch {
		case i < voters:
			o.Role = RoleVoter
		case rapid.Bool().Draw(t, "stand-by"):
			o.Role = RoleStandBy
		}
		in.Members = append(in.Members, o)
		in.Previous[o.NodeID] = Health{Healthy: true, StableSince: t0.Add(-time.Hour)}
	}
	return in
}

// When all are well, the votes end up spread as evenly as the zones' members allow: no zone has two votes more than
// another that could take one. The state says so, and agrees with what the loss of the zone does.
func TestPropertySpread(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in, cfg := genZoned(t), genConfig(t)
		var s State
		for round := 0; ; round++ {
			var p Plan
			s, p = Decide(in, cfg, t0)
			checkPlan(t, in, cfg, t0, s, p)
			if len(p) == 0 {
				break
			}
			if round > 60 {
				t.Fatalf("no rest: %+v", p)
			}
			in.Previous = Carry(s)
			in = apply(in, p)
		}
		checkSpread(t, in.Members, cfg, s)
	})
}

// checkSpread holds a cluster at rest, in which all are well, against what zones promise.
func checkSpread(t fataler, members []Observation, cfg Config, s State) {
	votes, others, zones := map[string]int{}, map[string]int{}, map[string]bool{}
	for _, o := range members {
		zones[o.Zone] = true
		if o.Role == RoleVoter {
			votes[o.Zone]++
		} else {
			others[o.Zone]++
		}
	}
	for z, n := range votes {
		for other := range others {
			if n >= votes[other]+2 {
				t.Fatalf("zone %s has %d votes, zone %s has %d and a member for another: %v", z, n, other, votes[other], members)
			}
		}
	}
	if cfg.RedundancyZones && len(s.Voters) > min(cfg.MaxVoters, max(3, oddFloor(len(zones)))) {
		t.Fatalf("%d voters in %d zones", len(s.Voters), len(zones))
	}
	for _, z := range s.Zones {
		if left := len(s.Voters) - votes[z.Name]; z.Survivable != (left >= majority(len(s.Voters))) ||
			z.Voters != votes[z.Name] {
			t.Fatalf("zone %+v: %d of %d voters are elsewhere", z, left, len(s.Voters))
		}
		if !z.Survivable && len(zones) > 2 && len(s.Voters) > 1 && z.Voters <= len(s.Voters)/2 {
			t.Fatalf("zone %+v is decisive among %d zones", z, len(zones))
		}
	}
}
