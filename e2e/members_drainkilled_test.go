package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMembersDrainLeaderKilled: the leader is killed in the middle of a drain. The next one ends it at the same
// deadline; the dead member can be drained, and then removed without force.
func TestMembersDrainLeaderKilled(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	u := c.admin(t)
	leader := c.leader(t)
	target, third := c.others(leader)[0], c.others(leader)[1]
	// It must know the others' addresses when it comes back, to be told by them that it was removed.
	leader.awaitSQL(t, "SELECT count(*) FROM members WHERE raft_role = 'voter'", "3")
	u.lease(third, "held", target.n, 600).is(t, "lease", 201, "")
	begun := drainOf(t, "drain", u.drain(third, target.n, `{"deadlineSeconds":6}`))
	end := time.Now().Add(6 * time.Second)
	leader.kill()
	var seen drainAnswer
	eventually(t, formed, "the next leader knows the drain", func() error {
		a := u.drain(third, target.n, `{"deadlineSeconds":3600}`)
		if a.err != nil || a.status != 200 {
			return fmt.Errorf("%v", a)
		}
		seen = drainOf(t, "drain again", a)
		return nil
	})
	if seen.DrainState != "draining" || seen.Deadline != begun.Deadline {
		t.Errorf("the drain was begun as %+v and the next leader has %+v (%v before its end)", begun, seen, time.Until(end))
	}
	eventually(t, formed, "the drain ends", func() error {
		x, err := u.row(third, target.n)
		if err != nil {
			return err
		}
		if x.DrainState == "active" {
			t.Fatal("the drain was lost")
		}
		if left := time.Until(end); x.DrainState == "drained" && left > 200*time.Millisecond {
			t.Fatalf("the drain has ended %v before its deadline", left)
		}
		if x.DrainState != "drained" {
			return errors.New(x.DrainState)
		}
		return nil
	})
	t.Logf("drained %v after the deadline", time.Since(end).Round(time.Millisecond))
	if took := time.Since(end); late(end, took, 3*time.Second) {
		t.Errorf("the drain has ended %v after its deadline", took)
	}

	d := drainOf(t, "drain of the dead member", u.drain(target, leader.n, ""))
	want := fmt.Sprintf("hook node: node %d could not be reached, its hooks did not run", leader.n)
	if d.DrainState != "drained" || !slices.Equal(d.Warnings, []string{want}) {
		t.Errorf("the drain of a dead member answers %+v, want the warning %q", d, want)
	}
	eventually(t, formed, "the dead member is removed without force", func() error {
		a := u.do(target, "DELETE", memberURL(leader.n, ""), "")
		if a.status == 409 && strings.Contains(a.body, "leadership has just begun") {
			return fmt.Errorf("%v", a)
		}
		a.expect(t, "remove", 200, `{"result":{"message":"Cluster member removed"}}`)
		return nil
	})
	for _, m := range []*member{target, third} {
		u.do(m, "GET", memberURL(leader.n, ""), "").expect(t, "after the removal", 404,
			`{"error":"Cluster member not found"}`)
		m.awaitSQL(t, fmt.Sprintf("SELECT object, state FROM operations WHERE kind = 'member.remove' AND object = 'node/%d'",
			leader.n), fmt.Sprintf("node/%d|done", leader.n))
		servers, err := u.raftServers(m)
		if err != nil || len(servers) > 2 {
			t.Errorf("the Raft configuration after the removal: %+v, %v", servers, err)
		}
	}
	leader.expelledAgain(t)
	u.resume(third, target.n).is(t, "resume", 200, `{"result":{"message":"Cluster member resumed"}}`)
	for _, m := range []*member{target, third} {
		u.awaitDrain(t, m, target.n, "active", formed)
	}
}
