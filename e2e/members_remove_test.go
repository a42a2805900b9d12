package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/client"
)

func (u *user) remove(m *member, id int, query string) answer {
	return u.do(m, "DELETE", memberURL(id, query), "")
}

const removed = `{"result":{"message":"Cluster member removed"}}`

// TestMembersRemove: what a removal refuses, what it takes from the machine, and that nothing of it comes back.
func TestMembersRemove(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	u := c.admin(t)
	c.lead(t, c.members[0])
	leader := c.leader(t)

	pair := c.others(leader)
	gone, stays := pair[0], pair[1]
	u.drain(gone, gone.n, "").expect(t, "drain", 200, `{"result":{"drainState":"drained"}}`)
	u.lease(leader, "on-2", gone.n, 60).expect(t, "lease", 409,
		fmt.Sprintf(`{"error":"node %d is drained: no new leases are granted on it"}`, gone.n))
	u.remove(stays, gone.n, "").expect(t, "removal", 200, removed)
	begin := time.Now()
	c.goneForGood(t, gone)
	t.Logf("checked in %v", time.Since(begin).Round(time.Millisecond))

	// The next machine gets a number of its own, and the cluster is whole again.
	next := c.add()
	next.args = append(next.args, "--join", u.create(t, leader, `{}`).Token)
	next.start(t)
	next.awaitReady(t)
	if got := next.status(t).Cluster.NodeID; got != uint64(next.n) {
		t.Errorf("the machine that joins after node %d was removed is node %d, want %d", gone.n, got, next.n)
	}
	u.awaitSettled(t, leader, uint64(leader.n), uint64(stays.n), uint64(next.n))

	// With one of three dead, another one must stay, unless it is forced.
	leader = c.lead2(t, leader)
	u.drain(leader, stays.n, "").expect(t, "drain", 200, `{"result":{"drainState":"drained"}}`)
	next.kill()
	quorum := fmt.Sprintf(`{"error":"Removing node %d would leave the cluster without a healthy quorum: without node %d `+
		`only 1 of 2 voters would be live, and a majority needs 2; pass ?force=true to remove it anyway"}`, stays.n, stays.n)
	eventually(t, formed, "the death is noticed", func() error {
		state, err := u.autopilot(leader)
		if err == nil && state.Healthy {
			err = errors.New("healthy")
		}
		return err
	})
	for _, m := range []*member{leader, stays} {
		u.remove(m, stays.n, "").expect(t, "removal of the second of three", 409, quorum)
	}
	a := u.do(leader, "DELETE", "/v1/operator/raft/peer?address="+stays.raft, "")
	if a.status != 500 || !strings.HasPrefix(a.body,
		"removing the peer would leave the cluster without a healthy quorum: ") {
		t.Errorf("the raft family's removal: %v", a)
	}
	u.remove(leader, stays.n, "%3Fforce=true").expect(t, "forced, as released clients send it", 200, removed)
	next.start(t) // what force has broken is whole again when the dead one is back
	next.awaitReady(t)
	c.goneForGood(t, stays)
	eventually(t, formed, "the cluster writes", func() error {
		if a := u.do(next, "POST", "/api/v1/cluster/pki/join-tokens", `{"nodeID":500}`); a.status != 201 && a.status != 409 {
			return fmt.Errorf("%v", a)
		}
		return nil
	})
	for _, m := range []*member{gone, stays} { // nothing of them is left in any list
		for _, v := range []*member{leader, next} {
			u.do(v, "GET", memberURL(m.n, ""), "").expect(t, "get", 404, `{"error":"Cluster member not found"}`)
			v.awaitSQL(t,
				fmt.Sprintf("SELECT (SELECT count(*) FROM members WHERE raft_node_id = %d), (SELECT count(*) FROM dek_wraps "+
					"WHERE raft_node_id = %d), (SELECT count(*) FROM overlay_allocations WHERE raft_node_id = %d), (SELECT count(*) "+
					"FROM certificates WHERE raft_node_id = %d AND revoked_at IS NULL)", m.n, m.n, m.n, m.n), "0|0|0|0")
		}
	}
	// Machines that take no part in Raft are removed at the same moment: each waits for its turn.
	many := u.create(t, leader, `{"maxUses":4}`)
	ids := make([]int, 4)
	for i := range ids {
		ids[i] = int(newMachine(t).enter(t, u, []*member{leader, next}[i%2], many.Token).RaftNodeID)
	}
	for i, a := range atOnce(len(ids), func(i int) answer {
		return u.remove([]*member{leader, next}[i%2], ids[i], "?force=true")
	}) {
		a.expect(t, fmt.Sprintf("removal of node %d beside others", ids[i]), 200, removed)
	}
	c.members = []*member{leader, next}
}

// lead2 makes sure that a member leads, and returns it.
func (c *cluster) lead2(t *testing.T, m *member) *member {
	t.Helper()
	live := &cluster{t: c.t, token: c.token, secrets: map[string]string{}}
	for _, x := range c.members {
		if x.up() {
			live.members = append(live.members, x)
		}
	}
	live.lead(t, m)
	return m
}

// goneForGood checks everything that holds of a member once its removal has been answered.
func (c *cluster) goneForGood(t *testing.T, gone *member) {
	t.Helper()
	var left []*member
	for _, m := range c.members {
		if m != gone && m.up() {
			left = append(left, m)
		}
	}
	u := c.admin(t)
	begin := time.Now()
	gone.awaitExpelled(t)
	t.Logf("node %d has stopped by itself after %v", gone.n, time.Since(begin).Round(time.Millisecond))
	gone.expelledAgain(t)
	for _, m := range left {
		eventually(t, formed, "the operation is done", func() error {
			servers, err := u.raftServers(m)
			if err != nil {
				return err
			}
			if n := slices.IndexFunc(servers, func(s client.RaftServer) bool {
				return s.Address == gone.raft || s.ID == fmt.Sprint(gone.n)
			}); n >= 0 {
				return fmt.Errorf("node %d is in the Raft configuration: %+v", gone.n, servers)
			}
			return nil
		})
		m.awaitSQL(t, fmt.Sprintf("SELECT state FROM operations WHERE kind = 'member.remove' AND object = 'node/%d'", gone.n),
			"done")
		m.awaitSQL(t, fmt.Sprintf("SELECT count(*) FROM removed_members WHERE raft_node_id = %d", gone.n), "1")
		eventually(t, formed, "its certificate is refused", func() error {
			a := m.internally(t, gone, "GET", "/internal/probe")
			if want := fmt.Sprintf("node-id %d is not a current cluster member", gone.n); a.status != 410 || a.body != want {
				return fmt.Errorf("%v, want 410 %s", a, want)
			}
			return nil
		})
		u.remove(m, gone.n, "").expect(t, "remove again", 404, `{"error":"Cluster member not found"}`)
		u.remove(m, gone.n, "?force=true").expect(t, "remove again with force", 404, `{"error":"Cluster member not found"}`)
		u.drain(m, gone.n, "").expect(t, "drain", 404, `{"error":"Cluster member not found"}`)
		u.lease(m, "for-nobody", gone.n, 5).expect(t, "lease", 404, `{"error":"Cluster member not found"}`)
		u.do(m, "POST", "/api/v1/cluster/pki/join-tokens", fmt.Sprintf(`{"nodeID":%d}`, gone.n)).
			expect(t, "mint", 409,
				fmt.Sprintf(`{"error":"node %d was a member and has been removed; its id is never used again"}`, gone.n))
	}
}
