package autopilot

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func genConfig(t *rapid.T) Config {
	c := testConfig()
	c.MaxVoters = rapid.SampledFrom([]int{3, 5, 7}).Draw(t, "maxVoters")
	c.StandBys = rapid.IntRange(0, 3).Draw(t, "standBys")
	c.CleanupDeadMembers = rapid.Bool().Draw(t, "cleanup")
	c.DeadAfter = Duration(time.Minute)
	c.MinQuorum = rapid.IntRange(1, 3).Draw(t, "minQuorum")
	c.UpgradeMigration = rapid.Bool().Draw(t, "upgradeMigration")
	c.RedundancyZones = rapid.IntRange(0, 3).Draw(t, "redundancyZones") == 0
	return c
}

func genInput(t *rapid.T) Input {
	in := Input{LeaderRevision: 5000, Previous: map[uint64]Health{}}
	in.LeaderSince = t0.Add(-rapid.SampledFrom([]time.Duration{time.Second, 5 * time.Second, time.Hour}).Draw(t,
		"leaderAge"))
	often := func(usual string, other ...string) *rapid.Generator[string] {
		return rapid.SampledFrom(append(slices.Repeat([]string{usual}, 3*len(other)), other...))
	}
	n := rapid.IntRange(1, 14).Draw(t, "n")
	zones := rapid.SampledFrom([][]string{{""}, {"", "a"}, {"a", "b"}, {"a", "b", "c"}, {"a", "b", "c", "d", ""}}).Draw(t,
		"zones")
	for i := range n {
		o := Observation{NodeID: uint64(i + 1), Name: fmt.Sprint("n", i+1)}
		o.Member = rapid.IntRange(0, 9).Draw(t, "row") > 0
		o.Role = rapid.SampledFrom([]string{RoleVoter, RoleVoter, RoleVoter, RoleStandBy, RoleStandBy, RoleOutside,
			RoleSpare}).Draw(t, "role")
		if o.Member {
			o.Mode = often(ModeFull, ModeReplicate).Draw(t, "mode")
			o.DrainState = often(DrainActive, DrainDraining, DrainDrained).Draw(t, "drain")
			o.Pinned = rapid.IntRange(0, 6).Draw(t, "pinned") == 0
			o.Version = rapid.SampledFrom([]string{"v1.0", "v1.0", "v1.1", "v1.10", ""}).Draw(t, "version")
			o.Zone = rapid.SampledFrom(zones).Draw(t, "zone")
			o.DiskLow = rapid.IntRange(0, 6).Draw(t, "diskLow") == 0
			if rapid.IntRange(0, 6).Draw(t, "cannotStore") == 0 {
				o.CannotStore = "its disk does not answer"
			}
			o.Stalled = Duration(rapid.SampledFrom([]time.Duration{0, 0, 0, time.Second, 20 * time.Second,
				21 * time.Second}).Draw(t, "stalled"))
		}
		o.Revision = rapid.SampledFrom([]uint64{5000, 5000, 4999, 4500, 3000, 0}).Draw(t, "revision")
		silence := rapid.SampledFrom([]time.Duration{0, 300 * time.Millisecond, time.Second, 1500 * time.Millisecond,
			2500 * time.Millisecond, 20 * time.Second, 3 * time.Minute, -1}).Draw(t, "silence")
		if silence >= 0 {
			o.LastContact = t0.Add(-silence)
		}
		if rapid.IntRange(0, 4).Draw(t, "rare") == 0 && o.Role == RoleOutside {
			o.ProbeInterval = Duration(30 * time.Second)
		}
		if rapid.IntRange(0, 5).Draw(t, "known") > 0 {
			in.Previous[o.NodeID] = Health{
				Healthy: rapid.Bool().Draw(t, "healthy"),
				StableSince: t0.Add(-rapid.SampledFrom([]time.Duration{time.Second, 9 * time.Second, 10 * time.Second,
					time.Minute}).Draw(t, "stable")),
				Recovering: rapid.IntRange(0, 3).Draw(t, "recovering") == 0,
			}
		}
		in.Members = append(in.Members, o)
	}
	in.LeaderID = uint64(rapid.IntRange(0, n).Draw(t, "leader"))
	return in
}

type fataler interface {
	Fatalf(string, ...any)
}

// stores reports whether a member stores, as far as an observation says.
func stores(in Input, cfg Config, o Observation) bool {
	replicates := o.Role == RoleVoter || o.Role == RoleStandBy
	return o.CannotStore == "" && (isLeader(&in, &o) || !replicates || o.Stalled <= cfg.MaxLagTime)
}

// checkPlan holds a plan against every rule that must hold whatever happens.
// health tells who is healthy by the state the plan came with.
func checkPlan(t fataler, in Input, cfg Config, now time.Time, s State, p Plan) {
	if len(p) == 0 {
		return
	}
	seen := map[uint64]bool{}
	by := map[uint64]Observation{}
	voters := tally{}
	goods, pins, bads := 0, 0, 0
	srv := map[uint64]Server{}
	for _, v := range s.Servers {
		srv[v.NodeID] = v
	}
	for _, o := range in.Members {
		by[o.NodeID] = o
		if o.Role != RoleVoter {
			continue
		}
		voters.voters++
		if srv[o.NodeID].Healthy {
			voters.healthy++
		}
		switch {
		case o.Member && o.Mode == ModeFull && o.DrainState != DrainDrained && !o.DiskLow && stores(in, cfg, o) &&
			srv[o.NodeID].NodeStatus == StatusAlive:
			goods++
			if o.Pinned {
				pins++
			}
		default:
			bads++
		}
	}
	had := voters.healthy >= majority(voters.voters)
	moving := 0
	if len(s.Zones) > 0 || cfg.UpgradeMigration {
		moving = 1
	}
	for _, c := range p {
		o, v := by[c.NodeID], srv[c.NodeID]
		switch {
		case c.Kind != p[0].Kind:
			t.Fatalf("two kinds: %+v", p)
		case seen[c.NodeID]:
			t.Fatalf("node %d twice: %+v", c.NodeID, p)
		case c.NodeID == 0 || o.NodeID == 0:
			t.Fatalf("unknown node: %+v", c)
		case c.Reason == "" || c.Reason != v.Reason:
			t.Fatalf("reason of plan %q, of state %q", c.Reason, v.Reason)
		case c.NodeID == in.LeaderID:
			t.Fatalf("touches the leader: %+v", c)
		}
		seen[c.NodeID] = true
		fit := o.Member && o.Mode == ModeFull && o.DrainState == DrainActive && !o.DiskLow && stores(in, cfg, o) && v.Healthy
		switch c.Kind {
		case KindPromote:
			if !fit || o.Role == RoleVoter || o.Role == RoleOutside || c.Role != RoleVoter {
				t.Fatalf("promotes %+v", o)
			}
			long := now.Sub(v.StableSince.Time) >= cfg.Stabilization.Std()
			young := now.Sub(in.LeaderSince) < cfg.Stabilization.Std()
			if v.Recovering || (!long && !young && !o.Pinned) {
				t.Fatalf("promotes an unstable node: %+v", v)
			}
			voters.voters++
			voters.healthy++
			goods++
			if o.Pinned {
				pins++
			} else if most := cfg.MaxVoters + moving; goods-pins > most { // one vote may be on its way elsewhere
				t.Fatalf("more than %d voters: %+v", cfg.MaxVoters, p)
			}
		case KindTransfer:
			if !fit || o.Role != RoleVoter || !v.Electable {
				t.Fatalf("transfers to %+v", o)
			}
			l := by[in.LeaderID]
			moves := cfg.UpgradeMigration && !l.Pinned && l.Version != "" && compareVersions(o.Version, l.Version) > 0
			if l.Member && !moves && l.Mode == ModeFull && l.DrainState != DrainDrained && !l.DiskLow && l.CannotStore == "" {
				t.Fatalf("transfers away from %+v", l)
			}
		case KindDemote:
			if o.Role != RoleVoter || c.Role != RoleStandBy {
				t.Fatalf("demotes %+v", o)
			}
			if o.Pinned && fit {
				t.Fatalf("undoes an operator's promote: %+v", c)
			}
		case KindAdd:
			if o.Role != RoleOutside || !o.Member || o.DrainState != DrainActive || o.DiskLow || o.CannotStore != "" ||
				v.NodeStatus != StatusAlive || c.Role != RoleStandBy {
				t.Fatalf("adds %+v", o)
			}
		case KindStandBy:
			if o.Role != RoleSpare || !o.Member || c.Role != RoleStandBy {
				t.Fatalf("raises %+v", o)
			}
		case KindRemove:
			if o.Role == RoleOutside || (o.Member && o.Role == RoleVoter) || c.Role != RoleOutside {
				t.Fatalf("removes %+v", o)
			}
		case KindCleanup:
			if !cfg.CleanupDeadMembers || v.NodeStatus == StatusAlive || !o.Member || voters.healthy < cfg.MinQuorum {
				t.Fatalf("cleans up %+v", o)
			}
		default:
			t.Fatalf("unknown kind %q", c.Kind)
		}
		if o.Role == RoleVoter && c.Role != RoleVoter {
			voters.voters--
			if v.Healthy {
				voters.healthy--
			}
		}
		if voters.voters < 1 {
			t.Fatalf("no voter left: %+v", p)
		}
		if left := voters.healthy >= majority(voters.voters); !left && (had || (o.Role == RoleVoter && c.Role != RoleVoter)) {
			t.Fatalf("%d healthy of %d voters after %+v of %+v", voters.healthy, voters.voters, c, p)
		}
	}
}

// From any situation the plans lead to rest, nobody gets a vote and loses it on
// the way, and a seat given is only taken back when votes that were never meant
// to stay (of orphans, replicate-only or cleaned up members) went in between.
func TestPropertySettles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in, cfg := genInput(t), genConfig(t)
		promoted, added := map[uint64]bool{}, map[uint64]bool{}
		for round := 0; ; round++ {
			s, p := Decide(in, cfg, t0)
			checkPlan(t, in, cfg, t0, s, p)
			if len(p) == 0 {
				break
			}
			if round > 3*len(in.Members)+5 {
				t.Fatalf("no fixed point, still %+v", p)
			}
			for _, c := range p {
				o := in.Members[slices.IndexFunc(in.Members, func(o Observation) bool { return o.NodeID == c.NodeID })]
				if o.Role == RoleVoter && c.Role != RoleVoter && o.Mode != ModeFull || c.Kind == KindCleanup {
					clear(added)
				}
				switch {
				case c.Kind == KindPromote:
					promoted[c.NodeID] = true
				case c.Kind == KindAdd:
					added[c.NodeID] = true
				case c.Kind == KindDemote && promoted[c.NodeID], c.Kind == KindRemove && added[c.NodeID]:
					t.Fatalf("to and fro: %+v", c)
				}
			}
			in.Previous = Carry(s)
			in = apply(in, p)
		}
	})
}

// The order of members does not matter, the input is not touched, the answer
// does not vary, JSON loses nothing that a decision needs.
func TestPropertyPure(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in, cfg := genInput(t), genConfig(t)
		before, _ := json.Marshal(in)
		s1, p1 := Decide(in, cfg, t0)
		if after, _ := json.Marshal(in); string(after) != string(before) {
			t.Fatal("input was modified")
		}
		var read Input
		if err := json.Unmarshal(before, &read); err != nil {
			t.Fatal(err)
		}
		read.Members = rapid.Permutation(read.Members).Draw(t, "order")
		s2, p2 := Decide(read, cfg, t0)
		if d := cmp.Diff(s1, s2) + cmp.Diff(p1, p2); d != "" {
			t.Fatal(d)
		}
		if !slices.IsSorted(s1.Voters) || len(s1.Servers) != len(in.Members) {
			t.Fatalf("voters %v, %d servers", s1.Voters, len(s1.Servers))
		}
		healthy, voters, electable := 0, 0, 0
		for i, v := range s1.Servers {
			if v.NodeID != uint64(i+1) || v.Reason == "" {
				t.Fatalf("server %d: %+v", i, v)
			}
			if v.HasVotingRights {
				voters++
				if v.Healthy {
					healthy++
				}
			}
			if o := in.Members[i]; v.Healthy && (o.CannotStore != "" || v.CannotStore != "") {
				t.Fatalf("healthy, though it cannot store: %+v", v)
			}
			if v.Electable {
				electable++
				if !v.HasVotingRights {
					t.Fatalf("electable without a vote: %+v", v)
				}
			}
		}
		if s1.FailureTolerance != FailureTolerance(voters, healthy) || len(s1.Voters) != voters ||
			(voters > 0 && electable == 0) {
			t.Fatalf("%d voters, %d healthy, %d electable: %+v", voters, healthy, electable, s1)
		}
		if s1.Healthy && healthy < voters {
			t.Fatal("healthy with an unhealthy voter")
		}
	})
}

// What CanRemove allows leaves a majority by the same health Decide reports.
func TestPropertyCanRemove(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in, cfg := genInput(t), genConfig(t)
		s, _ := Decide(in, cfg, t0)
		in.Previous = Carry(s)
		for _, gone := range s.Servers {
			n := tally{}
			for _, v := range s.Servers {
				if v.HasVotingRights && v.NodeID != gone.NodeID {
					n.voters++
					if v.Healthy {
						n.healthy++
					}
				}
			}
			fine := !gone.HasVotingRights || (n.voters > 0 && n.healthy >= majority(n.voters))
			if err := CanRemove(in, gone.NodeID); (err == nil) != fine {
				t.Fatalf("node %d: %v; %d of %d live without it", gone.NodeID, err, n.healthy, n.voters)
			}
		}
	})
}
