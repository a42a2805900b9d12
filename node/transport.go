package node

import (
	"context"
	"errors"
	"path/filepath"
	"slices"

	"muster/cluster"
	"muster/cluster/datadir"
	"muster/cluster/transport"
	"muster/internal/addr"
	"muster/store"
)

// openTransport prepares the connections with other members.
func (n *Node) openTransport() error {
	creds, err := n.dir.Credentials(n.self)
	if err != nil {
		return err
	}
	creds.Known = func(id uint64) string {
		ctx, cancel := context.WithTimeout(context.Background(), lookupWithin)
		defer cancel()
		if st := n.opened.Load(); st != nil {
			return st.Members.CertKey(ctx, id)
		}
		return ""
	}
	n.book = datadir.NewBook(n.dir, n.self, n.cfg.Members, n.log)
	n.transport = transport.New(creds, n.book, n.fence, n.log)
	limits := n.cfg.ClusterConnections
	limits.Bytes = n.cfg.Connections.Bytes
	n.transport.Limits = transport.ListenerLimits(limits)
	n.transport.Dials.Loopback = addr.OnLoopback(n.self.RaftAddress)
	// TCP and TLS need four one-way trips, and machines may be busy.
	n.transport.DialBound = max(transport.DefaultDialBound, 8*n.cfg.NetworkLatency)
	n.closing(func() error { n.transport.Close(); return nil })
	return nil
}

// leftOutNow lists the members that a recovery of this directory has left out and that the members table does not have
// yet.
func (n *Node) leftOutNow() []uint64 {
	r, err := n.dir.Recovery()
	if err != nil || r == nil {
		return nil
	}
	list, err := store.MirrorLeftOut(filepath.Join(n.dir.Path, datadir.MirrorFile), r.Voters)
	if err != nil { // the mirror is only a copy: node.json has the Raft servers, too
		for _, place := range n.self.Others {
			if !slices.Contains(r.Voters, place.NodeID) {
				list = append(list, place.NodeID)
			}
		}
	}
	return list
}

// fence admits members. It admits none while the database is not open.
func (n *Node) fence(id uint64) error {
	ctx, cancel := context.WithTimeout(context.Background(), lookupWithin)
	defer cancel()
	err := store.ErrNoLeader
	if st := n.opened.Load(); st != nil {
		err = cluster.Fence(ctx, st, n.self.Others, id)
	}
	if slices.Contains(n.leftOut, id) && !errors.Is(err, store.ErrNotMember) {
		return store.ErrLeftOut
	}
	return err
}

// introduce asks the others whether this directory may be started: the copy of a running member's must not.
func (n *Node) introduce(ctx context.Context, self cluster.Incarnation) error {
	if err := cluster.Introduce(ctx, n.transport, n.book, n.dir, n.self, self, n.self.Former); err != nil {
		n.log.Error(err.Error())
		return err
	}
	return n.dir.Moved(n.self) // only now: a copy must keep the address of its original
}
