// Package membership is the code about members that several families share: resolving a name to a member, and removing
// a member without losing the quorum. It knows no envelope; each family words its errors.
package membership

import (
	"context"
	"errors"
	"net/http"
	"time"

	"muster/certs"
	"muster/handlers"
	"muster/internal/naming"
	"muster/store"
)

// Cluster is the part of the cluster's loops that this package needs.
type Cluster interface {
	Alive(nodeID uint64) string // "alive", "down", "left" or "unknown", from the leader's probes
	Wake()                      // tells the leader's loops that membership has changed

	// CanRemove returns why a removal would leave too few live voters.
	CanRemove(ctx context.Context, nodeID uint64) error
	// PrepareRemoval generates the replacements of the keys that the removed member knows.
	PrepareRemoval(ctx context.Context, nodeID uint64) (*store.DEKRotation, error)
}

// Replica is this member's replica: *store.Store.
type Replica interface {
	NodeID() uint64
	Servers() []store.Server // of Raft's configuration, as the leader has it
	Answered(ctx context.Context, actor store.Actor) (known bool, err error)
}

// Table is the members table: store.Members.
type Table interface {
	List(ctx context.Context, c store.Consistency) ([]store.Member, error)
	Remove(ctx context.Context, actor store.Actor, nodeID uint64, rotation *store.DEKRotation,
		check func(*store.Member) error) (tokensEnded int, err error)
}

// Members are the members of the cluster.
type Members struct {
	Replica Replica
	Members Table
	Cluster Cluster
}

// called lists the names and addresses of all members, including dead ones: an address that a dead and a live member
// share must name neither.
func (x *Members) called(members []store.Member) []naming.Member {
	list := make([]naming.Member, len(members))
	for i := range members {
		m := &members[i]
		list[i] = naming.Member{
			NodeID:      m.NodeID,
			ID:          m.ID,
			Name:        m.Name,
			RaftAddress: m.RaftAddress,
			APIAddress:  m.APIAddress,
			Host:        m.AdvertiseAddr,
			Status:      x.Cluster.Alive(m.NodeID),
		}
	}
	return list
}

// Resolver finds the member that a text names: naming.Resolve or naming.ResolveAddress.
type Resolver func([]naming.Member, string) (naming.Member, error)

// Resolve finds the member that text names, with the request's consistency. It returns naming.ErrNone when there is
// none, and a 409 with the candidates when there are several.
func (x *Members) Resolve(q *handlers.Request, text string, by Resolver) (*store.Member, error) {
	members, err := x.Members.List(q.Context(), q.Consistency())
	if err != nil {
		return nil, err
	}
	found, err := by(x.called(members), text)
	var several *naming.Ambiguous
	switch {
	case errors.As(err, &several):
		return nil, handlers.Fail(http.StatusConflict, several.Error())
	case err != nil:
		return nil, err
	}
	for i := range members {
		if members[i].NodeID == found.NodeID {
			return &members[i], nil
		}
	}
	return nil, naming.ErrNone
}

// Filter reads a query parameter that names a member; 0 when it is absent. A number may be that of a removed member.
func (x *Members) Filter(q *handlers.Request, name string) (uint64, error) {
	values, given := q.URL.Query()[name]
	if !given {
		return 0, nil
	}
	bad := handlers.Fail(http.StatusBadRequest, name+" must be a member's number")
	if id, ok := naming.Number(values[0]); ok {
		if id < 1 || id > certs.MaxNodeID {
			return 0, bad
		}
		return uint64(id), nil
	}
	m, err := x.Resolve(q, values[0], naming.Resolve)
	if errors.Is(err, naming.ErrNone) {
		return 0, bad
	}
	if err != nil {
		return 0, err
	}
	return m.NodeID, nil
}

// Roles returns the roles of Raft servers by node id.
func Roles(servers []store.Server) map[uint64]store.Role {
	m := make(map[uint64]store.Role, len(servers))
	for _, v := range servers {
		m[v.NodeID] = v.Role
	}
	return m
}

// Poll checks a condition every few milliseconds until it holds (true) or ctx ends (false).
func Poll(ctx context.Context, holds func() bool) bool {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}
