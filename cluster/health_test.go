package cluster

import (
	"strings"
	"testing"
	"time"

	"muster/cluster/autopilot"
)

// TestHealthChanges: only what lasts is noted, once, whoever led when it began; and never more at once than the bound.
func TestHealthChanges(t *testing.T) {
	begin := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	up := func(id uint64) autopilot.Server {
		return autopilot.Server{NodeID: id, NodeStatus: autopilot.StatusAlive, Healthy: true, Mode: "full"}
	}
	down := func(id uint64, role string) autopilot.Server {
		return autopilot.Server{NodeID: id, NodeStatus: autopilot.StatusLeft, Mode: "full", Role: role}
	}
	seen, noted := map[uint64]*sighting{}, map[uint64]bool{}
	at := func(second float64, servers ...autopilot.Server) (got []uint64) {
		now := begin.Add(time.Duration(second * float64(time.Second)))
		for _, c := range healthChanges(seen, noted, &autopilot.State{Servers: servers}, now) {
			got = append(got, c.NodeID)
			noted[c.NodeID] = !c.Healthy
			if c.Reason == "" {
				t.Errorf("no reason for %+v", c)
			}
		}
		return got
	}
	expect := func(what string, got []uint64, want int) {
		t.Helper()
		if len(got) != want {
			t.Errorf("%s: noted %v, not %d", what, got, want)
		}
	}
	expect("all is well", at(0, up(1), up(2), up(3)), 0)
	for s := 1.0; s < 20; s += 2 { // two seconds down, half a second up, and so on
		expect("flapping", at(s, up(1), down(2, "voter"), up(3)), 0)
		expect("flapping", at(s+1.5, up(1), down(2, "voter"), up(3)), 0)
		expect("flapping", at(s+1.8, up(1), up(2), up(3)), 0)
	}
	expect("dead for a moment", at(30, up(1), down(2, "voter"), up(3)), 0)
	expect("dead", at(33, up(1), down(2, "voter"), up(3)), 1)
	expect("still dead", at(40, up(1), down(2, "voter"), up(3)), 0)
	expect("back", at(41, up(1), up(2), up(3)), 0)
	expect("back for long enough", at(51, up(1), up(2), up(3)), 1)
	expect("no news", at(60, up(1), up(2), up(3)), 0)

	// Another leader: what was noted holds on, and who was never started is no news.
	seen, noted = map[uint64]*sighting{}, map[uint64]bool{2: true}
	at(0, up(1), up(2), down(3, ""), down(4, "standby"))
	if got := at(11, up(1), up(2), down(3, ""), down(4, "standby")); len(got) != 2 || got[0] != 2 || got[1] != 4 {
		t.Errorf("a new leader has noted %v", got)
	}

	// Half the cluster at once comes in portions.
	seen, noted = map[uint64]*sighting{}, map[uint64]bool{}
	var alive, dead []autopilot.Server
	for id := range uint64(25) {
		alive, dead = append(alive, up(id+1)), append(dead, down(id+1, ""))
	}
	at(0, alive...)
	at(1, dead...)
	for i, want := range []int{healthPerTick, healthPerTick, 5, 0} {
		expect("many at once", at(5+float64(i), dead...), want)
	}
	if at(20); len(seen) != 0 {
		t.Errorf("%d members that are gone are remembered", len(seen))
	}
}

// TestClocksOfOthers: what a leader makes of the clocks of the others: whom it tells of, when it doubts its own, and
// when it knows that its own is wrong.
func TestClocksOfOthers(t *testing.T) {
	now := time.Now()
	raft := func(id uint64) bool { return id < 10 }
	for name, x := range map[string]struct {
		skews        map[uint64]time.Duration
		told         int
		doubt, wrong bool
	}{
		"all agree":            {map[uint64]time.Duration{2: time.Second, 3: -4 * time.Second}, 0, false, false},
		"one of three differs": {map[uint64]time.Duration{2: time.Hour, 3: 0}, 1, false, false},
		"two of three differ alike": {map[uint64]time.Duration{2: time.Hour, 3: time.Hour + time.Second}, 2, true,
			true},
		"two of three, each by its own": {map[uint64]time.Duration{2: time.Hour, 3: -time.Hour}, 2, true, false},
		"two of three, by a little": {map[uint64]time.Duration{2: 20 * time.Second, 3: 20 * time.Second}, 2, true,
			false},
		"one of two differs": {map[uint64]time.Duration{2: time.Hour}, 1, true, false},
		"two of five differ": {map[uint64]time.Duration{2: time.Hour, 3: time.Hour, 4: 0, 5: 0}, 2, false,
			false},
		"only members outside of Raft do": {map[uint64]time.Duration{2: 0, 3: 0, 20: time.Hour, 21: time.Hour, 22: time.Hour},
			3, false, false},
	} {
		var c clocks
		// itself, and one that is silent
		seen := map[uint64]observation{1: {LastContact: now, Skew: 9 * time.Hour}, 7: {Skew: time.Hour}}
		for id, skew := range x.skews {
			seen[id] = observation{LastContact: now, Skew: skew}
		}
		news := c.saw(seen, raft, 1, now)
		if len(news) != x.told || c.doubted() != x.doubt || c.isWrong() != x.wrong {
			t.Errorf("%s: news %v, doubted %v, wrong %v", name, news, c.doubted(), c.isWrong())
		}
		if news := c.saw(seen, raft, 1, now); len(news) != 0 {
			t.Errorf("%s: news again: %v", name, news)
		}
		if got := len(c.notices(now)); got != min(x.told, 4) {
			t.Errorf("%s: notices %q", name, c.notices(now))
		}
		c.forget()
		if c.doubted() || c.isWrong() || len(c.notices(now)) != 0 {
			t.Errorf("%s: not forgotten", name)
		}
	}
	var c clocks
	c.heard(-2*time.Hour, now)
	if list := c.notices(now); len(list) != 1 ||
		!strings.HasPrefix(list[0], "this member's clock is 2h0m0s behind the leader's;") {
		t.Errorf("%q", list)
	}
	if c.ahead(now.Add(2*skewHeard)) != 0 {
		t.Error("an old word of a leader counts")
	}
}
