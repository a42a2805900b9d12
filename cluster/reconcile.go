package cluster

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"muster/cluster/autopilot"
	"muster/store"
)

// Difference is one difference between Raft's configuration and the members table.
type Difference struct {
	NodeID uint64     `json:"nodeId"`
	Want   store.Role `json:"want"` // from the members table; empty: not a Raft server
	Have   store.Role `json:"have"`
}

// differences lists the steps of reconcile; steps that strengthen the quorum come first. Members outside Raft need not
// be listed.
func differences(members []store.Member, servers []store.Server) []Difference {
	have := make(map[uint64]store.Role, len(servers))
	for _, v := range servers {
		have[v.NodeID] = v.Role
	}
	var list []Difference
	for i := range members {
		m := &members[i]
		if have[m.NodeID] != m.Role {
			list = append(list, Difference{NodeID: m.NodeID, Want: m.Role, Have: have[m.NodeID]})
		}
		delete(have, m.NodeID)
	}
	for id, role := range have {
		list = append(list, Difference{NodeID: id, Want: store.RoleNone, Have: role})
	}
	strength := map[store.Role]int{store.RoleVoter: 3, store.RoleStandBy: 2, store.RoleSpare: 1}
	slices.SortFunc(list, func(a, b Difference) int {
		if d := strength[b.Want] - strength[a.Want]; d != 0 {
			return d
		}
		return int(int64(a.NodeID) - int64(b.NodeID))
	})
	return list
}

// reconcile makes the Raft configuration agree with the members table, step by step.
func (t *term) reconcile(ctx context.Context) error {
	members, err := t.Store.Members.Raft(ctx, store.AsLeader)
	if err != nil {
		return err
	}
	for _, d := range differences(members, t.Store.Servers()) {
		if d.Have == store.RoleNone && t.Alive(d.NodeID) != autopilot.StatusAlive {
			continue // adding a machine that does not answer would weaken the quorum
		}
		actx, cancel := context.WithTimeout(ctx, assignTimeout)
		err := t.Store.Assign(actx, d.NodeID, d.Want)
		cancel()
		if err != nil {
			return err
		}
		t.log.Info("raft configuration", "node", d.NodeID, "role", d.Want, "before", d.Have)
	}
	return nil
}

// Diff lists the differences between the Raft configuration and the members table. A stale list compares this member's
// own Raft server with its replica.
func (c *Cluster) Diff(ctx context.Context, from store.Consistency) ([]Difference, error) {
	members, err := c.Store.Members.Raft(ctx, from)
	if err != nil {
		return nil, err
	}
	servers := c.Store.Servers()
	if from == store.Stale {
		servers = c.Store.OwnServers(ctx)
	}
	list := differences(members, servers)
	if list == nil {
		list = []Difference{}
	}
	return list, nil
}

// finishRemovals finishes the removal of each member that is out of Raft, and cuts its connections.
func (t *term) finishRemovals(ctx context.Context) error {
	removals, err := t.Store.Members.RunningRemovals(ctx, store.AsLeader)
	if err != nil {
		return err
	}
	servers := t.Store.Servers()
next:
	for _, id := range removals {
		t.cutSoon(id)
		t.tellRemoved(ctx, id)
		for _, v := range servers {
			if v.NodeID == id {
				continue next
			}
		}
		if err := t.Store.Members.FinishRemoval(ctx, t.actor(), id); err != nil {
			return err
		}
	}
	return nil
}

// tellRemoved notifies the Raft servers of a removal before it arrives in their replicas, because they serve copies of
// the state. A server that misses the notification confirms membership with the leader before it serves anything.
func (t *term) tellRemoved(ctx context.Context, nodeID uint64) {
	if _, told := t.told.LoadOrStore(nodeID, true); told {
		return
	}
	path := pathRemoved + "?" + url.Values{"node": {strconv.FormatUint(nodeID, 10)}}.Encode()
	for _, v := range t.Store.Servers() {
		if v.NodeID == nodeID || v.NodeID == t.Store.NodeID() {
			continue
		}
		t.done.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, removedWithin)
			defer cancel()
			if err := t.Transport.Call(ctx, http.MethodPost, v.NodeID, path, nil, nil); err != nil {
				t.log.Debug("a Raft server was not notified of a removal", "removed", nodeID, "to", v.NodeID, "err", err)
			}
		})
	}
}
