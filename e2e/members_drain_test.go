package e2e

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMembersDrain: leases, deadlines, hooks, and leadership that moves out of the way.
func TestMembersDrain(t *testing.T) {
	t.Parallel()
	notes := filepath.Join(t.TempDir(), "notes")
	c := clusterWith(t, 3, func(n int) []string {
		switch n {
		case 2:
			return []string{"--drain-hook", "quick=true", "--drain-hook", "hangs=sleep 600", "--drain-hook", "after=true",
				"--resume-hook", "note=true"}
		case 3:
			note := `echo "$MUSTER_HOOK $MUSTER_NODE_ID $MUSTER_NODE_NAME" >>` + notes
			return []string{"--drain-hook", "note=" + note, "--drain-hook", "fails=echo secret; exit 3", "--drain-hook",
				"forks=sleep 2 & exit 0", "--resume-hook", "note=" + note}
		}
		return nil
	})
	c.awaitVoters(t)
	for _, x := range []struct {
		name string
		test func(*testing.T, *cluster)
	}{
		{"leases", testLeases}, {"lease refusals", testLeaseRefusals}, {"deadline and resume", testDeadlines},
		{"the leader", testDrainLeader},
		{"command line", testDrainCommandLine},
	} {
		t.Run(x.name, func(t *testing.T) { x.test(t, c) })
	}
	t.Run("hooks", func(t *testing.T) { testHooks(t, c, notes) })
}

// testLeases: what is leased elsewhere holds a drain up until it is given back, expires, or the deadline has come.
func testLeases(t *testing.T, c *cluster) {
	u := c.admin(t)
	const target = 1
	c.leadElsewhere(t, target)
	leader := c.leader(t)
	other := c.others(leader)[0]
	leader = c.leader(t)

	u.lease(other, "phone/1", target, 60).is(t, "lease through a path with a slash", 404,
		`{"error":"there is nothing at this path"}`)
	u.lease(other, "phone%2F1", target, 60).is(t, "lease", 201, `{"result":{"id":"phone/1","nodeId":1,"createdAt":"20`)
	u.lease(leader, "phone%2F1", target, 90).is(t, "renewal", 200, `{"result":{"id":"phone/1","nodeId":1,"createdAt":"20`)
	u.lease(leader, "phone%2F1", 2, 90).expect(t, "move", 409,
		`{"error":"the lease is held on node 1; delete it first to move it"}`)
	u.lease(leader, "short", target, 2).is(t, "a short lease", 201, `{"result":{"id":"short"`)
	granted := time.Now()

	begun := drainOf(t, "drain", u.drain(other, target, `{"deadlineSeconds":30}`))
	if begun.DrainState != "draining" || len(begun.Warnings) > 0 {
		t.Errorf("the drain begins with %+v", begun)
	}
	if at, err := time.Parse(time.RFC3339, begun.Deadline); err != nil || time.Until(at) < 27*time.Second ||
		time.Until(at) > 31*time.Second {
		t.Errorf("the deadline of a drain of 30 s is %s", begun.Deadline)
	}
	for _, m := range []*member{leader, other} {
		u.lease(m, "new", target, 60).expect(t, "a new lease while draining", 409,
			`{"error":"node 1 is draining: no new leases are granted on it"}`)
		u.lease(m, "phone%2F1", target, 60).is(t, "a renewal while draining", 200, `{"result":{"id":"phone/1"`)
	}
	u.lease(other, "new", 3, 60).is(t, "a new lease elsewhere", 201, `{"result":{"id":"new","nodeId":3`)
	list := func(node string) string {
		var ids []string
		for _, x := range get[[]struct{ ID string }](t, u, other, "GET", "/api/v1/cluster/leases"+node, "") {
			ids = append(ids, x.ID)
		}
		return strings.Join(ids, " ")
	}
	if got := list("?nodeId=3"); got != "new" {
		t.Errorf("the leases on node 3: %s", got)
	}
	eventually(t, formed, "the short lease has expired", func() error {
		if got := list(""); got != "new phone/1" {
			return errors.New(got)
		}
		return nil
	})
	if took := time.Since(granted); took < 1900*time.Millisecond {
		t.Errorf("a lease of 2 s has expired after %v", took)
	}
	u.lease(leader, "short", target, 60).expect(t, "a lease that has expired cannot be renewed", 409,
		`{"error":"node 1 is draining: no new leases are granted on it"}`)
	throughout(t, 600*time.Millisecond, "a lease is held", func() error {
		if got := u.drainState(t, other, target); got != "draining" {
			return errors.New(got)
		}
		return nil
	})
	u.do(other, "DELETE", "/api/v1/cluster/leases/phone%2F1", "").expect(t, "give it back", 200,
		`{"result":{"message":"Lease released"}}`)
	given := time.Now()
	if took := u.awaitDrain(t, other, target, "drained", formed); late(given, took, 3*time.Second) {
		t.Errorf("the drain has ended %v after the last lease", took)
	}
	u.lease(leader, "new2", target, 60).expect(t, "a new lease on a drained member", 409,
		`{"error":"node 1 is drained: no new leases are granted on it"}`)
	u.do(other, "DELETE", "/api/v1/cluster/leases/phone%2F1", "").expect(t, "give it back again", 404,
		`{"error":"lease not found"}`)
	u.do(other, "DELETE", "/api/v1/cluster/leases/new", "").is(t, "give it back", 200, "")
	u.resume(other, target).is(t, "resume", 200, `{"result":{"message":"Cluster member resumed"`)
	u.lease(leader, "new2", target, 1).is(t, "a lease after the resume", 201, "")
}

func testLeaseRefusals(t *testing.T, c *cluster) {
	u := c.admin(t)
	for role, m := range c.throughBoth(t) {
		for _, x := range []struct {
			id, body string
			status   int
			want     string
		}{
			{"x", "", 400, `{"error":"the body must be a JSON object"}`},
			{"x", "[]", 400, `{"error":"the body must be a JSON object"}`},
			{"x", "{}", 400, `{"error":"nodeId is required and must be a whole number between 1 and 9007199254740991"}`},
			{"x", `{"nodeId":"1","ttlSeconds":5}`, 400,
				`{"error":"nodeId must be a whole number between 1 and 9007199254740991"}`},
			{"x", `{"nodeId":0,"ttlSeconds":5}`, 400,
				`{"error":"nodeId must be a whole number between 1 and 9007199254740991"}`},
			{"x", `{"nodeId":1}`, 400, `{"error":"ttlSeconds is required and must be a whole number between 1 and 86400"}`},
			{"x", `{"nodeId":1,"ttlSeconds":0}`, 400, `{"error":"ttlSeconds must be a whole number between 1 and 86400"}`},
			{"x", `{"nodeId":1,"ttlSeconds":86401}`, 400, `{"error":"ttlSeconds must be a whole number between 1 and 86400"}`},
			{"x", `{"nodeId":1,"ttlSeconds":5,"kind":5}`, 400, `{"error":"kind must be a string"}`},
			{"x", `{"nodeId":99,"ttlSeconds":5}`, 404, `{"error":"Cluster member not found"}`},
			{strings.Repeat("x", 129), `{"nodeId":1,"ttlSeconds":5}`, 400, `{"error":"the lease id must have 1 to 128 bytes"}`},
		} {
			u.do(m, "PUT", "/api/v1/cluster/leases/"+x.id, x.body).expect(t,
				fmt.Sprintf("%.10s %s on the %s", x.id, x.body, role), x.status, x.want)
		}
		u.do(m, "GET", "/api/v1/cluster/leases?nodeId=x", "").expect(t, "list on the "+role, 400,
			`{"error":"nodeId must be a member's number"}`)
		u.do(m, "GET", "/api/v1/cluster/leases/x", "").expect(t, "get on the "+role, 405,
			`{"error":"the method GET is not allowed here"}`)
		u.do(m, "DELETE", "/api/v1/cluster/leases/never", "").expect(t, "delete on the "+role, 404,
			`{"error":"lease not found"}`)
	}
}

// testDeadlines: the deadline ends a drain whatever is leased, and a resume ends it for good.
func testDeadlines(t *testing.T, c *cluster) {
	u := c.admin(t)
	const target = 1
	c.leadElsewhere(t, target)
	m := c.others(c.leader(t))[0]
	u.lease(m, "stays", target, 600).is(t, "lease", 201, "")
	begin := time.Now()
	u.drain(m, target, `{"deadlineSeconds":1}`).is(t, "drain", 200, `{"result":{"drainState":"draining"`)
	u.awaitDrain(t, m, target, "drained", formed)
	if took := time.Since(begin); took < 990*time.Millisecond || late(begin, took, 4*time.Second) {
		t.Errorf("a deadline of 1 s has ended the drain after %v", took)
	}
	u.resume(m, target).is(t, "resume", 200, "")

	// Resumed before the deadline: the drain that was under way is void, also at its deadline.
	u.drain(m, target, `{"deadlineSeconds":1}`).is(t, "drain", 200, `{"result":{"drainState":"draining"`)
	u.resume(m, target).is(t, "resume", 200, "")
	throughout(t, 2200*time.Millisecond, "after the resume", func() error {
		if got := u.drainState(t, m, target); got != "active" {
			return errors.New(got)
		}
		return nil
	})
	// Racing each other at the deadline: whatever wins, a resume that was answered holds.
	for range 2 {
		end, err := time.Parse(time.RFC3339, drainOf(t, "drain", u.drain(m, target, `{"deadlineSeconds":1}`)).Deadline)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, formed, "the deadline is near", func() error {
			if left := time.Until(end); left > 20*time.Millisecond {
				return fmt.Errorf("%v left", left)
			}
			return nil
		})
		for range 4 {
			u.resume(m, target).is(t, "resume", 200, "")
			if got := u.drainState(t, m, target); got != "active" {
				t.Fatalf("right after a resume the state is %s", got)
			}
		}
	}
	throughout(t, 500*time.Millisecond, "after the last resume", func() error {
		if got := u.drainState(t, m, target); got != "active" {
			return errors.New(got)
		}
		return nil
	})
	u.do(m, "DELETE", "/api/v1/cluster/leases/stays", "").is(t, "give it back", 200, "")
}

// leadElsewhere moves leadership to another member if this one has it.
func (c *cluster) leadElsewhere(t *testing.T, id int) {
	t.Helper()
	leader := c.leader(t)
	if leader.n != id {
		return
	}
	c.lead(t, c.others(leader)[0])
}

// lead makes a member the leader.
func (c *cluster) lead(t *testing.T, to *member) {
	t.Helper()
	u := c.admin(t)
	eventually(t, formed, fmt.Sprintf("node %d leads", to.n), func() error {
		if c.leader(t) == to {
			return nil
		}
		a := u.do(to, "PUT", "/v1/operator/raft/transfer-leadership?address="+to.raft, "")
		return fmt.Errorf("%v", a)
	})
}

// testDrainLeader: a leader that is drained hands leadership over and the request is answered all the same.
func testDrainLeader(t *testing.T, c *cluster) {
	u := c.admin(t)
	for _, through := range []string{"leader", "follower"} {
		c.lead(t, c.members[0]) // which has no hooks
		leader := c.leader(t)
		m := c.throughBoth(t)[through]
		a := u.drain(m, leader.n, "")
		a.expect(t, "drain of the leader through the "+through, 200, `{"result":{"drainState":"drained"}}`)
		next := leader
		eventually(t, formed, "another one leads", func() error { // one that stands still for a moment gives way again
			if next = c.leader(t); next == leader {
				return fmt.Errorf("node %d is drained and leads", leader.n)
			}
			return nil
		})
		t.Logf("the drain of the leader through the %s took %v; node %d leads now", through, a.took.Round(time.Millisecond),
			next.n)
		// While another voter is there, a drained one is not elected, nor can it take over.
		eventually(t, formed, "autopilot shows the drain", func() error {
			if a := u.do(m, "GET", "/api/v1/cluster/autopilot", ""); !strings.Contains(a.body, `"drainState":"drained"`) {
				return fmt.Errorf("%v", a)
			}
			return nil
		})
		throughout(t, 500*time.Millisecond, "it does not lead", func() error {
			if st, err := leader.tryStatus(); err == nil && st.Cluster.IsLeader {
				return fmt.Errorf("node %d: %+v", leader.n, st)
			}
			return nil
		})
		u.resume(m, leader.n).expect(t, "resume through the "+through, 200, `{"result":{"message":"Cluster member resumed"}}`)
	}
	// With a deadline and a lease the leader goes on leading until the lease is gone.
	c.lead(t, c.members[0])
	leader := c.leader(t)
	m := c.others(leader)[0]
	u.lease(m, "held", leader.n, 60).is(t, "lease", 201, "")
	u.drain(m, leader.n, `{"deadlineSeconds":30}`).is(t, "drain", 200, `{"result":{"drainState":"draining"`)
	begin := time.Now()
	throughout(t, 600*time.Millisecond, "while the lease is held", func() error {
		x, err := u.row(m, leader.n)
		stoodStill := host.Lost(begin, time.Now()) > 100*time.Millisecond // and the others may have elected another one
		if err == nil && (x.DrainState != "draining" || !x.IsLeader && !stoodStill) {
			err = fmt.Errorf("%+v", x)
		}
		return err
	})
	u.do(m, "DELETE", "/api/v1/cluster/leases/held", "").is(t, "give it back", 200, "")
	u.awaitDrain(t, m, leader.n, "drained", formed)
	eventually(t, formed, "another one leads", func() error {
		if next := c.leader(t); next == leader {
			return fmt.Errorf("node %d is drained and leads", leader.n)
		}
		return nil
	})
	u.resume(m, leader.n).is(t, "resume", 200, "")
	c.awaitVoters(t)
}

// testDrainCommandLine: what an operator types.
func testDrainCommandLine(t *testing.T, c *cluster) {
	u := c.admin(t)
	c.leadElsewhere(t, 1)
	m := c.others(c.leader(t))[0]
	cmd := command{env: c.env(c.token)}
	u.lease(m, "cli", 1, 2).is(t, "lease", 201, "")
	out := cmd.run(t, "member", "drain", "1", "--deadline", "30s")
	if out.code != 0 || out.took < time.Second || out.late(15*time.Second) {
		t.Errorf("drain: exit %d after %v: %s %s", out.code, out.took, out.stdout, out.stderr)
	}
	if got := u.drainState(t, m, 1); got != "drained" {
		t.Errorf("after the command the state is %s", got)
	}
	if out := cmd.run(t, "member", "resume", "1"); out.code != 0 {
		t.Errorf("resume: exit %d: %s", out.code, out.stderr)
	}
	for _, x := range []struct {
		args []string
		want string
	}{
		{[]string{"member", "remove", "1"}, "Node is not drained (state=active)"},
		{[]string{"member", "remove", fmt.Sprint(c.leader(t).n), "--force", "--yes"}, "Cannot remove the current leader"},
		{[]string{"member", "promote", "2"}, "Node is already a voter"},
		{[]string{"member", "drain", "99"}, "Cluster member not found"},
	} {
		if out := cmd.run(t, x.args...); out.code != 1 || !strings.Contains(out.stderr, x.want) {
			t.Errorf("%v: exit %d: %s", x.args, out.code, out.stderr)
		}
	}
}
