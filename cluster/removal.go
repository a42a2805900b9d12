package cluster

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"muster/store"
)

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
