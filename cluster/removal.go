package cluster

import (
	"context"
	"errors"
	"net/http"

	"github.com/musterhq/muster/cluster/autopilot"
)

// ErrRemoved is why a member stops by itself.
var ErrRemoved = errors.New("this node has been removed from the cluster; to join again, start with an empty data directory and a new token")

// CanRemove tells in one sentence why removing a member would leave too few live voters; nil when it would not.
func (c *Cluster) CanRemove(nodeID uint64) error {
	in := c.input.Load()
	if in == nil {
		return errors.New("leadership has just begun and the health of the members is not known yet; try again in a second")
	}
	return autopilot.CanRemove(*in, nodeID)
}

// finishRemovals closes the operation of each removed member that is out of Raft, and its connections.
func (c *Cluster) finishRemovals(ctx context.Context) error {
	removals, err := c.Store.RunningRemovals(ctx)
	if err != nil {
		return err
	}
	servers := c.Store.Servers()
next:
	for _, id := range removals {
		c.Transport.Cut(id)
		for _, v := range servers {
			if v.NodeID == id {
				continue next
			}
		}
		if err := c.Store.FinishRemoval(ctx, c.actor(), id); err != nil {
			return err
		}
	}
	return nil
}

// expel cuts the connections of members that the replica says were removed, on every member.
func (c *Cluster) expel(ctx context.Context) {
	gone := map[uint64]bool{}
	for ctx.Err() == nil {
		changed := c.Store.MirrorChanged()
		if list, err := c.Store.Removed(ctx); err == nil {
			for _, id := range list {
				if !gone[id] {
					gone[id] = true
					c.Transport.Cut(id)
				}
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// checkRemoved looks at the answer of another member for the word that this one is no longer known.
func (c *Cluster) checkRemoved(err error) {
	var status *StatusError
	if errors.As(err, &status) && status.Status == http.StatusGone {
		c.once.Do(func() { close(c.removed) })
	}
}

// Removed is closed when another member has said that this one is not in the cluster any more.
func (c *Cluster) Removed() <-chan struct{} { return c.removed }

// Diff lists where the Raft configuration does not agree with the members table.
func (c *Cluster) Diff(ctx context.Context) ([]Difference, error) {
	members, err := c.Store.PeekMembers(ctx)
	if err != nil {
		return nil, err
	}
	list := differences(members, c.Store.Servers())
	if list == nil {
		list = []Difference{}
	}
	return list, nil
}
