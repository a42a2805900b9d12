package e2e

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/client"
)

// TestZones: six machines in three zones, three votes. A zone is lost and comes back; a machine moves to another zone;
// what costs a zone is said before it is done.
func TestZones(t *testing.T) {
	t.Parallel()
	c := clusterWith(t, 1, func(int) []string { return []string{"--zone", "a"} })
	u := c.admin(t)
	get[client.AutopilotConfig](t, u, c.members[0], "PUT", "/api/v1/cluster/autopilot/config",
		`{"stabilization":"2s","maxVoters":3}`)
	for n := 2; n <= 6; n++ {
		c.admit(t, func(n int) []string { return []string{"--zone", string("cab"[n%3])} })
	}
	even := map[string]int{"a": 1, "b": 1, "c": 1}
	u.awaitVotes(t, c, even)
	u.zonesShown(t, c)

	lost := []*member{c.members[0], c.members[3]}
	for _, m := range lost {
		m.kill()
	}
	begin := time.Now()
	u.awaitVotes(t, c, map[string]int{"b": 1, "c": 2}, map[string]int{"b": 2, "c": 1})
	t.Logf("three voters again after %v", time.Since(begin).Round(time.Millisecond))
	u.create(t, c.members[1], `{}`)

	for _, m := range lost {
		m.start(t)
		m.awaitReady(t)
	}
	u.awaitVotes(t, c, even)
	u.create(t, c.members[0], `{}`)
	t.Run("a member moves", func(t *testing.T) { testZoneChanges(t, c, u) })
	t.Run("what costs a zone is said", func(t *testing.T) { testZoneCost(t, c, u) })
}

// awaitVotes waits until the healthy voters are spread in one of some ways.
func (u *user) awaitVotes(t *testing.T, c *cluster, ways ...map[string]int) {
	t.Helper()
	eventually(t, formed, fmt.Sprintf("votes by zone are one of %v", ways), func() error {
		var state client.Autopilot
		err := errors.New("nobody answers")
		for _, m := range c.members {
			if m.up() && err != nil {
				state, err = u.autopilot(m)
			}
		}
		if err != nil {
			return err
		}
		votes := map[string]int{}
		for _, s := range state.Servers {
			if s.HasVotingRights {
				votes[s.Zone]++
			}
			if s.HasVotingRights && !s.Healthy {
				return fmt.Errorf("%d is not healthy", s.NodeID)
			}
		}
		if !slices.ContainsFunc(ways, func(way map[string]int) bool { return maps.Equal(way, votes) }) {
			return fmt.Errorf("%v: %s", votes, state.Spread)
		}
		return nil
	})
}

// zonesShown: the command line, the API of the raft family and the metrics say the same.
func (u *user) zonesShown(t *testing.T, c *cluster) {
	t.Helper()
	cmd := command{env: c.env(c.token)}
	const good = "the cluster survives the loss of any one zone"
	eventually(t, formed, "all six are in their zones", func() error {
		state, err := u.autopilot(c.members[1])
		if err == nil && (len(state.Zones) != 3 || state.Spread != good || state.Zones[0].StandBys+state.Zones[1].StandBys+
			state.Zones[2].StandBys != 2) {
			err = fmt.Errorf("%s: %+v", state.Spread, state.Zones)
		}
		return err
	})
	if out := cmd.run(t, "autopilot"); out.code != 0 || !strings.Contains(out.stderr, good) ||
		!strings.Contains(out.stdout, "ZONE") {
		t.Errorf("autopilot: %+v", out)
	}
	out := cmd.run(t, "autopilot", "zones")
	if lines := strings.Split(strings.TrimSpace(out.stdout), "\n"); out.code != 0 || !strings.Contains(out.stderr, good) ||
		len(lines) != 4 ||
		!strings.HasPrefix(strings.Join(strings.Fields(lines[1]), " "), "a yes 1") {
		t.Errorf("autopilot zones: %+v", out)
	}
	if out := cmd.run(t, "members", "-o", "json"); strings.Count(out.stdout, `"zone": "b"`) != 2 {
		t.Errorf("members: %+v", out)
	}
	leader := c.leader(t)
	health := u.do(leader, "GET", "/v1/operator/autopilot/health", "")
	if health.status != 200 || strings.Count(health.body, `"FailureTolerance":`) != 4 ||
		!strings.Contains(health.body, `"RedundancyZones":{"a":{"Servers":["`) {
		t.Errorf("the health in the words of the raft family: %v", health)
	}
	metrics := u.do(leader, "GET", "/metrics", "")
	for _, want := range []string{"\nmuster_zones 3\n", "\nmuster_zones_decisive 0\n"} {
		if !strings.Contains(metrics.body, want) {
			t.Errorf("the metrics have no %q", want)
		}
	}
}

// testZoneChanges restarts the second member of zone c in zone b.
func testZoneChanges(t *testing.T, c *cluster, u *user) {
	m := c.members[5]
	m.stop(t)
	m.args = append(m.args, "--zone", "b") // the last one counts
	m.start(t)
	m.awaitReady(t)
	eventually(t, formed, "node 6 is in zone b", func() error {
		x, err := u.row(c.members[1], 6)
		if err == nil && x.Zone != "b" {
			err = fmt.Errorf("it is in %q", x.Zone)
		}
		return err
	})
	page := get[client.AuditPage](t, u, m, "GET", "/api/v1/audit?action=member.announce&object=node/6", "")
	if !slices.ContainsFunc(page.Entries, func(e client.Event) bool {
		return strings.Contains(e.Detail, "zone b instead of c")
	}) {
		t.Errorf("the audit does not say that node 6 has moved: %+v", page.Entries)
	}
	for zone, want := range map[string]string{"": "needs a value", "B": "--zone", "-b": "--zone", "b/../c": "--zone",
		strings.Repeat("z", 64): "--zone", "zürich": "--zone"} {
		if out := muster(t, "serve", "--data", m.dir, "--zone="+zone, "--api", m.api, "--raft", m.raft); out.code == 0 ||
			!strings.Contains(out.stderr, want) && zone != "" {
			t.Errorf("--zone %q: %+v", zone, out)
		}
	}
}

// testZoneCost: node 3 is the last one of zone c.
func testZoneCost(t *testing.T, c *cluster, u *user) {
	const cost = "no other member of zone c may vote: votes will be in two zones, of which one always has the majority"
	cmd := command{env: c.env(c.token)}
	eventually(t, formed, "the last member of zone c is known as such", func() error {
		x, err := u.row(c.members[1], 3)
		if err == nil && x.ZoneCost != cost {
			err = fmt.Errorf("%+v", x)
		}
		return err
	})
	if out := cmd.run(t, "member", "remove", "3", "--force"); out.code == 0 ||
		!strings.Contains(out.stderr, "without a drain? It costs a zone: "+cost) {
		t.Errorf("the question before a removal: %+v", out)
	}
	if a := u.do(c.members[1], http.MethodDelete, memberURL(3, ""), ""); a.status != 409 ||
		a.header.Get("X-Muster-Warning") != cost {
		t.Errorf("the removal of what is not drained: %v, %v", a, a.header)
	}
	if out := cmd.run(t, "member", "drain", "3"); out.code != 0 ||
		!strings.Contains(out.stderr, "warning: this costs a zone: "+cost) {
		t.Errorf("drain: %+v", out)
	}
	u.awaitVotes(t, c, map[string]int{"a": 1, "b": 2}, map[string]int{"a": 2, "b": 1})
	out := cmd.run(t, "autopilot", "zones")
	if out.code != 0 || !strings.Contains(out.stderr,
		"of two zones one always has the majority; one member in a third zone would end that") {
		t.Errorf("two zones: %+v", out)
	}
}
