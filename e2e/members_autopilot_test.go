package e2e

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/client"
)

// TestMembersAutopilot: four machines that may vote and one that never does. Voters die, freeze, are promoted and
// removed, and the three answers about who votes never contradict each other.
func TestMembersAutopilot(t *testing.T) {
	t.Parallel()
	c := clusterWith(t, 1, nil)
	u := c.admin(t)
	leader := c.members[0]
	// Machines that join late would have to be healthy for 10 s before they vote.
	get[client.AutopilotConfig](t, u, leader, "PUT", "/api/v1/cluster/autopilot/config", `{"stabilization":"2s"}`)
	for n := 2; n <= 5; n++ {
		c.admit(t, func(n int) []string {
			if n == 5 {
				return []string{"--mode", "replicate"}
			}
			return nil
		})
	}
	eventually(t, formed, "three vote and two stand by", func() error {
		for _, m := range c.members {
			if !m.running() {
				t.Fatalf("node %d has ended:\n%s", m.n, lastLines(m.log, 20))
			}
		}
		state, err := u.autopilot(leader)
		if err != nil {
			return err
		}
		roles := map[string]int{}
		for _, x := range state.Servers {
			roles[x.Role]++
		}
		if !maps.Equal(roles, map[string]int{"voter": 3, "standby": 2}) {
			return fmt.Errorf("%v: %+v", roles, state.Servers)
		}
		return u.settled(leader, state.Voters...)
	})
	c.noVoteFor5(t, u)
	t.Run("settings", func(t *testing.T) { testAutopilotSettings(t, c, u) })
	t.Run("a voter dies", func(t *testing.T) { testVoterDies(t, c, u) })
	t.Run("a voter freezes", func(t *testing.T) { testVoterFreezes(t, c, u) })
	t.Run("promote by hand", func(t *testing.T) { testPromote(t, c, u) })
	c.noVoteFor5(t, u)
	t.Run("removed, and the leader killed", func(t *testing.T) { testRemoveLeaderKilled(t, c, u) })
}

// noVoteFor5: the replicate-only member stands by and cannot be promoted.
func (c *cluster) noVoteFor5(t *testing.T, u *user) {
	t.Helper()
	m := c.members[4]
	x, err := u.row(m, 5)
	if err != nil || x.Suffrage != "nonvoter" || x.Mode != "replicate" {
		t.Errorf("the replicate-only member: %+v, %v", x, err)
	}
	u.do(m, "POST", memberURL(5, "/promote"), "").expect(t, "promote a replicate-only member", 409,
		`{"error":"Node is replicate-only and never votes"}`)
}

func testAutopilotSettings(t *testing.T, c *cluster, u *user) {
	const path = "/api/v1/cluster/autopilot/config"
	const usual = `{"result":{"maxVoters":5,"standBys":2,"stabilization":"2s","lastContactThreshold":"2s",` +
		`"maxLagRevisions":10000,"maxLagTime":"30s","cleanupDeadMembers":false,"deadAfter":"24h0m0s","minQuorum":2,` +
		`"redundancyZones":false,"upgradeMigration":false}}`
	for role, m := range c.throughBoth(t) {
		u.do(m, "GET", path, "").expect(t, "the settings from the "+role, 200, usual)
		for _, x := range []struct{ body, want string }{
			{"", "the body must be a JSON object"},
			{"{", "the body must be a JSON object"},
			{`{"maxVoters":4}`, "maxVoters must be 3, 5 or 7, not 4"},
			{`{"maxVoters":0}`, "maxVoters must be 3, 5 or 7, not 0"},
			{`{"maxVoters":9}`, "maxVoters must be 3, 5 or 7, not 9"},
			{`{"standBys":-1}`, "standBys must be between 0 and 16, not -1"},
			{`{"standBys":17}`, "standBys must be between 0 and 16, not 17"},
			{`{"stabilization":"-1s"}`, "stabilization must be between 0s and 1h0m0s, not -1s"},
			{`{"stabilization":"2h"}`, "stabilization must be between 0s and 1h0m0s, not 2h0m0s"},
			{`{"stabilization":10}`, `stabilization must be a duration such as "10s", not 10`},
			{`{"stabilization":"soon"}`, `stabilization must be a duration such as "10s", not "soon"`},
			{`{"lastContactThreshold":"50ms"}`, "lastContactThreshold must be between 100ms and 10m0s, not 50ms"},
			{`{"maxLagRevisions":0}`, "maxLagRevisions must be at least 1"},
			{`{"maxLagTime":"4s"}`, "maxLagTime must be between 5s and 1h0m0s, not 4s"},
			{`{"deadAfter":"30s"}`, "deadAfter must be at least 1m0s and longer than lastContactThreshold, not 30s"},
			{`{"minQuorum":0}`, "minQuorum must be between 1 and maxVoters (5), not 0"},
			{`{"minQuorum":6}`, "minQuorum must be between 1 and maxVoters (5), not 6"},
			{`{"standBys":1,"maxVoters":4}`, "maxVoters must be 3, 5 or 7, not 4"},
		} {
			a := u.do(m, "PUT", path, x.body)
			if got := a.envelope(t, "PUT "+x.body, "ella"); a.status != 400 || got != x.want {
				t.Errorf("PUT %s on the %s: %v, want %q", x.body, role, a, x.want)
			}
		}
		for body, field := range map[string]string{`{"maxVoters":"3"}`: "maxVoters must be a whole number",
			`{"cleanupDeadMembers":1}`: "cleanupDeadMembers must be true or false",
			`{"maxVoter":3}`:           "maxVoter is not a setting of autopilot; did you mean maxVoters?",
			`{"maxLagRevisions":-1}`:   "maxLagRevisions must be a whole number", `[]`: "object", `5`: "object", `"x"`: "object",
			`null`: "object"} {
			a := u.do(m, "PUT", path, body)
			if got := a.envelope(t, "PUT "+body, "ella"); a.status != 400 || !strings.Contains(got, field) {
				t.Errorf("PUT %s on the %s: %v, want 400 and %s in it", body, role, a, field)
			}
		}
		u.do(m, "GET", path, "").expect(t, "the settings after what was refused, from the "+role, 200, usual)
		changed := strings.Replace(usual, `"standBys":2`, `"standBys":3`, 1)
		u.do(m, "PUT", path, `{"standBys":3}`).expect(t, "a change on the "+role, 200, changed)
		for _, other := range c.members {
			u.do(other, "GET", path, "").expect(t, "the changed settings", 200, changed)
		}
		u.do(m, "PUT", path, `{"standBys":2}`).expect(t, "the change back on the "+role, 200, usual)
		u.do(m, "DELETE", path, "").expect(t, "DELETE on the "+role, 405, `{"error":"the method DELETE is not allowed here"}`)
	}
}

// watch compares the three answers, again and again, until it is stopped.
func (c *cluster) watch(t *testing.T, u *user, through ...*member) (stop func()) {
	t.Helper()
	var faults []string
	compared, moved, failed, wrong, voters := 0, 0, 0, 0, map[string]int{}
	i := 0
	end := run(1, func() {
		i++
		m := through[i%len(through)]
		list, err := u.agree(m)
		switch {
		case err == nil:
			compared++
			voters[fmt.Sprint(list)]++
		case errors.Is(err, errMoved):
			moved++
		case strings.Contains(err.Error(), "the members list says"): // they contradict each other
			if wrong++; len(faults) == 10 {
				break
			}
			faults = append(faults, fmt.Sprintf("%v, node %d: %v", now().Round(time.Millisecond), m.n, err))
		default:
			failed++
		}
	})
	return func() {
		t.Helper()
		end()
		t.Logf("the answers were compared %d times, %d times in the moment of a change, %d times without an answer: %v",
			compared, moved, failed, voters)
		if len(faults) > 0 {
			t.Errorf("the answers contradict each other, %d times:\n%s", wrong, strings.Join(faults, "\n"))
		}
		if compared < 20 {
			t.Errorf("the answers were compared only %d times", compared)
		}
	}
}

func (c *cluster) voters(t *testing.T, u *user, m *member) (voters, standBys []*member) {
	t.Helper()
	for _, x := range u.members(t, m) {
		switch {
		case x.Suffrage == "voter":
			voters = append(voters, c.member(t, x.NodeID))
		case x.Mode == "full":
			standBys = append(standBys, c.member(t, x.NodeID))
		}
	}
	return voters, standBys
}

// testVoterDies: a stand-by votes in its place within 15 s, and the dead one returns as a stand-by.
func testVoterDies(t *testing.T, c *cluster, u *user) {
	leader := c.leader(t)
	voters, standBys := c.voters(t, u, leader)
	victim := slices.DeleteFunc(slices.Clone(voters), func(m *member) bool { return m == leader })[0]
	heir := standBys[0]
	stop := c.watch(t, u, leader, heir)
	begin := time.Now()
	victim.kill()
	eventually(t, formed, fmt.Sprintf("node %d votes in the place of node %d", heir.n, victim.n), func() error {
		list, err := u.agree(leader)
		if err == nil && !slices.Contains(list, uint64(heir.n)) {
			err = fmt.Errorf("%v vote", list)
		}
		return err
	})
	t.Logf("node %d votes %v after the death of node %d", heir.n, time.Since(begin).Round(time.Millisecond), victim.n)
	var ids []uint64
	for _, m := range voters {
		if m != victim {
			ids = append(ids, uint64(m.n))
		}
	}
	u.awaitSettled(t, leader, append(ids, uint64(heir.n))...)
	victim.start(t)
	victim.awaitReady(t)
	eventually(t, formed, "the one that died stands by", func() error {
		x, err := u.row(leader, victim.n)
		if err == nil && (x.Role != "standby" || x.Status != "alive") {
			err = fmt.Errorf("%+v", x)
		}
		return err
	})
	stop()
}

// testVoterFreezes: a voter that does not answer for 4 s loses its vote once at most, and then everything stays.
func testVoterFreezes(t *testing.T, c *cluster, u *user) {
	// The stand-by that has just come back may soon vote again, and a fourth voter gives its vote up.
	get[client.AutopilotConfig](t, u, c.members[0], "PUT", "/api/v1/cluster/autopilot/config",
		`{"stabilization":"1s","maxVoters":3}`)
	leader := c.leader(t)
	voters, standBys := c.voters(t, u, leader)
	frozen := slices.DeleteFunc(slices.Clone(voters), func(m *member) bool { return m == leader })[0]
	if len(standBys) != 1 {
		t.Fatalf("%d full members stand by", len(standBys))
	}
	eventually(t, formed, "the stand-by has been healthy for long enough", func() error {
		state, err := u.autopilot(leader)
		for _, x := range state.Servers {
			if x.NodeID == uint64(standBys[0].n) && (strings.Contains(x.Reason, "was silent") || !x.Healthy) {
				err = fmt.Errorf("%+v", x)
			}
		}
		return err
	})
	stop := c.watch(t, u, leader)
	frozen.pause()
	var history [][]uint64 // who voted, one entry for each change
	note := func() error {
		list, err := u.agree(leader)
		if err == nil && (len(history) == 0 || !slices.Equal(history[len(history)-1], list)) {
			history = append(history, list)
		}
		return nil
	}
	throughout(t, 4*time.Second, "", note)
	frozen.carryOn()
	eventually(t, formed, "the one that froze is healthy", func() error {
		note()
		x, err := u.row(leader, frozen.n)
		if err == nil && (x.Status != "alive" || x.Role != "voter" && x.Role != "standby") {
			err = fmt.Errorf("%+v", x)
		}
		return err
	})
	throughout(t, 2500*time.Millisecond, "", note) // the stabilization time and more
	stop()
	t.Logf("the voters while node %d was frozen and afterwards: %v", frozen.n, history)
	// Nothing, or one vote given and one taken.
	if len(history) > 3 {
		t.Errorf("the votes move to and fro: %v", history)
	}
	if got := c.leader(t); got != leader {
		t.Errorf("a follower that froze has moved leadership from node %d to node %d", leader.n, got.n)
	}
	last := history[len(history)-1]
	if len(last) != 3 {
		t.Errorf("%v vote", last)
	}
	u.awaitSettled(t, leader, last...)
}

// testPromote: an operator's promotion works at once, goes beyond what autopilot would do, and stays.
func testPromote(t *testing.T, c *cluster, u *user) {
	leader := c.leader(t)
	_, standBys := c.voters(t, u, leader)
	if len(standBys) != 1 {
		t.Fatalf("%d full members stand by", len(standBys))
	}
	m := standBys[0]
	through := c.others(leader, m)[0]
	a := u.do(through, "POST", memberURL(m.n, "/promote"), "")
	a.expect(t, "promote", 200, `{"result":{"message":"Cluster member promoted to voter"}}`)
	t.Logf("promoted in %v", a.took.Round(time.Millisecond))
	for _, x := range c.members {
		u.do(x, "POST", memberURL(m.n, "/promote"), "").expect(t, "promote again", 409, `{"error":"Node is already a voter"}`)
	}
	u.awaitSettled(t, leader, 1, 2, 3, 4)
	throughout(t, 2*time.Second, "the promotion stays", func() error { return u.settled(leader, 1, 2, 3, 4) })
	c.members[0].awaitSQL(t, fmt.Sprintf("SELECT raft_role, pinned FROM members WHERE raft_node_id = %d", m.n), "voter|1")
}

// testRemoveLeaderKilled: the leader is killed when it has answered a removal, and again in the middle of one. The next
// leader finishes what was begun.
func testRemoveLeaderKilled(t *testing.T, c *cluster, u *user) {
	leader := c.leader(t)
	victim := c.others(leader)[0]
	u.drain(leader, victim.n, "").expect(t, "drain", 200, `{"result":{"drainState":"drained"}}`)
	u.remove(leader, victim.n, "").expect(t, "remove", 200, removed)
	leader.kill()
	c.members = slices.DeleteFunc(c.members, func(m *member) bool { return m == victim })
	next := c.leader(t)
	t.Logf("node %d removed node %d and was killed; node %d leads now", leader.n, victim.n, next.n)
	c.goneForGood(t, victim)
	leader.start(t)
	leader.awaitReady(t)
	eventually(t, formed, "raft is as the members table says", func() error {
		diff, err := try[[]client.Difference](u, next, "GET", "/api/v1/cluster/raft/diff", "")
		if err == nil && len(diff) > 0 {
			err = fmt.Errorf("%+v", diff)
		}
		if err == nil {
			_, err = u.agree(next)
		}
		return err
	})

	// In the middle: the removal of the replicate-only member costs no quorum. Whatever the caller was told, it is
	// either a member with everything or gone with everything.
	leader = c.leader(t)
	through := c.others(leader)[0]
	if through.n == 5 {
		through = c.others(leader)[1]
	}
	u.lease(leader, "held", 5, 600).is(t, "lease", 201, "")
	told := make(chan answer)
	go func() { told <- u.remove(through, 5, "?force=true") }()
	eventually(t, formed, "the removal has begun", func() error {
		if a := u.do(leader, "GET", memberURL(5, ""), ""); a.status == 200 {
			return fmt.Errorf("%v", a)
		}
		return nil
	})
	leader.kill()
	a := <-told
	t.Logf("the removal while the leader dies: %v", a)
	if a.err != nil || a.status != 200 && a.status != 503 {
		t.Errorf("the removal while the leader dies: %v", a)
	}
	five := c.member(t, 5)
	c.members = slices.DeleteFunc(c.members, func(m *member) bool { return m == five })
	leader.start(t)
	leader.awaitReady(t)
	c.leader(t)
	for _, m := range c.members {
		m.awaitSQL(t, "SELECT count(*) FROM operations WHERE state = 'running'", "0")
		m.awaitSQL(t,
			"SELECT (SELECT count(*) FROM members WHERE raft_node_id = 5), (SELECT count(*) FROM leases), (SELECT count(*) "+
				"FROM removed_members WHERE raft_node_id = 5)", "0|0|1")
	}
	five.awaitExpelled(t)
}
