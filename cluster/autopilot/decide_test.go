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
		{0, 0, 0}, {1, 1, 0}, {2, 2, 0}, {3, 3, 1}, {3, 2, 0}, {3, 1, 0}, {4, 4, 1}, {5, 5, 2}, {5, 4, 1}, {5, 2, 0},
		{7, 7, 3},
	} {
		if got := FailureTolerance(c.voters, c.healthy); got != c.want {
			t.Errorf("FailureTolerance(%d, %d) = %d, want %d", c.voters, c.healthy, got, c.want)
		}
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
	if len(p) != 0 || s.Servers[2].NodeStatus != StatusUnknown || s.Servers[2].Healthy ||
		!s.Servers[2].StableSince.IsZero() {
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
	for name, in := range map[string]Input{"none": cluster("1 V", "2 S pinned"), "unknown": cluster("1 V", "2 S pinned"),
		"no vote": cluster("1 S", "2 V", "3 S pinned")} {
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
	if want := `{"S":{"healthy":false,"failureTolerance":0,"leaderNodeId":0,"voters":[],"servers":[]},"P":[]}`; string(
		b) != want {
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
		if v.Healthy != c.healthy || since != c.since || v.Recovering != c.recovering ||
			(v.NodeStatus == StatusAlive) != c.healthy {
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
		{"silent stand-by costs nothing", cluster("1 V", "2 V", "3 V", "4 S silent", "5 - silent"), true, 1,
			[]uint64{1, 2, 3}, []uint64{1, 2, 3}},
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
		{cluster("1 V", "2 S", "3 S fresh"), 2,
			"stand-by: votes together with another one, so that the voters stay an odd number"},
		{cluster("1 V", "2 S", "3 S"), 3, "stable for 30 min: becomes voter 3 of 3"},
		{cluster("1 V", "2 V", "3 V", "4 S"), 4, "stand-by: 1 of 1, next voter when one dies"},
		{cluster("1 V", "2 V", "3 V", "4 S lag"), 4, "stand-by: 1500 revisions behind, 1000 allowed"},
		{cluster("1 V", "2 V", "3 V", "4 S back"), 4, "stand-by: was silent, back for 4 s of 10 s"},
		{cluster("1 V", "2 V silent", "3 V silent", "4 S"), 4, "stand-by: no change while only 1 of 3 voters answer"},
		{cluster("1 V", "2 V", "3 V", "4 V", "5 V", "6 S", "7 S", "8 -"), 7, "stand-by: 2 of 2"},
		{cluster("1 V", "2 V", "3 V", "4 V", "5 V", "6 S", "7 S", "8 -"), 8,
			"outside Raft: 5 voters and 2 stand-bys are enough"},
		{cluster("1 V", "2 - never"), 2, "has not answered a probe yet: enters Raft only after that"},
		{cluster("1 V", "2 - silent"), 2, "silent for 60 s"},
		{cluster("1 V", "2 - rare"), 2, "outside Raft: enters after its next probe"},
		{cluster("1 V", "2 - back"), 2, "was silent, back for 4 s of 10 s, then considered for Raft again"},
		{cluster("1 V", "2 V", "3 V", "4 - replicate", "5 - replicate", "6 - replicate"), 6, "replicate-only: never votes"},
		{cluster("1 V", "2 V", "3 V", "4 S replicate"), 4, "replicate-only: never votes, replicates in a stand-by seat"},
		{cluster("1 V", "2 V silent", "3 V replicate"), 3,
			"replicate-only: loses its vote when the healthy voters are a majority without it"},
		{cluster("1 V", "2 V silent", "3 V orphan"), 3,
			"no member row: leaves Raft when the healthy voters are a majority without it"},
		{cluster("1 V", "2 V", "3 V", "4 V silent"), 4, "silent for 60 s: one vote fewer survives as many failures"},
		{cluster("1 V", "2 V", "3 V", "4 V never"), 4,
			"has not answered this leader: one vote fewer survives as many failures"},
		{cluster("1 V orphan", "2 V", "3 V"), 2, "takes leadership from node 1 (no member row)"},
		{cluster("1 V", "2 - draining"), 2, "draining: gets no vote before it is resumed"},
		{cluster("1 V", "2 V", "3 V frozen"), 3,
			"cannot store, its disk does not answer: keeps its vote until an eligible stand-by takes it"},
		{cluster("1 V", "2 V", "3 V frozen", "4 S"), 4, "takes the place of node 3 (cannot store, its disk does not answer)"},
		{cluster("1 V", "2 - frozen"), 2, "cannot store, its disk does not answer: gets no vote before it stores again"},
		{cluster("1 V frozen", "2 V", "3 V"), 2, "takes leadership from node 1 (cannot store, its disk does not answer)"},
		{cluster("1 V", "2 V", "3 V stalled"), 3,
			"cannot store, its replica has not moved for more than 20 s although there is more to replicate: keeps its vote " +
				"until an eligible stand-by takes it"},
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
		{cluster("1 V", "2 V silent", "3 V silent"), 3,
			"without node 3 only 1 of 2 voters would be live, and a majority needs 2"},
		{cluster("1 V", "2 V", "3 V", "4 V silent", "5 V silent"), 3,
			"without node 3 only 2 of 4 voters would be live, and a majority needs 3"},
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
		{func(c *Config) { c.DeadAfter = Duration(time.Second) },
			"deadAfter must be at least 1m0s and longer than lastContactThreshold, not 1s"},
		{func(c *Config) { c.LastContactThreshold, c.DeadAfter = maxContact, maxContact },
			"deadAfter must be at least 1m0s and longer than lastContactThreshold, not 10m0s"},
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
	want := `{"maxVoters":5,"standBys":2,"stabilization":"10s","lastContactThreshold":"2s","maxLagRevisions":1000,` +
		`"maxLagTime":"20s","cleanupDeadMembers":false,"deadAfter":"24h0m0s","minQuorum":2,"redundancyZones":false,` +
		`"upgradeMigration":false}`
	b, err := json.Marshal(testConfig())
	if err != nil || string(b) != want {
		t.Errorf("%s, %v", b, err)
	}
	var c Config
	if err := json.Unmarshal(b, &c); err != nil || c != testConfig() {
		t.Errorf("%+v, %v", c, err)
	}
	for in, want := range map[string]string{
		`{"stabilization":10}`:    `must be a duration such as "10s", not 10`,
		`{"stabilization":"ten"}`: `must be a duration such as "10s", not "ten"`,
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
	head := `"servers":[{"nodeId":1,"raftAddress":"","nodeStatus":"alive","healthy":true,"isLeader":true,` +
		`"hasVotingRights":true,"stableSince":"2026-04-20T07:30:00Z",`
	if !strings.Contains(string(b), head) {
		t.Errorf("documented fields not first: %s", b)
	}
}
