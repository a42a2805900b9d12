package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestRaft drives the Raft operator family over raw HTTP: what the official client cannot ask or does not show.
func TestRaft(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	t.Run("small neighbours", func(t *testing.T) { testRaftNeighbours(t, c) })
	t.Run("methods", func(t *testing.T) { testRaftMethods(t, c) })
	t.Run("arguments", func(t *testing.T) { testRaftArguments(t, c) })
	t.Run("compression", func(t *testing.T) { testRaftGzip(t, c) })
	t.Run("autopilot settings", func(t *testing.T) { testRaftAutopilot(t, c) })
	t.Run("transfer", func(t *testing.T) { testRaftTransfer(t, c) })
	t.Run("unhealthy", func(t *testing.T) { testRaftUnhealthy(t, c) })
}

// TestRaftLastVoter: a cluster cannot be without a voter, whoever asks.
func TestRaftLastVoter(t *testing.T) {
	t.Parallel()
	c := found(t)
	u, m := c.admin(t), c.members[0]
	servers, err := u.raftServers(m)
	if err != nil || len(servers) != 1 || !servers[0].Leader || !servers[0].Voter || servers[0].RaftProtocol != "3" ||
		servers[0].Node != "node-1.global" {
		t.Fatalf("%+v, %v", servers, err)
	}
	before := u.do(m, "GET", "/v1/operator/raft/configuration", "").body
	for _, query := range []string{"id=" + servers[0].ID, "address=" + m.raft, "id=1"} {
		u.do(m, "DELETE", "/v1/operator/raft/peer?"+query, "").expect(t, query, 500,
			"need at least one voter in configuration: {[]}")
	}
	if after := u.do(m, "GET", "/v1/operator/raft/configuration", "").body; after != before {
		t.Errorf("the configuration was %s and is %s", before, after)
	}
	if a := u.transferTo(m, m); a.status != 200 || !strings.Contains(a.body, `"Noop":true`) {
		t.Errorf("transfer to itself: %v", a)
	}
	u.mint(t, m, 9)
}

func testRaftNeighbours(t *testing.T, c *cluster) {
	leader := c.leader(t)
	for _, m := range c.members {
		for _, u := range []*user{c.admin(t), c.nobody(t)} { // open to everybody, as documented
			u.do(m, "GET", "/v1/status/leader", "").expect(t, "leader", 200, `"`+leader.raft+`"`)
			u.do(m, "GET", "/v1/regions", "").expect(t, "regions", 200, `["global"]`)
			u.do(m, "GET", "/v1/agent/health", "").expect(t, "health", 200, `{"server":{"message":"ok","ok":true}}`)
			u.do(m, "GET", "/v1/agent/health?type=client", "").expect(t, "health of a client", 500,
				`{"client":{"ok":false,"message":"client not enabled"}}`)
			u.do(m, "GET", "/v1/status/leader?region=nope", "").expect(t, "region", 500, "No path to region")
			for _, query := range []string{"", "?stale"} {
				eventually(t, formed, "three peers"+query, func() error { // a replica may be a moment behind
					var peers []string
					a := u.do(m, "GET", "/v1/status/peers"+query, "")
					if err := json.Unmarshal([]byte(a.body), &peers); err != nil || len(peers) != 3 {
						return fmt.Errorf("node %d: %v", m.n, a)
					}
					for _, x := range c.members {
						if !slices.Contains(peers, x.raft) {
							return fmt.Errorf("node %d lacks %s: %v", m.n, x.raft, a)
						}
					}
					return nil
				})
			}
		}
		u := c.admin(t)
		u.do(m, "GET", "/v1/status/leader?pretty", "").expect(t, "pretty", 200, `"`+leader.raft+`"`+"\n")
		var members struct {
			Members []struct {
				Addr, Name, Status string
				Port               int
				Tags               map[string]string
			}
			ServerName, ServerRegion, ServerDC string
		}
		eventually(t, formed, "the agent lists three", func() error { // its replica may be a moment behind
			a := u.do(m, "GET", "/v1/agent/members", "")
			if err := json.Unmarshal([]byte(a.body), &members); err != nil || len(members.Members) != 3 {
				return fmt.Errorf("%v", a)
			}
			return nil
		})
		leads := 0
		for _, x := range members.Members {
			if x.Status != "alive" || x.Tags["role"] != "nomad" || !strings.HasSuffix(x.Name, ".global") ||
				len(x.Tags["id"]) != 36 {
				t.Errorf("node %d shows %+v", m.n, x)
			}
			// how the command line finds the leader
			if x.Addr+":"+x.Tags["port"] == leader.raft && fmt.Sprint(x.Port) == x.Tags["port"] {
				leads++
			}
		}
		if leads != 1 || members.ServerName != fmt.Sprintf("node-%d", m.n) || members.ServerRegion != "global" {
			t.Errorf("node %d: %+v", m.n, members)
		}
		var self struct {
			Config map[string]any
			Member struct{ Name string }
			Stats  map[string]map[string]string
		}
		if a := u.do(m, "GET", "/v1/agent/self", ""); json.Unmarshal([]byte(a.body), &self) != nil ||
			self.Member.Name != fmt.Sprintf("node-%d.global", m.n) || self.Stats["raft"]["num_peers"] != "2" {
			t.Errorf("self of node %d: %v", m.n, a)
		}
		c.nobody(t).do(m, "GET", "/v1/agent/members", "").expect(t, "members without a token", 403, "Permission denied")
		c.nobody(t).do(m, "GET", "/v1/operator/autopilot/health", "").expect(t, "health without a token", 403,
			"Permission denied")
	}
}

func testRaftMethods(t *testing.T, c *cluster) {
	u := c.admin(t)
	for _, x := range []struct{ method, path, body, kind string }{
		{"POST", "/v1/operator/raft/configuration", "", ""}, // unlike its siblings, as documented
		{"HEAD", "/v1/operator/raft/configuration", "", ""},
		{"GET", "/v1/operator/raft/peer", "Invalid method", "text/plain; charset=utf-8"},
		{"PUT", "/v1/operator/raft/peer", "Invalid method", "text/plain; charset=utf-8"},
		{"GET", "/v1/operator/raft/transfer-leadership", "Invalid method", "text/plain; charset=utf-8"},
		{"DELETE", "/v1/operator/raft/transfer-leadership", "Invalid method", "text/plain; charset=utf-8"},
		{"PATCH", "/v1/operator/raft/transfer-leadership", "Invalid method", "text/plain; charset=utf-8"},
		{"OPTIONS", "/v1/operator/raft/transfer-leadership", "Invalid method", "text/plain; charset=utf-8"},
		{"POST", "/v1/operator/autopilot/configuration", "Invalid method", "text/plain; charset=utf-8"},
		{"POST", "/v1/operator/autopilot/health", "Invalid method", "text/plain; charset=utf-8"},
		{"DELETE", "/v1/operator/snapshot", "Invalid method", "text/plain; charset=utf-8"},
		{"POST", "/v1/status/leader", "Invalid method", "text/plain; charset=utf-8"},
		{"POST", "/v1/status/peers", "Invalid method", "text/plain; charset=utf-8"},
	} {
		a := u.do(c.members[0], x.method, x.path, "")
		if a.status != 405 || a.body != x.body || a.header.Get("Content-Type") != x.kind {
			t.Errorf("%s %s: %v (%s)", x.method, x.path, a, a.header.Get("Content-Type"))
		}
	}
	u.do(c.members[1], "GET", "/v1/operator/raft/nothing", "").expect(t, "unknown leaf", 404, "Invalid method")
}

// testRaftArguments: the order of the rules of a transfer and of a removal, which comes before the question of who
// asks.
func testRaftArguments(t *testing.T, c *cluster) {
	unknown := "11111111-1111-4111-8111-111111111111"
	transfer, remove := "/v1/operator/raft/transfer-leadership", "/v1/operator/raft/peer"
	for _, x := range []struct {
		method, target string
		status         int
		body           string
	}{
		{"PUT", transfer, 400, "must specify id or address"},
		{"PUT", transfer + "?id=a&address=b", 400, "must specify either id or address"},
		{"PUT", transfer + "?id", 400, "id must be non-empty"},
		{"PUT", transfer + "?id=a&id=b", 400, "must specify only one id"},
		{"PUT", transfer + "?address=", 400, "address must be non-empty"},
		{"PUT", transfer + "?address=a&address=b", 400, "must specify only one address"},
		{"PUT", transfer + "?id=foo", 400, "id must be a uuid: uuid string is wrong length"},
		{"PUT", transfer + "?id=" + strings.Repeat("1", 36), 400, "id must be a uuid: uuid is improperly formatted"},
		{"PUT", transfer + "?address=bar", 400, "address must be in IP:port format: not an ip:port"},
		{"PUT", transfer + "?address=localhost:4647", 400,
			`address must be in IP:port format: ParseAddr("localhost"): unable to parse IP`},
		{"POST", transfer + "?address=1.2.3.4:99999", 400,
			`address must be in IP:port format: invalid port "99999" parsing "1.2.3.4:99999"`},
		{"PUT", transfer + "?region=nope&id=" + unknown, 500, "No path to region"},
		{"DELETE", remove, 400, "Must specify either ?id with the server's ID or ?address with IP:port of peer to remove"},
		{"DELETE", remove + "?id=a&address=b", 400, "Must specify only one of ?id or ?address"},
		{"DELETE", remove + "?id=a&region=nope", 500, "No path to region"},
	} {
		for i, u := range []*user{c.admin(t), c.nobody(t)} {
			u.do(c.members[i], x.method, x.target, "").expect(t, x.method+" "+x.target, x.status, x.body)
		}
	}
	u := c.admin(t)
	for _, m := range c.members { // the same words from each member
		u.do(m, "PUT", transfer+"?stale=random&id="+unknown, "").expect(t, "unknown id", 400, `id "`+unknown+
			`" was not found in the Raft configuration`)
		u.do(m, "PUT", transfer+"?address=9.9.9.9:8000", "").expect(t, "unknown address", 400,
			`address "9.9.9.9:8000" was not found in the Raft configuration`)
		u.do(m, "DELETE", remove+"?id", "").expect(t, "empty id", 500, `id "" was not found in the Raft configuration`)
		u.do(m, "DELETE", remove+"?id=%22q%22%0Ax", "").expect(t, "quoting", 500,
			`id "\"q\"\nx" was not found in the Raft configuration`)
		u.do(m, "DELETE", remove+"?address=nope", "").expect(t, "unknown address", 500,
			`address "nope" was not found in the Raft configuration`)
	}
}

func testRaftGzip(t *testing.T, c *cluster) {
	u := c.admin(t)
	plain := u.do(c.members[0], "GET", "/v1/operator/raft/configuration", "", "Accept-Encoding: identity")
	for _, m := range c.members {
		a := u.do(m, "GET", "/v1/operator/raft/configuration", "", "Accept-Encoding: gzip")
		zip, err := gzip.NewReader(strings.NewReader(a.body))
		if err != nil || a.header.Get("Content-Encoding") != "gzip" || a.header.Get("Vary") != "Accept-Encoding" {
			t.Fatalf("node %d: %v %v", m.n, err, a.header)
		}
		text, err := io.ReadAll(zip)
		if err != nil || string(text) != plain.body {
			t.Errorf("node %d: %v: %s, without compression %s", m.n, err, text, plain.body)
		}
	}
}

func testRaftAutopilot(t *testing.T, c *cluster) {
	const path = "/v1/operator/autopilot/configuration"
	u := c.admin(t)
	const first = `{"LastContactThreshold":"2s","ServerStabilizationTime":"10s","CleanupDeadServers":false,` +
		`"MaxTrailingLogs":10000,"MinQuorum":2,` +
		`"EnableRedundancyZones":false,"DisableUpgradeMigration":true,"EnableCustomUpgrades":false,"CreateIndex":1,` +
		`"ModifyIndex":1}`
	for _, m := range c.members {
		u.do(m, "GET", path, "").expect(t, "defaults", 200, first)
		u.do(m, "GET", path+"?stale&pretty", "").expect(t, "defaults, stale and pretty", 200, first+"\n")
	}
	for _, x := range []struct {
		query, body string
		status      int
		want        string
	}{
		{"", "", 400, "Error parsing autopilot config: Request body is empty"},
		{"", "[1]", 400, "Error parsing autopilot config: the body must be a JSON object"},
		{"", "{", 400, "Error parsing autopilot config: the body must be a JSON object"},
		{"", `{"LastContactThreshold":5}`, 400,
			"Error parsing autopilot config: LastContactThreshold must be a string, not a number"},
		{"", `{"ServerStabilizationTime":"soon"}`, 400,
			`Error parsing autopilot config: ServerStabilizationTime must be a duration such as "200ms", not "soon"`},
		{"", `{"LastContactThreshold":"-1s"}`, 400,
			"Error parsing autopilot config: LastContactThreshold must be between 100ms and 10m0s, not -1s"},
		{"", `{"MaxTrailingLogs":-1}`, 400,
			"Error parsing autopilot config: MaxTrailingLogs must be a uint64, not a number -1"},
		{"", `{"MinQuorum":6}`, 400, "Error parsing autopilot config: MinQuorum must be between 1 and maxVoters (5), not 6"},
		{"", `{"EnableRedundancyZones":1}`, 400,
			"Error parsing autopilot config: EnableRedundancyZones must be a bool, not a number"},
		{"?cas=abc", first, 400, `Error parsing cas value: strconv.ParseUint: parsing "abc": invalid syntax`},
		{"?cas=77", first, 200, "false"},
	} {
		u.do(c.members[1], "PUT", path+x.query, x.body).expect(t, x.query+x.body, x.status, x.want)
	}
	u.do(c.members[2], "GET", path, "").expect(t, "nothing has changed", 200, first)
	u.do(c.members[2], "PUT", path+"?cas=1",
		`{"ServerStabilizationTime":"3s","MaxTrailingLogs":777,"CleanupDeadServers":true}`).expect(t, "cas", 200, "true")
	own := u.do(c.members[0], "GET", "/api/v1/cluster/autopilot/config", "")
	if !strings.Contains(own.body,
		`"stabilization":"3s","lastContactThreshold":"2s","maxLagRevisions":777,"maxLagTime":"30s",`+
			`"cleanupDeadMembers":true`) {
		t.Errorf("our own API says %v", own)
	}
	u.do(c.members[0], "PUT", path+"?cas=1", first).expect(t, "an old cas", 200, "false")
	// What only our own API knows stays; what this family leaves out goes back.
	u.do(c.members[0], "PUT", "/api/v1/cluster/autopilot/config", `{"maxVoters":7}`)
	u.do(c.members[1], "PUT", path, first).expect(t, "full replace", 200, "true")
	if own := u.do(c.members[0], "GET", "/api/v1/cluster/autopilot/config", ""); !strings.Contains(own.body,
		`"maxVoters":7`) || !strings.Contains(own.body, `"maxLagRevisions":10000`) {
		t.Errorf("after a full replace our own API says %v", own)
	}
}

// transferTo asks for a hand-over and tells what came of it.
func (u *user) transferTo(m, to *member) answer {
	return u.do(m, "PUT", "/v1/operator/raft/transfer-leadership?address="+to.raft, "")
}

func testRaftTransfer(t *testing.T, c *cluster) {
	u := c.admin(t)
	follower := c.others(c.leader(t))[0]
	a := u.transferTo(follower, follower)
	if a.status != 200 || !strings.HasPrefix(a.body, `{"Err":null,"From":{"Address":"`) ||
		!strings.Contains(a.body, `"Noop":false`) {
		t.Fatalf("transfer: %v", a)
	}
	if a := u.transferTo(c.members[0], follower); a.status != 200 || !strings.Contains(a.body, `"Noop":true`) {
		t.Errorf("transfer to the leader: %v", a)
	}
	// Two at once, and a removal that is refused, in the middle of them: each gets an answer, and one leads in the end.
	others := c.others(follower)
	var wait sync.WaitGroup
	for _, to := range others {
		wait.Go(func() {
			if a := u.transferTo(follower, to); a.status != 200 {
				t.Errorf("one of two transfers: %v", a)
			}
		})
	}
	wait.Go(func() {
		if a := u.do(follower, "DELETE", "/v1/operator/raft/peer?id=nope", ""); a.status != 500 || a.late(5*time.Second) {
			t.Errorf("a removal during transfers: %v after %v", a, a.took)
		}
	})
	wait.Wait()
	leader := c.leader(t)
	u.mint(t, leader, 900)

	// A member is removed in the middle of transfers: both are done in the end.
	fourth := c.add()
	c.join(fourth)
	eventually(t, formed, "a stand-by", func() error {
		row, err := u.row(leader, fourth.n)
		if err == nil && row.Role != "standby" {
			err = fmt.Errorf("%+v", row)
		}
		return err
	})
	stopTransfers := run(1, func() {
		u.transferTo(c.members[0], c.members[1])
		u.transferTo(c.members[0], c.members[2])
	})
	gone := u.do(c.members[1], "DELETE", "/v1/operator/raft/peer?address="+fourth.raft, "")
	stopTransfers()
	if gone.status != 200 || gone.body != "" || gone.header.Get("Content-Type") != "" {
		t.Errorf("a removal during transfers: %v (%s)", gone, gone.header.Get("Content-Type"))
	}
	fourth.awaitExpelled(t)
	c.members = c.members[:3]
	leader = c.leader(t)
	if servers, err := u.raftServers(leader); err != nil || len(servers) != 3 {
		t.Errorf("after a removal during transfers: %+v, %v", servers, err)
	}

	// A target that is frozen or dead costs nothing: leadership stays where it is.
	target, third := c.others(leader)[0], c.others(leader)[1]
	target.pause()
	a = u.transferTo(third, target)
	target.carryOn()
	// does not answer, or did not take over
	a.is(t, "to a frozen member", 500, fmt.Sprintf("failed to transfer leadership: node %d d", target.n))
	target.kill()
	u.transferTo(third, target).expect(t, "to a dead member", 500,
		fmt.Sprintf("failed to transfer leadership: node %d does not answer", target.n))
	if now := c.leader(t); now != leader {
		t.Errorf("node %d leads after two transfers that failed, not node %d", now.n, leader.n)
	}
	u.mint(t, third, 901)

	// One that is too far behind is refused with the reason.
	u.do(leader, "PUT", "/api/v1/cluster/autopilot/config", `{"maxLagRevisions":1}`)
	target.start(t)
	target.awaitReady(t)
	stop := run(4, func() { u.do(leader, "POST", "/api/v1/cluster/join-tokens", `{"ttlSeconds":300}`) })
	eventually(t, formed, "a lagging member is refused", func() error {
		a := u.transferTo(leader, target)
		if a.status == 500 && strings.Contains(a.body, "revisions behind, 1 are allowed") {
			return nil
		}
		if now := c.leader(t); now != leader {
			u.transferTo(leader, leader)
		}
		return fmt.Errorf("%v", a)
	})
	stop()
	u.do(leader, "PUT", "/api/v1/cluster/autopilot/config", `{"maxLagRevisions":10000}`)
	c.awaitVoters(t)
}

func testRaftUnhealthy(t *testing.T, c *cluster) {
	u := c.admin(t)
	const path = "/v1/operator/autopilot/health"
	var health struct {
		FailureTolerance int
		Healthy          bool
		Leader           string
		Voters           []string
		Servers          []struct {
			LastContact, ID, Name, Address, SerfStatus, Version, StableSince string
			Leader, Healthy, Voter                                           bool
			LastTerm, LastIndex                                              uint64
		}
	}
	eventually(t, formed, "healthy", func() error {
		a := u.do(c.members[1], "GET", path, "")
		if a.status != 200 || json.Unmarshal([]byte(a.body), &health) != nil || len(health.Servers) != 3 ||
			len(health.Voters) != 3 || health.FailureTolerance != 1 {
			return fmt.Errorf("%v", a)
		}
		return nil
	})
	for _, s := range health.Servers {
		if _, err := time.ParseDuration(s.LastContact); err != nil || !s.Healthy || !s.Voter || s.SerfStatus != "alive" ||
			s.LastTerm == 0 || s.LastIndex == 0 || s.Leader != (s.ID == health.Leader) {
			t.Errorf("%+v", s)
		}
		if _, err := time.Parse(time.RFC3339, s.StableSince); err != nil {
			t.Error(err)
		}
	}
	dead := c.others(c.leader(t))[0]
	dead.kill()
	asked := c.others(dead)[0]
	eventually(t, formed, "unhealthy", func() error {
		a := u.do(asked, "GET", path, "")
		if a.status != 429 || !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") ||
			!strings.Contains(a.body, `"SerfStatus":"failed"`) {
			return fmt.Errorf("%v", a)
		}
		return nil
	})
	a := u.do(asked, "GET", path+"?status=200", "")
	if a.status != 200 || !json.Valid(bytes.TrimSpace([]byte(a.body))) || !strings.Contains(a.body, `"Healthy":false`) {
		t.Errorf("with status=200: %v", a)
	}
	eventually(t, formed, "the agent sees it, too", func() error {
		if a := u.do(asked, "GET", "/v1/agent/members", ""); !strings.Contains(a.body, `"Status":"failed"`) {
			return fmt.Errorf("%v", a)
		}
		return nil
	})
	// Without a quorum: what needs a leader says so in time, what does not answers at once.
	c.others(dead)[1].kill()
	eventually(t, formed, "leaderless", func() error {
		if a := u.do(asked, "GET", "/v1/status/leader?stale", ""); a.status != 200 || a.body != `""` {
			return fmt.Errorf("%v", a)
		}
		return nil
	})
	u.do(asked, "GET", "/v1/agent/health?stale", "").expect(t, "health, stale", 500,
		`{"server":{"ok":false,"message":"no leader"}}`)
	var wait sync.WaitGroup
	for path, want := range map[string]string{"/v1/status/leader": "No cluster leader",
		"/v1/status/peers":              "No cluster leader",
		"/v1/operator/autopilot/health": "No cluster leader", "/v1/operator/snapshot": "No cluster leader",
		"/v1/agent/health": `{"server":{"ok":false,"message":"No cluster leader"}}`} {
		wait.Go(func() {
			if a := u.do(asked, "GET", path, ""); a.status != 500 || a.body != want || a.late(6*time.Second) {
				t.Errorf("GET %s without a leader: %v after %v", path, a, a.took)
			}
		})
	}
	for path, want := range map[string]string{"/v1/status/peers?stale": asked.raft,
		"/v1/agent/members":                          asked.raft[strings.Index(asked.raft, ":")+1:],
		"/v1/operator/autopilot/configuration?stale": "MaxTrailingLogs"} {
		if a := u.do(asked, "GET", path, ""); a.status != 200 || !strings.Contains(a.body, want) || a.late(4*time.Second) {
			t.Errorf("GET %s without a leader: %v after %v", path, a, a.took)
		}
	}
	if a := u.do(asked, "GET", "/v1/operator/snapshot?stale", ""); a.status != 200 ||
		len(unpack(t, []byte(a.body))["state.bin"]) == 0 {
		t.Errorf("a stale snapshot without a leader: %d %v", a.status, a.header)
	}
	wait.Wait()
}
