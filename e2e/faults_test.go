package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"muster/client"
)

// TestLeaderKilled: the leader is killed while tokens are minted through a follower. What was answered with 201 is
// there, once, and the member comes back with the same command.
func TestLeaderKilled(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	u := c.admin(t)
	l := newLedger(1000)
	for round := range 3 {
		leader := c.leader(t)
		follower := c.others(leader)[round%2]
		stop := run(3, func() { l.mint(u, follower) })
		l.awaitMore(t, 30)
		at := now()
		leader.kill()
		l.awaitMore(t, 30)
		gap := l.gap(at)
		t.Logf("round %d: node %d killed, minting through node %d, longest gap %v", round+1, leader.n, follower.n,
			gap.Round(time.Millisecond))
		if gap > 5*time.Second {
			t.Errorf("no token was minted for %v after the leader was killed", gap)
		}
		before := leader.identity()
		leader.start(t)
		leader.awaitReady(t)
		l.awaitMore(t, 10)
		stop()
		c.awaitVoters(t)
		if leader.identity() != before {
			t.Errorf("node %d was %s and is %s", leader.n, before, leader.identity())
		}
	}
	l.check(t, u, c.members)
	t.Run("joins", func(t *testing.T) { joinsWhileLeaderDies(t, c) })
}

// joinsWhileLeaderDies: machines join while the leader is killed; those that got no answer ask again and are the same.
func joinsWhileLeaderDies(t *testing.T, c *cluster) {
	u := c.admin(t)
	const n = 16
	var bodies []string
	for i := range n {
		bodies = append(bodies, joinBody(t, u.create(t, c.members[i%3], `{"mode":"replicate"}`).Token))
	}
	leader := c.leader(t)
	left := c.others(leader)
	real := c.add() // a real one as well
	c.members = c.members[:3]
	defer func() { c.members = append(c.members, real) }()
	real.args = append(real.args, "--mode", "replicate", "--join", u.create(t, c.members[0], `{}`).Token)
	real.start(t)
	first := make([]answer, n)
	answers := make(chan struct{})
	go func() {
		defer close(answers)
		copy(first, atOnce(n, func(i int) answer {
			time.Sleep(time.Duration(i) * 5 * time.Millisecond)
			return u.do(left[i%2], "POST", "/api/v1/cluster/join", bodies[i])
		}))
	}()
	time.Sleep(40 * time.Millisecond)
	leader.kill()
	<-answers
	places := map[place]int{}
	for i, a := range first {
		if a.err != nil || a.status != 200 &&
			(a.status != 503 || !strings.HasPrefix(a.body, `{"error":"service_unavailable","message":"Service unavailable: `) ||
				a.header.Get("Retry-After") == "") {
			t.Errorf("join %d while the leader dies: %v", i, a)
		}
		var again answer
		eventually(t, formed, "the join succeeds when it is repeated", func() error {
			if again = u.do(left[(i+1)%2], "POST", "/api/v1/cluster/join", bodies[i]); again.err != nil || again.status != 200 {
				return fmt.Errorf("%v", again)
			}
			return nil
		})
		p := placeOf(t, again)
		if a.status == 200 && placeOf(t, a) != p {
			t.Errorf("join %d gave %+v and, repeated, %+v", i, placeOf(t, a), p)
		}
		places[p]++
	}
	if real.awaitReady(t); !real.status(t).Ready || real.identity() == "" {
		t.Errorf("the real member is %q", real.identity())
	}
	members := u.members(t, left[0])
	if len(places) != n || len(members) != 3+n+1 {
		t.Errorf("%d joins have made %d identities and %d members", n+1, len(places), len(members)-3)
	}
	for _, x := range u.tokens(t, left[1]) {
		if x.Uses > 1 {
			t.Errorf("a single-use token was used %d times", x.Uses)
		}
	}
	checkOverlay(t, u, &cluster{members: left})
	leader.start(t)
	c.awaitVoters(t)
}

// TestNoQuorum: with two of three dead the third says what it knows, and that it cannot do more.
func TestNoQuorum(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	u := c.admin(t)
	l := newLedger(1000)
	joinToken := u.create(t, c.members[0], `{"mode":"replicate"}`).Token
	for _, survivorLeads := range []bool{true, false} {
		for range 5 {
			if !l.mint(u, c.members[0]) {
				t.Fatal("a whole cluster does not mint")
			}
		}
		awaitCopies(t, c, c.members...)
		survivor := c.leader(t)
		if !survivorLeads {
			survivor = c.others(survivor)[0]
		}
		whole := u.do(survivor, "GET", "/v1/operator/raft/configuration", "")
		dead := c.others(survivor)
		for _, m := range dead {
			m.kill()
		}
		eventually(t, formed, "nobody leads", func() error {
			st, err := survivor.tryStatus()
			if err == nil && (st.Cluster.LeaderNodeID != 0 || st.Cluster.IsLeader || st.Cluster.Role == "Leader" || !st.Ready) {
				err = fmt.Errorf("the status is %+v", *st.Cluster)
			}
			return err
		})
		for _, query := range []string{"?stale", "?stale=", "?stale=true"} {
			a := u.do(survivor, "GET", "/v1/operator/raft/configuration"+query, "")
			var got, want client.RaftConfiguration
			_ = json.Unmarshal([]byte(whole.body), &want)
			if err := json.Unmarshal([]byte(a.body), &got); a.status != 200 || err != nil || len(got.Servers) != 3 ||
				a.late(time.Second) {
				t.Errorf("%s: %v after %v", query, a, a.took)
				continue
			}
			for i := range got.Servers {
				want.Servers[i].Leader = false
				if got.Servers[i] != want.Servers[i] {
					t.Errorf("%s: server %+v, want %+v", query, got.Servers[i], want.Servers[i])
				}
			}
		}
		calls := withoutQuorum(joinBody(t, joinToken))
		got := atOnce(len(calls), func(i int) answer { return u.do(survivor, calls[i].method, calls[i].path, calls[i].body) })
		for i, x := range calls {
			what := fmt.Sprintf("%s %s without a quorum (it led: %v)", x.method, x.path, survivorLeads)
			got[i].expect(t, what, x.status, x.want)
			if got[i].late(5 * time.Second) {
				t.Errorf("%s: answered after %v", what, got[i].took)
			}
			if x.status >= 500 && got[i].header.Get("Retry-After") == "" {
				t.Errorf("%s: no Retry-After", what)
			}
		}
		// What needs no leader goes on: the member's own replica, the shell, the command line.
		if a := u.do(survivor, "POST", "/api/v1/sql", `{"query":"SELECT count(*) AS n FROM v_members"}`); a.status != 200 ||
			!strings.Contains(a.body, "[[3]]") {
			t.Errorf("sql without a quorum: %v", a)
		}
		if out := muster(t, "status", "--data", survivor.dir); out.code != 0 || !strings.Contains(out.stdout, c.id) {
			t.Errorf("muster status without a quorum: exit status %d: %s%s", out.code, out.stdout, out.stderr)
		}
		if got := sqlite(t, survivor.db(), "SELECT count(*) FROM v_members"); got != "3" {
			t.Errorf("the mirror shows %s members", got)
		}
		if st := c.nobody(t).do(survivor, "GET", "/api/v1/status", ""); st.status != 200 ||
			st.header.Get("X-Ella-Role") == "Leader" {
			t.Errorf("the status without a quorum: %v", st)
		}
		dead[0].start(t) // two of three are enough
		eventually(t, formed, "two of three mint again", func() error {
			if !l.mint(u, survivor) {
				return fmt.Errorf("not yet")
			}
			return nil
		})
		dead[1].start(t)
		c.awaitVoters(t)
		l.check(t, u, c.members)
	}
	for _, x := range u.tokens(t, c.members[0]) {
		if x.NodeID == 999 {
			t.Error("a mint that was answered with 503, no leader, has happened")
		}
	}
	if a := u.do(c.members[0], "POST", "/api/v1/cluster/join", joinBody(t, joinToken)); a.status != 200 {
		t.Errorf("the join token after all that: %v", a)
	}
}

// call is a request and its answer.
type call struct {
	method, path, body string
	status             int
	want               string
}

// withoutQuorum lists what a member answers that knows no leader, in every family; join is the body of a join.
func withoutQuorum(join string) []call {
	const noLeader = `{"error":"no cluster leader: raft commit timeout"}`
	const nomadNoLeader = "No cluster leader"
	const zlayerNoLeader = `{"error":"service_unavailable","message":"Service unavailable: no cluster leader"}`
	const elasticNoLeader = `{"error":{"root_cause":[{"type":"master_not_discovered_exception","reason":"no cluster ` +
		`leader"}],"type":"master_not_discovered_exception","reason":"no cluster leader"},"status":503}`
	return []call{
		{"GET", enrollNode, ``, 503, elasticNoLeader},
		{"POST", apiKeyPath, `{"name":"x"}`, 503, elasticNoLeader},
		{"GET", "/_cluster/health", ``, 503, elasticNoLeader},
		{"POST", enrollTokens, ``, 503, noLeader},
		{"PUT", settingsPath, `{"enrollment.enabled":false}`, 503, noLeader},
		{"POST", "/api/v1/cluster/pki/join-tokens", `{"nodeID":999}`, 503, noLeader},
		{"POST", "/api/v1/cluster/join-tokens", `{}`, 503, noLeader},
		{"DELETE", "/api/v1/cluster/join-tokens/x", ``, 503, noLeader},
		{"POST", "/api/v1/api-tokens", `{"name":"x","scopes":["enroll"]}`, 503, noLeader},
		{"GET", "/api/v1/cluster/members", ``, 503, noLeader},
		{"GET", "/api/v1/cluster/join-tokens", ``, 503, noLeader},
		{"GET", "/api/v1/cluster/autopilot", ``, 503, noLeader},
		{"POST", "/api/v1/cluster/join", join, 503, zlayerNoLeader},
		{"GET", "/v1/operator/raft/configuration", ``, 500, nomadNoLeader},
		{"GET", "/v1/operator/raft/configuration?stale=false", ``, 500, nomadNoLeader},
		{"GET", "/v1/peerings", ``, 500, nomadNoLeader},
		{"GET", "/v1/peering/x?index=1&wait=60s", ``, 500, nomadNoLeader},
		{"POST", "/v1/peering/token", `{"PeerName":"x"}`, 500, nomadNoLeader},
		{"DELETE", "/v1/peering/x", ``, 500, nomadNoLeader},
		{"GET", "/api/v1/nothing", ``, 404, `{"error":"there is nothing at this path"}`},
		{"GET", "/v1/operator/raft/configuration?stale=random", ``, 400,
			"Expect `true` or `false` for `stale` query string parameter"},
	}
}

// TestLeaderPaused: the leader is stopped, with writes under way, and goes on where it was. It must not believe that it
// still leads, and must not do again what was done.
func TestLeaderPaused(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	u := c.admin(t)
	revoked := u.apiToken(t, c.members[0], "revoked meanwhile", "management")
	l := newLedger(1000)
	for _, pause := range []time.Duration{3 * time.Second, 1200 * time.Millisecond, 1200 * time.Millisecond,
		3 * time.Second} {
		old := c.leader(t)
		others := c.others(old)
		var stops []func()
		for _, m := range c.members {
			own := c.admin(t)
			writers := 2
			if m == old { // what it does by itself, without anybody between it and the caller
				writers = 8
			}
			stops = append(stops, run(writers, func() { l.mint(own, m) }),
				run(1, func() { l.list(own, m); time.Sleep(20 * time.Millisecond) }))
		}
		l.awaitMore(t, 20)
		at := now()
		old.pause()
		l.awaitMore(t, 20)
		t.Logf("node %d stopped, longest gap %v", old.n, l.gap(at).Round(time.Millisecond))
		// Requests that wait at the door of the old leader until it wakes: asked after those mints, so they must know of
		// them.
		waiting := make(chan answer, 12)
		for i := range cap(waiting) {
			own := c.admin(t)
			go func() {
				if i%2 == 0 {
					l.list(own, old)
				} else {
					l.mint(own, old)
				}
				waiting <- answer{}
			}()
		}
		members := u.members(t, others[0]) // somebody else leads by now, and all agree on it
		for _, x := range members {
			if x.IsLeader && x.NodeID == uint64(old.n) {
				t.Errorf("node %d is stopped and said to lead", old.n)
			}
		}
		if revoked.ID != "" {
			u.do(others[1], "DELETE", "/api/v1/api-tokens/"+revoked.ID, "").expect(t, "revoking meanwhile", 200,
				`{"result":{"message":"API token revoked"}}`)
			revoked.ID = ""
		}
		thief := c.as(t, revoked.Token)
		stolen := make(chan answer, 4)
		for range cap(stolen) {
			go func() { stolen <- thief.do(old, "GET", "/api/v1/cluster/members", "") }()
		}
		time.Sleep(max(0, pause-(now()-at)))
		old.carryOn()
		for range cap(waiting) {
			<-waiting
		}
		for range cap(stolen) {
			if a := <-stolen; a.err == nil && a.status == 200 {
				t.Errorf("the old leader lets in a token that was revoked while it slept: %v", a)
			}
		}
		l.awaitMore(t, 20)
		for _, stop := range stops {
			stop()
		}
		c.awaitVoters(t)
		// A write now is visible in a read on any member at once.
		for _, m := range c.members {
			if !l.mint(u, m) {
				t.Errorf("node %d does not mint after all is well", m.n)
			}
			for _, r := range c.members {
				l.list(u, r)
			}
		}
	}
	l.check(t, u, c.members)
}
