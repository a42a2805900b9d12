package datadir

import (
	"context"
	"fmt"
	"sync"

	"muster/cluster/transport"
	"muster/store"
)

// accepted finds out whether the other members would accept a member that does not run.
func (x *doctor) accepted(ctx context.Context, members []store.Member) {
	if x.running {
		return // the member reports it
	}
	const nextRemoved = "to join again, start with an empty data directory and a new token"
	if removed, err := x.d.removed(x.node); err == nil && removed {
		x.say("membership", FindingFail, nextRemoved, "this node has been removed from the cluster")
		return
	}
	creds, err := x.d.Credentials(x.node)
	if err != nil {
		return // reported already
	}
	creds.Known = func(id uint64) string {
		key, _ := store.MirrorCertKey(x.d.file(MirrorFile), id)
		return key
	}
	var mu sync.Mutex
	var wait sync.WaitGroup
	heard, refused, removed := 0, "", false
	for i := range members {
		m := &members[i]
		if m.Role == store.RoleNone || m.NodeID == x.node.NodeID {
			continue
		}
		wait.Go(func() {
			o := transport.Probe(ctx, creds, m.NodeID, m.RaftAddress)
			mu.Lock()
			defer mu.Unlock()
			removed = removed || o.Removed
			switch {
			case o.Answered:
				heard++
			case o.Mismatch:
				refused = fmt.Sprintf("node %d runs, and %s", m.NodeID, o.Text)
			}
		})
	}
	wait.Wait()
	switch {
	case removed:
		x.say("membership", FindingFail, nextRemoved, "another member says that this one was removed")
	case heard == 0 && refused != "":
		x.say("membership", FindingFail, NextRejoin, "this member is left behind: %s", refused)
	case heard > 0:
		x.say("membership", FindingOK, "", "the others take this member for one of them")
	}
}
