package autopilot

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTargetVoters(t *testing.T) {
	for _, c := range []struct{ eligible, max, want int }{
		{-1, 5, 1}, {0, 5, 1}, {1, 5, 1}, {2, 5, 1}, {3, 5, 3}, {4, 5, 3}, {5, 5, 5}, {6, 5, 5}, {7, 5, 5}, {9000, 5, 5},
		{2, 3, 1}, {3, 3, 3}, {4, 3, 3}, {6, 7, 5}, {7, 7, 7}, {8, 7, 7}, {5, 4, 3}, {5, 0, 1},
	} {
		if got := TargetVoters(c.eligible, c.max); got != c.want {
			t.Errorf("TargetVoters(%d, %d) = %d, want %d", c.eligible, c.max, got, c.want)
		}
	}
}

func TestFailureTolerance(t *testing.T) {
	for _, c := range []struct{ voters, healthy, want int }{
		{0, 0, 0}, {1, 1, 0}, {2, 2, 0}, {3, 3, 1}, {3, 2, 0}, {3, 1, 0}, {4, 4, 1}, {5, 5, 2}, {5, 4, 1}, {5, 2, 0}, {7, 7, 3},
	} {
		if got := FailureTolerance(c.voters, c.healthy); got != c.want {
			t.Errorf("FailureTolerance(%d, %d) = %d, want %d", c.voters, c.healthy, got, c.want)
		}
	}
}

// TestSettle gives a situation and the rounds of changes that follow from it
// while time stands still; stand-bys do not become stable meanwhile.
func TestSettle(t *testing.T) {
	max3 := func(c *Config) { c.MaxVoters = 3 }
	max7 := func(c *Config) { c.MaxVoters = 7 }
	zoned := func(c *Config) { c.RedundancyZones = true }
	noStandBys := func(c *Config) { c.StandBys = 0 }
	cleanup := func(c *Config) { c.CleanupDeadMembers = true; c.DeadAfter = Duration(time.Minute) }
	cleanupMin3 := func(c *Config) { cleanup(c); c.MinQuorum = 3 }
	for _, c := range []struct {
		name string
		in   Input
		cfg  func(*Config)
		want string // rounds, separated by "; "
	}{
		{"founder alone", cluster("1 V"), nil, ""},
		{"second member replicates only", cluster("1 V", "2 -"), nil, "add 2"},
		{"two and three together", cluster("1 V", "2 S", "3 -"), nil, "add 3; promote 2 3"},
		{"never answered stays outside", cluster("1 V", "2 S", "3 - never"), nil, ""},
		{"second waits for the third to be stable", cluster("1 V", "2 S", "3 S fresh"), nil, ""},
		{"four stay three", cluster("1 V", "2 V", "3 V", "4 -"), nil, "add 4"},
		{"five from three", cluster("1 V", "2 V", "3 V", "4 S", "5 -"), nil, "add 5; promote 4 5"},
		{"seven and more", cluster("1 V", "2 -", "3 -", "4 -", "5 -", "6 -", "7 -", "8 -"), nil, "add 2 3 4 5 6 7; promote 2 3 4 5"},
		{"max 7", cluster("1 V", "2 -", "3 -", "4 -", "5 -", "6 -", "7 -", "8 -"), max7, "add 2 3 4 5 6 7 8; promote 2 3 4 5 6 7"},
		{"longer stable goes first", cluster("1 V", "2 V", "3 V silent", "4 S fresh", "5 S"), max3, "promote 5; demote 3"},

		{"silent voter, nobody there", cluster("1 V", "2 V", "3 V silent"), nil, ""},
		{"silent voter, replaced", cluster("1 V", "2 V", "3 V silent", "4 S"), nil, "promote 4; demote 3"},
		{"silent voter, unstable stand-by", cluster("1 V", "2 V", "3 V silent", "4 S fresh"), nil, ""},
		{"silent voter, stand-by from outside", cluster("1 V", "2 V", "3 V silent", "4 -"), nil, "add 4; promote 4; demote 3"},
		{"two silent of five, one stand-by", cluster("1 V", "2 V", "3 V", "4 V silent", "5 V silent", "6 S"), nil, "promote 6; demote 5"},
		{"two silent of five, two stand-bys", cluster("1 V", "2 V", "3 V", "4 V silent", "5 V silent", "6 S", "7 S"), max7, "promote 6; demote 5; promote 7; demote 4"},
		{"replaced before the rest grows", cluster("1 V", "2 V", "3 V silent", "4 S", "5 S", "6 S"), nil, "promote 4; demote 3; promote 5 6"},
		{"returned voter becomes stand-by", cluster("1 V", "2 V", "3 S back", "4 V"), nil, ""},
		{"no majority answers", cluster("1 V", "2 V silent", "3 V silent", "4 S"), nil, ""},
		{"lagging voter keeps its place", cluster("1 V", "2 V", "3 V lag", "4 S"), nil, ""},
		{"silent and lagging", cluster("1 V", "2 V lag", "3 V silent", "4 S"), nil, "promote 4; demote 3"},
		{"never answered this leader", cluster("1 V", "2 V", "3 V never", "4 S"), nil, "promote 4; demote 3"},

		{"two stay two", cluster("1 V", "2 V"), nil, ""},
		{"two filled up", cluster("1 V", "2 V", "3 S"), nil, "promote 3"},
		{"four voters stay four", cluster("1 V", "2 V", "3 V", "4 V"), nil, ""},
		{"even with one silent", cluster("1 V", "2 V", "3 V", "4 V silent"), nil, "demote 4"},

		{"drained keeps its vote", cluster("1 V", "2 V", "3 V drained"), nil, ""},
		{"draining is not replaced yet", cluster("1 V", "2 V", "3 V draining", "4 S"), nil, ""},
		{"drained is replaced", cluster("1 V", "2 V", "3 V drained", "4 S"), nil, "promote 4; demote 3"},
		{"drained leader", cluster("1 V drained", "2 V", "3 V", "4 S"), nil, "promote 4; transfer 2; demote 1"},
		{"drained leader, no stand-by", cluster("1 V drained", "2 V", "3 V"), nil, "transfer 2"},
		{"drained leader, all drained", cluster("1 V drained", "2 V drained", "3 V drained"), nil, ""},
		{"drained only voter", cluster("1 V drained", "2 S"), nil, "promote 2; transfer 2; demote 1"},
		{"drained leader that nobody can follow yet", cluster("1 V drained", "2 V lag", "3 S", "4 S", "5 S", "6 S"), nil,
			"promote 3; promote 4; transfer 3; demote 1; promote 5 6"},
		{"drained stand-by gives its seat", cluster("1 V", "2 V", "3 V", "4 S drained", "5 S", "6 -"), max3, "add 6; remove 4"},
		{"drained member not added", cluster("1 V", "2 - drained", "3 - draining"), nil, ""},

		{"replicate-only voter, nobody there", cluster("1 V", "2 V", "3 V replicate"), nil, "demote 3"},
		{"replicate-only voter, replaced", cluster("1 V", "2 V", "3 V replicate", "4 S"), nil, "promote 4; demote 3"},
		{"replicate-only leader", cluster("1 V replicate", "2 V", "3 V"), nil, "transfer 2; demote 1"},
		{"replicate-only voter, majority needs it until a stand-by votes", cluster("1 V", "2 V silent", "3 V replicate", "4 S"), nil, "promote 4; demote 3"},
		{"replicate-only leader, one draining, one silent", cluster("1 V replicate", "2 V silent", "3 V draining", "4 S"), nil, "promote 4; transfer 4; demote 1"},
		{"replicate-only voter, majority needs it", cluster("1 V", "2 V silent", "3 V replicate"), nil, ""},
		{"replicas fill what full members leave", cluster("1 V", "2 - replicate", "3 - replicate", "4 - replicate"), nil, "add 2 3"},
		{"full members go before replicas", cluster("1 V", "2 S replicate", "3 S replicate", "4 -"), nil, "add 4; remove 3"},
		{"a dead voter takes no seat from a living replica", cluster("1 V", "2 V", "3 V", "4 V hushed", "5 S replicate"), func(c *Config) { c.StandBys = 1 }, "demote 4; remove 4"},
		{"replica with a vote will need a seat", cluster("1 V", "2 V silent", "3 V replicate", "4 - replicate"), func(c *Config) { c.StandBys = 1 }, ""},
		{"replicate-only is never promoted", cluster("1 V", "2 S replicate pinned", "3 S replicate", "4 S replicate"), nil, "remove 4"},

		{"max voters shrinks", cluster("1 V", "2 V", "3 V", "4 V", "5 V"), max3, "demote 5 4"},
		{"shrink spares the leader", func() Input {
			in := cluster("1 V", "2 V", "3 V", "4 V", "5 V")
			in.LeaderID = 5
			return in
		}(), max3, "demote 4 3"},
		{"shrink takes the silent first", cluster("1 V", "2 V silent", "3 V", "4 V", "5 V"), max3, "demote 2 5"},
		{"shrink spares the pinned", cluster("1 V", "2 V", "3 V", "4 V pinned", "5 V pinned"), max3, ""},

		{"shrink counts without the pinned", cluster("1 V", "2 V", "3 V", "4 V", "5 V pinned"), max3, "demote 4"},

		{"pinned beyond the target", cluster("1 V", "2 V", "3 V", "4 S pinned"), max3, "promote 4"},
		{"pinned and unstable", cluster("1 V", "2 S pinned fresh"), nil, "promote 2"},
		{"pinned and back from silence", cluster("1 V", "2 S pinned back"), nil, ""},
		{"pinned spare", cluster("1 V", "2 P pinned"), nil, "promote 2"},
		{"pinned from outside", cluster("1 V", "2 V", "3 V", "4 S", "5 S", "6 - pinned"), max3, "add 6; promote 6"},
		{"pinned catches up, nobody loses a seat", cluster("1 V", "2 V", "3 V", "4 S", "5 S", "6 S pinned lag"), max3, ""},
		{"pinned takes a missing place", cluster("1 V", "2 S pinned lag", "3 -", "4 -"), noStandBys, "add 3"},
		{"pinned is not undone", cluster("1 V", "2 V", "3 V", "4 V pinned", "5 S", "6 S"), max3, ""},

		{"orphan stand-by", cluster("1 V", "2 V", "3 V", "4 S orphan"), nil, "remove 4"},
		{"orphan voter", cluster("1 V", "2 V", "3 V orphan"), nil, "remove 3"},
		{"orphan voter replaced first", cluster("1 V", "2 V", "3 V orphan", "4 S"), nil, "promote 4; remove 3"},
		{"orphan the majority needs", cluster("1 V", "2 V silent", "3 V orphan"), nil, ""},
		{"orphans are not refilled", cluster("1 V", "2 V", "3 V", "4 V orphan", "5 V orphan", "6 S"), nil, "remove 4 5"},
		{"orphan leader", cluster("1 V orphan", "2 V", "3 V"), nil, "transfer 2; remove 1"},

		{"dead stand-by without successor stays", cluster("1 V", "2 V", "3 V", "4 S silent", "5 S"), max3, ""},
		{"dead stand-by gives its seat", cluster("1 V", "2 V", "3 V", "4 S silent", "5 S", "6 -"), max3, "add 6; remove 4"},
		{"just silent stand-by keeps its seat", cluster("1 V", "2 V", "3 V", "4 S hushed", "5 S", "6 -"), max3, ""},
		{"spare is raised", cluster("1 V", "2 V", "3 V", "4 P"), nil, "standby 4"},
		{"spare beyond the seats goes", cluster("1 V", "2 V", "3 V", "4 P", "5 S", "6 S"), max3, "remove 4"},
		{"no stand-bys", cluster("1 V", "2 V", "3 V", "4 -", "5 S"), func(c *Config) { max3(c); noStandBys(c) }, "remove 5"},
		{"seats for missing voters only", cluster("1 V", "2 -", "3 -", "4 -"), noStandBys, "add 2 3; promote 2 3"},
		{"stale answer does not enter", cluster("1 V", "2 - rare", "3 - rare"), nil, ""},
		{"recovering does not enter", cluster("1 V", "2 - back"), nil, ""},

		{"full disk keeps its vote without stand-by", cluster("1 V", "2 V", "3 V full-disk"), nil, ""},
		{"full disk replaced", cluster("1 V", "2 V", "3 V full-disk", "4 S"), nil, "promote 4; demote 3"},
		{"full disk of two", cluster("1 V", "2 V full-disk"), nil, "demote 2"},
		{"full disk of the leader", cluster("1 V full-disk", "2 V", "3 V"), nil, "transfer 2"},
		{"full disk of the leader, replaced", cluster("1 V full-disk", "2 V", "3 V", "4 S"), nil, "promote 4; transfer 2; demote 1"},
		{"frozen disk keeps its vote without stand-by", cluster("1 V", "2 V", "3 V frozen"), nil, ""},
		{"frozen disk replaced", cluster("1 V", "2 V", "3 V frozen", "4 S"), nil, "promote 4; demote 3"},
		{"frozen disk replaced from outside", cluster("1 V", "2 V", "3 V frozen", "4 -"), nil, "add 4; promote 4; demote 3"},
		{"frozen disk of two", cluster("1 V", "2 V frozen"), nil, "demote 2"},
		{"frozen disk of the leader", cluster("1 V frozen", "2 V", "3 V"), nil, "transfer 2"},
		{"frozen disk of the leader, replaced", cluster("1 V frozen", "2 V", "3 V", "4 S"), nil, "transfer 2; promote 4; demote 1"},
		{"frozen disks: leadership goes to the one that stores", cluster("1 V frozen", "2 V frozen", "3 V"), nil, "transfer 3"},
		{"frozen disks everywhere", cluster("1 V frozen", "2 V frozen", "3 V frozen"), nil, ""},
		{"frozen disk gets no vote", cluster("1 V", "2 S frozen", "3 S"), nil, ""},
		{"frozen disk does not enter", cluster("1 V", "2 V", "3 V", "4 - frozen"), nil, ""},
		{"a replica that stands still is replaced", cluster("1 V", "2 V", "3 V stalled", "4 S"), nil, "promote 4; demote 3"},
		{"full disks everywhere", cluster("1 V full-disk", "2 V full-disk", "3 V full-disk"), nil, ""},
		{"full disk gets no vote", cluster("1 V", "2 S full-disk", "3 S"), nil, ""},
		{"full disk does not enter", cluster("1 V", "2 V", "3 V", "4 - full-disk"), nil, ""},

		{"zones: votes and seats are spread", cluster("1 V @a", "2 - @a", "3 - @a", "4 - @b", "5 - @b", "6 - @c"), max3,
			"add 4 6 2 5; promote 4 6"},
		{"zones: a vote moves", cluster("1 V @a", "2 V @a", "3 V @b", "4 S @c", "5 S @c"), max3, "promote 4; demote 2"},
		{"zones: the leader keeps its vote", func() Input {
			in := cluster("1 V @a", "2 V @a", "3 V @b", "4 S @c", "5 S @c")
			in.LeaderID = 2
			return in
		}(), max3, "promote 4; demote 1"},
		{"zones: nobody else is there", cluster("1 V @a", "2 V @a", "3 V @b", "4 S @a", "5 S @a"), max3, ""},
		{"zones: two stay two to one", cluster("1 V @a", "2 V @a", "3 V @b", "4 S @a", "5 S @b"), max3, ""},
		{"zones: a stable member only", cluster("1 V @a", "2 V @a", "3 V @b", "4 S @c fresh"), max3, ""},
		{"zones: three of five", cluster("1 V @a", "2 V @a", "3 V @a", "4 V @b", "5 V @c", "6 S @b", "7 S @c"), nil, "promote 6; demote 3"},
		{"zones: four of five", cluster("1 V @a", "2 V @a", "3 V @a", "4 V @a", "5 V @b", "6 S @b", "7 S @c"), nil,
			"promote 7; demote 4; promote 6; demote 3"},
		{"zones: all of one zone", cluster("1 V @a", "2 V @a", "3 V @a", "4 - @b", "5 - @c"), max3,
			"add 4 5; promote 4; demote 3; promote 5; demote 2"},
		{"zones: all of one zone, no seats", cluster("1 V @a", "2 V @a", "3 V @a", "4 - @b", "5 - @c"), func(c *Config) { max3(c); noStandBys(c) },
			"add 4; promote 4; demote 3; add 5; promote 5; demote 2; remove 3 2"},
		{"zones: a lost zone's vote goes elsewhere", cluster("1 V @a", "2 V @b", "3 V @c silent", "4 S @c silent", "5 S @b", "6 - @a"), max3,
			"promote 5; demote 3; add 6; remove 4"},
		{"zones: a dead voter's goes to its own zone", cluster("1 V @a", "2 V @b", "3 V @c silent", "4 S @b", "5 S @c"), max3, "promote 5; demote 3"},
		{"zones: back from the loss", cluster("1 V @a", "2 V @b", "3 S @c", "4 S @c", "5 V @b", "6 S @a"), max3, "promote 3; demote 5; remove 6"},
		{"zones: stand-bys are spread", cluster("1 V @a", "2 V @b", "3 V @c", "4 S @a", "5 S @a", "6 - @b"), max3, "add 6; remove 5"},
		{"zones: no zone is one, too", cluster("1 V", "2 V", "3 V @a", "4 S @b"), max3, "promote 4; demote 2"},
		{"zones: two stay two", cluster("1 V @a", "2 V @b"), max3, ""},
		{"zones: two without one stay two", cluster("1 V", "2 V", "3 - @a silent"), max3, ""},
		{"zones: pinned votes stay", cluster("1 V @a", "2 V @a pinned", "3 V @b", "4 S @c"), max3, ""},
		{"zones: an interrupted move goes on", cluster("1 V @a", "2 V @a", "3 V @b", "4 V @c"), max3, "demote 2"},
		{"zones: replicas do not count", cluster("1 V @a", "2 V @a", "3 V @b", "4 S @c replicate"), max3, ""},

		{"redundancy zones: one voter each", cluster("1 V @a", "2 V @a", "3 V @b", "4 V @b", "5 V @c", "6 S @c"), zoned, "demote 4 2; remove 6"},
		{"redundancy zones: filled up", cluster("1 V @a", "2 - @a", "3 - @b", "4 - @b", "5 - @c"), zoned, "add 3 5 2 4; promote 3 5"},
		{"redundancy zones: the stand-by of the zone", cluster("1 V @a", "2 V @b silent", "3 V @c", "4 S @a", "5 S @b"), zoned, "promote 5; demote 2"},
		{"redundancy zones: another zone's when one is lost", cluster("1 V @a", "2 V @b silent", "3 V @c", "4 S @a", "5 S @b silent"), zoned,
			"promote 4; demote 2"},
		{"redundancy zones: two zones keep three voters", cluster("1 V @a", "2 V @b", "3 V @b", "4 S @a", "5 S @b"), zoned, ""},
		{"redundancy zones: without zones nothing changes", cluster("1 V", "2 V", "3 V", "4 V", "5 V"), zoned, ""},

		{"clean-up is off", cluster("1 V", "2 V", "3 V", "4 - silent"), nil, ""},
		{"clean-up", cluster("1 V", "2 V", "3 V", "4 - silent"), cleanup, "cleanup 4"},
		{"clean-up of a voter", cluster("1 V", "2 V", "3 V silent"), cleanup, "cleanup 3"},
		{"clean-up keeps the minimum", cluster("1 V", "2 V", "3 V silent", "4 - silent"), cleanupMin3, ""},
		{"clean-up waits for replacement", cluster("1 V", "2 V", "3 V silent", "4 S"), cleanup, "promote 4; demote 3; cleanup 3"},
		{"clean-up leaves it to the stand-by on its way", cluster("1 V", "2 V", "3 V silent", "4 S fresh"), cleanup, ""},
		{"clean-up of two voters", cluster("1 V", "2 V", "3 V", "4 V silent", "5 V silent"), cleanup, "cleanup 4 5"},
		{"clean-up of what never came", cluster("1 V", "2 V", "3 V", "4 - never"), cleanup, "cleanup 4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := testConfig()
			if c.cfg != nil {
				c.cfg(&cfg)
			}
			if err := cfg.Validate(); err != nil {
				t.Fatal(err)
			}
			_, did := settle(t, c.in, cfg, t0)
			if got := strings.Join(did, "; "); got != c.want {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

func TestNewCluster(t *testing.T) {
	// During the leader's first 10 s nobody waits to be stable.
	in := cluster("1 V", "2 -", "3 -")
	in.Previous, in.LeaderSince = nil, t0.Add(-3*time.Second)
	if _, did := settle(t, in, testConfig(), t0); strings.Join(did, "; ") != "add 2 3; promote 2 3" {
		t.Errorf("young leader: %v", did)
	}
	in.LeaderSince = t0.Add(-10 * time.Second)
	if _, did := settle(t, in, testConfig(), t0); strings.Join(did, "; ") != "add 2 3" {
		t.Errorf("after 10 s: %v", did)
	}
}

func TestNewLeaderWaitsForItsFirstAnswers(t *testing.T) {
	// The stand-by answered first. The voters have 2 s before they count as dead.
	in := cluster("1 V", "2 V", "3 V never", "4 S")
	in.Previous, in.LeaderSince = nil, t0.Add(-1900*time.Millisecond)
	s, p := Decide(in, testConfig(), t0)
	if len(p) != 0 || s.Servers[2].NodeStatus != StatusUnknown || s.Servers[2].Healthy || !s.Servers[2].StableSince.IsZero() {
		t.Errorf("plan %v, server %+v", p, s.Servers[2])
	}
	in.LeaderSince = t0.Add(-2100 * time.Millisecond)
	if _, p := Decide(in, testConfig(), t0); short(t, p) != "promote 4" {
		t.Errorf("after 2.1 s: %v", p)
	}
}

func TestNewLeaderForgivesOldSilence(t *testing.T) {
	in := cluster("1 V", "2 V", "3 V silent", "4 S")
	in.LeaderSince = t0.Add(-time.Second)
	if s, p := Decide(in, testConfig(), t0); len(p) != 0 || s.Servers[2].Healthy {
		t.Errorf("plan %v, server %+v", p, s.Servers[2])
	}
}

func TestLagCountsInRaftOnly(t *testing.T) {
	in := cluster("1 V", "2 V lag", "3 S lag", "4 P lag", "5 - lag")
	s, _ := Decide(in, testConfig(), t0)
	for i, healthy := range []bool{true, false, false, true, true} {
		if v := s.Servers[i]; v.Healthy != healthy || (v.Lag == 1500) != (i > 0) {
			t.Errorf("node %d: healthy %v, lag %d", v.NodeID, v.Healthy, v.Lag)
		}
	}
}

func TestNoLeader(t *testing.T) {
	for name, in := range map[string]Input{"none": cluster("1 V", "2 S pinned"), "unknown": cluster("1 V", "2 S pinned"), "no vote": cluster("1 S", "2 V", "3 S pinned")} {
		in.LeaderID = map[string]uint64{"none": 0, "unknown": 9, "no vote": 1}[name]
		if s, p := Decide(in, testConfig(), t0); len(p) != 0 || (name != "no vote" && s.Healthy) {
			t.Errorf("%s: healthy %v, plan %v", name, s.Healthy, p)
		}
	}
	s, p := Decide(Input{}, Config{}, time.Time{})
	b, _ := json.Marshal(struct {
		S State
		P Plan
	}{s, p})
	if want := `{"S":{"healthy":false,"failureTolerance":0,"leaderNodeId":0,"voters":[],"servers":[]},"P":[]}`; string(b) != want {
		t.Errorf("empty input: %s", b)
	}
	in := cluster("1 V", "2 V", "3 V")
	in.LeaderID, in.Members[1].IsLeader = 0, true
	if s, _ := Decide(in, testConfig(), t0); s.LeaderNodeID != 2 || !s.Healthy {
		t.Errorf("leader by flag: %+v", s)
	}
}

func TestStableSinceMoves(t *testing.T) {
	cfg := testConfig()
	in := cluster("1 V", "2 V", "3 V")
	in.Previous = nil
	contact := t0
	at := func(sec float64, answers bool) Server {
		now := t0.Add(time.Duration(sec * float64(time.Second)))
		if answers {
			contact = now
		}
		in.Members[1].LastContact, in.Members[2].LastContact = contact, now
		s, _ := Decide(in, cfg, now)
		in.Previous = Carry(s)
		return s.Servers[1]
	}
	for _, c := range []struct {
		sec        float64
		answers    bool
		healthy    bool
		since      float64
		recovering bool
	}{
		{0, true, true, 0, false},
		{5, true, true, 0, false},
		{7, false, true, 0, false}, // 2 s of silence are still healthy
		{7.1, false, false, 7.1, true},
		{20, false, false, 7.1, true},
		{21, true, true, 21, true},
		{30.9, true, true, 21, true},
		{31, true, true, 21, false},
	} {
		v := at(c.sec, c.answers)
		since := v.StableSince.Sub(t0).Seconds()
		if v.Healthy != c.healthy || since != c.since || v.Recovering != c.recovering || (v.NodeStatus == StatusAlive) != c.healthy {
			t.Errorf("at %v s: healthy %v since %v recovering %v status %s", c.sec, v.Healthy, since, v.Recovering, v.NodeStatus)
		}
	}
}

func TestState(t *testing.T) {
	for _, c := range []struct {
		name      string
		in        Input
		healthy   bool
		tolerance int
		voters    []uint64
		electable []uint64
	}{
		{"three", cluster("3 V", "1 V", "2 V"), true, 1, []uint64{1, 2, 3}, []uint64{1, 2, 3}},
		{"silent stand-by costs nothing", cluster("1 V", "2 V", "3 V", "4 S silent", "5 - silent"), true, 1, []uint64{1, 2, 3}, []uint64{1, 2, 3}},
		{"silent voter", cluster("1 V", "2 V", "3 V silent"), false, 0, []uint64{1, 2, 3}, []uint64{1, 2, 3}},
		{"lagging voter", cluster("1 V", "2 V", "3 V lag"), false, 0, []uint64{1, 2, 3}, []uint64{1, 2, 3}},
		{"drained is not electable", cluster("1 V", "2 V drained", "3 V draining"), true, 1, []uint64{1, 2, 3}, []uint64{1}},
		{"all drained", cluster("1 V drained", "2 V drained", "3 V replicate"), true, 1, []uint64{1, 2, 3}, []uint64{1, 2}},
		{"the other one is silent", cluster("1 V drained", "2 V silent"), false, 0, []uint64{1, 2}, []uint64{1, 2}},
		{"all replicate-only", cluster("1 V replicate", "2 V orphan"), true, 0, []uint64{1, 2}, []uint64{1}},
	} {
		s, _ := Decide(c.in, testConfig(), t0)
		var electable []uint64
		for _, v := range s.Servers {
			if v.Electable {
				electable = append(electable, v.NodeID)
			}
		}
		if s.Healthy != c.healthy || s.FailureTolerance != c.tolerance {
			t.Errorf("%s: healthy %v, tolerance %d", c.name, s.Healthy, s.FailureTolerance)
		}
		if d := cmp.Diff(c.voters, s.Voters) + cmp.Diff(c.electable, electable); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
		if len(s.Servers) != len(c.in.Members) {
			t.Errorf("%s: %d servers", c.name, len(s.Servers))
		}
	}
}

func TestReasons(t *testing.T) {
	for _, c := range []struct {
		in   Input
		id   int
		want string
	}{
		{cluster("1 V", "2 V", "3 V"), 1, "leader, voter: 1 of 3"},
		{cluster("1 V", "2 V", "3 V"), 3, "voter: 3 of 3"},
		{cluster("1 V", "2 V", "3 V pinned"), 3, "voter: 3 of 3, promoted by an operator"},
		{cluster("1 V", "2 V", "3 V lag"), 3, "voter: 3 of 3, 1500 revisions behind, 1000 allowed"},
		{cluster("1 V", "2 V", "3 V hushed"), 3, "silent for 3.2 s: keeps its vote until a stand-by takes it"},
		{cluster("1 V", "2 V", "3 V silent", "4 S"), 4, "takes the place of node 3 (silent for 60 s)"},
		{cluster("1 V", "2 V", "3 V drained"), 3, "drained: keeps its vote until an eligible stand-by takes it"},
		{cluster("1 V", "2 V", "3 V drained", "4 S"), 4, "takes the place of node 3 (drained)"},
		{cluster("1 V drained", "2 V", "3 V"), 2, "takes leadership from node 1 (drained)"},
		{cluster("1 V", "2 S fresh", "3 S fresh"), 2, "stable for 4 s of 10 s, then voter"},
		{cluster("1 V", "2 S", "3 S fresh"), 2, "stand-by: votes together with another one, so that the voters stay an odd number"},
		{cluster("1 V", "2 S", "3 S"), 3, "stable for 30 min: becomes voter 3 of 3"},
		{cluster("1 V", "2 V", "3 V", "4 S"), 4, "stand-by: 1 of 1, next voter when one dies"},
		{cluster("1 V", "2 V", "3 V", "4 S lag"), 4, "stand-by: 1500 revisions behind, 1000 allowed"},
		{cluster("1 V", "2 V", "3 V", "4 S back"), 4, "stand-by: was silent, back for 4 s of 10 s"},
		{cluster("1 V", "2 V silent", "3 V silent", "4 S"), 4, "stand-by: no change while only 1 of 3 voters answer"},
		{cluster("1 V", "2 V", "3 V", "4 V", "5 V", "6 S", "7 S", "8 -"), 7, "stand-by: 2 of 2"},
		{cluster("1 V", "2 V", "3 V", "4 V", "5 V", "6 S", "7 S", "8 -"), 8, "outside Raft: 5 voters and 2 stand-bys are enough"},
		{cluster("1 V", "2 - never"), 2, "has not answered a probe yet: enters Raft only after that"},
		{cluster("1 V", "2 - silent"), 2, "silent for 60 s"},
		{cluster("1 V", "2 - rare"), 2, "outside Raft: enters after its next probe"},
		{cluster("1 V", "2 - back"), 2, "was silent, back for 4 s of 10 s, then considered for Raft again"},
		{cluster("1 V", "2 V", "3 V", "4 - replicate", "5 - replicate", "6 - replicate"), 6, "replicate-only: never votes"},
		{cluster("1 V", "2 V", "3 V", "4 S replicate"), 4, "replicate-only: never votes, replicates in a stand-by seat"},
		{cluster("1 V", "2 V silent", "3 V replicate"), 3, "replicate-only: loses its vote when the healthy voters are a majority without it"},
		{cluster("1 V", "2 V silent", "3 V orphan"), 3, "no member row: leaves Raft when the healthy voters are a majority without it"},
		{cluster("1 V", "2 V", "3 V", "4 V silent"), 4, "silent for 60 s: another votes in its place"},
		{cluster("1 V", "2 V", "3 V", "4 V never"), 4, "has not answered this leader: another votes in its place"},
		{cluster("1 V orphan", "2 V", "3 V"), 2, "takes leadership from node 1 (no member row)"},
		{cluster("1 V", "2 - draining"), 2, "draining: gets no vote before it is resumed"},
		{cluster("1 V", "2 V", "3 V frozen"), 3, "cannot store, its disk does not answer: keeps its vote until an eligible stand-by takes it"},
		{cluster("1 V", "2 V", "3 V frozen", "4 S"), 4, "takes the place of node 3 (cannot store, its disk does not answer)"},
		{cluster("1 V", "2 - frozen"), 2, "cannot store, its disk does not answer: gets no vote before it stores again"},
		{cluster("1 V frozen", "2 V", "3 V"), 2, "takes leadership from node 1 (cannot store, its disk does not answer)"},
		{cluster("1 V", "2 V", "3 V stalled"), 3, "cannot store, its replica has not moved for more than 20 s although there is more to replicate: keeps its vote until an eligible stand-by takes it"},
		{cluster("1 V", "2 V", "3 V full-disk"), 3, "low on disk space: keeps its vote until an eligible stand-by takes it"},
		{cluster("1 V", "2 V", "3 V full-disk", "4 S"), 4, "takes the place of node 3 (low on disk space)"},
		{cluster("1 V", "2 - full-disk"), 2, "low on disk space: gets no vote before there is room again"},
		{cluster("1 V full-disk", "2 V", "3 V"), 2, "takes leadership from node 1 (low on disk space)"},
	} {
		s, _ := Decide(c.in, testConfig(), t0)
		if got := s.Servers[c.id-1].Reason; got != c.want {
			t.Errorf("node %d: %q, want %q", c.id, got, c.want)
		}
	}
}

func TestBrief(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 s", 3210 * time.Millisecond: "3.2 s", 4050 * time.Millisecond: "4 s", 10900 * time.Millisecond: "10 s",
		119 * time.Second: "119 s", 12 * time.Minute: "12 min", 26 * time.Hour: "26 h",
	} {
		if got := brief(d); got != want {
			t.Errorf("brief(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestCanRemove(t *testing.T) {
	for _, c := range []struct {
		in   Input
		id   uint64
		want string
	}{
		{cluster("1 V", "2 V", "3 V"), 3, ""},
		{cluster("1 V", "2 V", "3 V silent"), 3, ""},
		{cluster("1 V", "2 V", "3 V silent"), 2, "without node 2 only 1 of 2 voters would be live, and a majority needs 2"},
		{cluster("1 V", "2 V", "3 V lag"), 2, "without node 2 only 1 of 2 voters would be live, and a majority needs 2"},
		{cluster("1 V", "2 V", "3 V frozen"), 2, "without node 2 only 1 of 2 voters would be live, and a majority needs 2"},
		{cluster("1 V frozen", "2 V", "3 V"), 3, "without node 3 only 1 of 2 voters would be live, and a majority needs 2"},
		{cluster("1 V", "2 V", "3 V frozen"), 3, ""},
		{cluster("1 V", "2 V silent"), 2, ""},
		{cluster("1 V", "2 V silent", "3 V silent"), 3, "without node 3 only 1 of 2 voters would be live, and a majority needs 2"},
		{cluster("1 V", "2 V", "3 V", "4 V silent", "5 V silent"), 3, "without node 3 only 2 of 4 voters would be live, and a majority needs 3"},
		{cluster("1 V", "2 S"), 1, "node 1 is the only voter; a cluster cannot be without one"},
		{cluster("1 V", "2 S"), 2, ""},
		{cluster("1 V", "2 S"), 9, ""},
		{Input{}, 1, ""},
	} {
		got := ""
		if err := CanRemove(c.in, c.id); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("CanRemove(%d) = %q, want %q", c.id, got, c.want)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []Config{DefaultConfig(), testConfig()} {
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		set  func(*Config)
		want string
	}{
		{func(c *Config) { c.MaxVoters = 4 }, "maxVoters must be 3, 5 or 7, not 4"},
		{func(c *Config) { c.StandBys = -1 }, "standBys must be between 0 and 16, not -1"},
		{func(c *Config) { c.StandBys = 17 }, "standBys must be between 0 and 16, not 17"},
		{func(c *Config) { c.Stabilization = -1 }, "stabilization must be between 0s and 1h0m0s, not -1ns"},
		{func(c *Config) { c.LastContactThreshold = 0 }, "lastContactThreshold must be between 100ms and 10m0s, not 0s"},
		{func(c *Config) { c.MaxLagRevisions = 0 }, "maxLagRevisions must be at least 1"},
		{func(c *Config) { c.MaxLagTime = Duration(time.Second) }, "maxLagTime must be between 5s and 1h0m0s, not 1s"},
		{func(c *Config) { c.DeadAfter = Duration(time.Second) }, "deadAfter must be at least 1m0s and longer than lastContactThreshold, not 1s"},
		{func(c *Config) { c.LastContactThreshold, c.DeadAfter = maxContact, maxContact }, "deadAfter must be at least 1m0s and longer than lastContactThreshold, not 10m0s"},
		{func(c *Config) { c.MinQuorum = 6 }, "minQuorum must be between 1 and maxVoters (5), not 6"},
		{func(c *Config) { c.MinQuorum = 0 }, "minQuorum must be between 1 and maxVoters (5), not 0"},
	} {
		cfg := testConfig()
		c.set(&cfg)
		if err := cfg.Validate(); err == nil || err.Error() != c.want {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}

func TestJSON(t *testing.T) {
	want := `{"maxVoters":5,"standBys":2,"stabilization":"10s","lastContactThreshold":"2s","maxLagRevisions":1000,"maxLagTime":"20s","cleanupDeadMembers":false,"deadAfter":"24h0m0s","minQuorum":2,"redundancyZones":false,"upgradeMigration":false}`
	b, err := json.Marshal(testConfig())
	if err != nil || string(b) != want {
		t.Errorf("%s, %v", b, err)
	}
	var c Config
	if err := json.Unmarshal(b, &c); err != nil || c != testConfig() {
		t.Errorf("%+v, %v", c, err)
	}
	for in, want := range map[string]string{
		`{"stabilization":10}`:    `a duration must be a string such as "10s", not 10`,
		`{"stabilization":"ten"}`: `a duration must be a string such as "10s", not "ten"`,
	} {
		if err := json.Unmarshal([]byte(in), &c); err == nil || err.Error() != want {
			t.Errorf("%s: %v", in, err)
		}
	}
	var syntax *json.SyntaxError
	if err := json.Unmarshal([]byte(`{`), &c); err == nil || errors.As(err, &syntax) == false {
		t.Errorf("syntax error got lost: %v", err)
	}

	// A state survives JSON: times to the second, everything else exactly.
	s, _ := Decide(cluster("1 V", "2 V", "3 V silent", "4 - never"), testConfig(), t0)
	b, err = json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var back State
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(s, back); d != "" {
		t.Error(d)
	}
	head := `"servers":[{"nodeId":1,"raftAddress":"","nodeStatus":"alive","healthy":true,"isLeader":true,"hasVotingRights":true,"stableSince":"2026-04-20T07:30:00Z",`
	if !strings.Contains(string(b), head) {
		t.Errorf("documented fields not first: %s", b)
	}
}
