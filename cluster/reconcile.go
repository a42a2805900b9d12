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

// Difference is one point on which Raft's configuration does not agree with the members table.
type Difference struct {
	NodeID uint64     `json:"nodeId"`
	Want   store.Role `json:"want"` // as the members table says; empty: not a Raft server
	Have   store.Role `json:"have"`
}

// differences lists what reconcile has to do; what strengthens the quorum comes first.
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

// reconcile makes the Raft configuration agree with SQL, one step after the other.
func (t *term) reconcile(ctx context.Context) error {
	members, err := t.Store.Members.List(ctx, store.AsLeader)
	if err != nil {
		return err
	}
	for _, d := range differences(members, t.Store.Servers()) {
		if d.Have == store.RoleNone && t.Alive(d.NodeID) != autopilot.StatusAlive {
			continue // a machine that is gone would only weaken the quorum
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

// Diff lists where the Raft configuration does not agree with the members table.
func (c *Cluster) Diff(ctx context.Context) ([]Difference, error) {
	members, err := c.Store.Members.List(ctx, store.AsLeader)
	if err != nil {
		return nil, err
	}
	list := differences(members, c.Store.Servers())
	if list == nil {
		list = []Difference{}
	}
	return list, nil
}

// finishRemovals closes the operation of each removed member that is out of Raft, and its connections.
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

// tellRemoved tells the Raft servers of a removal, which they would see in their replica later: they have copies of the
// state to give away. Whoever does not hear of it asks the leader before it gives anything.
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
				t.log.Debug("a removal was not told", "removed", nodeID, "to", v.NodeID, "err", err)
			}
		})
	}
}
