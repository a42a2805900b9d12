package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestNames: a member is found by each of its names, and never for another one, dead or alive.
func TestNames(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	u := c.admin(t)
	leader := c.leader(t)
	third := c.others(leader)[1]
	rows := u.members(t, leader)
	for _, r := range rows {
		for _, text := range []string{fmt.Sprint(r.NodeID), r.ID, r.Name, r.RaftAddress,
			strings.TrimPrefix(r.APIAddress, "https://")} {
			u.do(third, "GET", "/api/v1/cluster/members/"+text, "").is(t, text, 200,
				fmt.Sprintf(`{"result":{"nodeId":%d,`, r.NodeID))
		}
	}
	u.do(third, "GET", "/api/v1/cluster/members/127.0.0.1", "").is(t, "all of them", 409,
		`{"error":"\"127.0.0.1\" can mean 3 members: 1 (`)
	u.do(third, "DELETE", "/v1/operator/raft/peer?address=127.0.0.1", "").is(t, "all of them", 409,
		`"127.0.0.1" can mean 3 members`)
	// A machine with a live member's address or name is refused; the token stays good.
	token := u.create(t, leader, `{}`).Token
	u.do(third, "POST", "/api/v1/cluster/join", joinBody(t, token, "raft_address", leader.raft)).is(t, "a live address",
		409,
		`{"error":"conflict","message":"Conflict: the address `+leader.raft+` belongs to node `)
	u.do(third, "POST", "/api/v1/cluster/join", joinBody(t, token, "name", "node-1")).is(t, "a live name", 409,
		`{"error":"conflict","message":"Conflict: the name node-1 belongs to node 1 (node-1), which is alive`)
	u.do(third, "POST", "/api/v1/cluster/join", joinBody(t, token, "name", "Node-1.")).is(t,
		"a live name, written otherwise", 409,
		`{"error":"conflict","message":"Conflict: the name Node-1. belongs to node 1 (node-1), which is alive`)
	u.do(third, "POST", "/api/v1/cluster/join", joinBody(t, token, "name", " node-9")).is(t, "white space around a name",
		400,
		`{"error":"bad_request","message":"Bad request: the name must be 1 to 64 bytes of UTF-8, without control `+
			`characters or`)
	u.do(third, "POST", "/api/v1/cluster/join", joinBody(t, token, "name", "2")).is(t, "another member's number as a name",
		400,
		`{"error":"bad_request","message":"Bad request: the name must not be a whole number: 2 means the member with that `+
			`number`)
	refusal(t, "a founder called by a number", t.TempDir(), "--name: the name must not be a whole number", command{},
		append(listenFlags(), "--name", "2")...)
	refusal(t, "white space around a founder's name", t.TempDir(), "--name: the name must be 1 to 64 bytes", command{},
		append(listenFlags(), "--name", " x")...)
	// One with a dead member's address is let in; from then on the address alone names nobody.
	dead := c.others(leader)[0]
	dead.kill()
	eventually(t, formed, "it is seen to be dead", func() error {
		if r, err := u.row(leader, dead.n); err != nil || r.Status != "down" {
			return fmt.Errorf("%+v, %v", r, err)
		}
		return nil
	})
	u.do(third, "POST", "/api/v1/cluster/join", joinBody(t, token, "raft_address", dead.raft)).is(t, "a dead address", 200,
		`{"node_id":"`)
	u.do(third, "DELETE", "/v1/operator/raft/peer?address="+dead.raft, "").is(t, "two have it", 409, `"`+dead.raft+
		`" can mean 2 members`)
}

// TestRenumbered: all members have other addresses at once, and one of them is told where another is.
func TestRenumbered(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	for _, m := range c.members {
		m.stop(t)
	}
	for i, m := range c.members {
		host := fmt.Sprintf("127.0.0.%d", 20+i)
		m.move(fmt.Sprintf("%s:%d", host, freePort()), fmt.Sprintf("%s:%d", host, freePort()))
	}
	for i, m := range c.members {
		next := c.members[(i+1)%3]
		m.args = append(m.args, "--peer", fmt.Sprintf("%d=%s", next.n, next.raft))
		m.start(t)
	}
	begin := time.Now()
	for i, m := range c.members {
		m.awaitReady2(t, "127.0.0.1", fmt.Sprintf("127.0.0.%d", 20+i))
	}
	c.awaitVoters(t)
	t.Logf("healthy after %v", time.Since(begin).Round(time.Millisecond))
	u := c.admin(t)
	for _, m := range c.members {
		eventually(t, formed, "the table follows", func() error {
			if r, err := u.row(c.members[0], m.n); err != nil || r.RaftAddress != m.raft || r.APIAddress != "https://"+m.api {
				return fmt.Errorf("%+v, %v", r, err)
			}
			return nil
		})
	}
	// What was learned is kept: they start again without being told.
	for _, m := range c.members {
		m.stop(t)
		m.args = m.args[:len(m.args)-2]
	}
	for _, m := range c.members {
		m.start(t)
	}
	c.awaitVoters(t)
}

// TestClonedDisk: a process with the identity of one that runs is refused, wherever it starts, and both say so.
func TestClonedDisk(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	m := c.others(c.leader(t))[0]
	m.stop(t)
	copied := m.dir + "-copy"
	if out, err := exec.Command("cp", "-a", m.dir, copied).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	m.start(t)
	m.awaitReady(t)
	c.awaitVoters(t)
	out := command{limit: 20 * time.Second}.run(t, append([]string{"serve", "--data", copied}, listenFlags()...)...)
	if want := fmt.Sprintf("another process is node %d", m.n); out.code != 1 || !strings.Contains(out.stderr, want) {
		t.Errorf("the copy: exit status %d, %s", out.code, out.stderr)
	}
	if doctor := muster(t, "doctor", "--data", copied); !strings.Contains(doctor.stdout, "was refused") {
		t.Errorf("doctor on the copy says %s", doctor.stdout)
	}
	if doctor := muster(t, "doctor", "--data", m.dir); !strings.Contains(doctor.stdout,
		"a second process with the identity") {
		t.Errorf("doctor on the original says %s", doctor.stdout)
	}
	log, err := os.ReadFile(m.log)
	if err != nil || !strings.Contains(string(log), "a second process with this member's identity was refused") {
		t.Errorf("the original's log does not say so: %v", err)
	}
	c.awaitVoters(t)
}
