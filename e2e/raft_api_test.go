package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

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

	target, third := c.others(leader)[0], c.others(leader)[1]
	deadTargets(t, c, u, leader, target, third)
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

// deadTargets: a target that is frozen or dead costs nothing; leadership stays where it is.
func deadTargets(t *testing.T, c *cluster, u *user, leader, target, third *member) {
	t.Helper()
	target.pause()
	a := u.transferTo(third, target)
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
	withoutLeader(t, u, asked, c.others(dead)[1])
}

// withoutLeader: what needs a leader says so in time, what does not answers at once.
func withoutLeader(t *testing.T, u *user, asked, last *member) {
	t.Helper()
	last.kill()
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
