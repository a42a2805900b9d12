package cluster

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"muster/cluster/autopilot"
	"muster/cluster/datadir"
	"muster/store"
)

// CanRemove tells in one sentence why removing a member would leave too few live voters; nil when it would not. Before it
// says so it asks those voters that it takes for dead, which a leader of a moment ago does of all: one that answers and
// stores counts. It blocks for at most
// 1.5 s.
func (c *Cluster) CanRemove(ctx context.Context, nodeID uint64) error {
	last := c.input.Load()
	if last == nil {
		return errors.New("leadership has just begun and the health of the members is not known yet; try again in a second")
	}
	err := autopilot.CanRemove(*last, nodeID)
	if err == nil {
		return nil
	}
	in := *last
	in.Previous = maps.Clone(last.Previous)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range in.Members {
		id := in.Members[i].NodeID
		if in.Members[i].Role != autopilot.RoleVoter || last.Previous[id].Healthy {
			continue
		}
		wg.Go(func() {
			if c.storesNow(ctx, id) {
				mu.Lock()
				defer mu.Unlock()
				h := in.Previous[id]
				h.Healthy = true
				in.Previous[id] = h
			}
		})
	}
	wg.Wait()
	return autopilot.CanRemove(in, nodeID)
}

// storesNow asks a voter whether it is there, stores, and has kept up.
func (c *Cluster) storesNow(ctx context.Context, id uint64) bool {
	if c.CannotStore(id) != "" {
		return false // by the last answer that it gave this leader, at most a moment ago
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	before := c.Store.Revision()
	r, err := c.probe(ctx, id)
	if err != nil || r.Fault != "" {
		return false
	}
	cfg, _, err := c.Settings(ctx)
	return err == nil && r.Revision+cfg.MaxLagRevisions >= before
}

// finishRemovals closes the operation of each removed member that is out of Raft, and its connections.
func (c *Cluster) finishRemovals(ctx context.Context) error {
	removals, err := c.Store.Members.RunningRemovals(ctx, store.AsLeader)
	if err != nil {
		return err
	}
	servers := c.Store.Servers()
next:
	for _, id := range removals {
		c.cutSoon(id)
		c.tellRemoved(ctx, id)
		for _, v := range servers {
			if v.NodeID == id {
				continue next
			}
		}
		if err := c.Store.Members.FinishRemoval(ctx, c.actor(), id); err != nil {
			return err
		}
	}
	return nil
}

// cutGrace lets an answer reach its caller who asked the removed member itself. New requests of that member are refused
// from the moment of the removal on.
const cutGrace = 500 * time.Millisecond

func (c *Cluster) cutSoon(id uint64) { time.AfterFunc(cutGrace, func() { c.Transport.Cut(id) }) }

// expel cuts the connections of members that the replica says were removed, on every member.
func (c *Cluster) expel(ctx context.Context) {
	gone := map[uint64]bool{}
	for ctx.Err() == nil {
		changed := c.Store.Mirror.Changed()
		if list, err := c.Store.Members.Removed(ctx, store.Stale); err == nil {
			for _, id := range list {
				if id == c.Store.NodeID() {
					c.leave(true)
				}
				if !gone[id] {
					gone[id] = true
					c.Book.Forget(id)
					c.cutSoon(id)
				}
			}
		}
		if err := c.rememberPlaces(ctx); err != nil && ctx.Err() == nil {
			c.log.Debug("where the Raft servers are could not be noted", "err", err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// rememberPlaces keeps in node.json where the Raft servers are, for a start at which the replica is older than that.
func (c *Cluster) rememberPlaces(ctx context.Context) error {
	members, err := c.Store.Members.List(ctx, store.Stale)
	if err != nil {
		return err
	}
	places := []datadir.Place{}
	for i := range members {
		if m := &members[i]; m.Role != store.RoleNone && m.NodeID != c.Store.NodeID() {
			places = append(places, datadir.Place{NodeID: m.NodeID, RaftAddress: m.RaftAddress})
		}
	}
	c.nodeFile.Lock()
	defer c.nodeFile.Unlock()
	n, err := c.Dir.Node()
	if err != nil || n == nil || len(places) == 0 || slices.Equal(n.Others, places) {
		return err
	}
	n.Others = places
	return c.Dir.SaveNode(n)
}

// Twin gets the *TwinError that says why this process must end: another one has its identity.
func (c *Cluster) Twin() <-chan error { return c.twin }

// Removed is closed when another member has said that this one is not in the cluster any more.
func (c *Cluster) Removed() <-chan struct{} { return c.removed }

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
