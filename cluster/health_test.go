package cluster

import (
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
