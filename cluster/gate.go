package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster/cluster/datadir"
	"muster/cluster/transport"
	"muster/store"
)

const (
	pathMember  = "/internal/member"
	pathRemoved = "/internal/removed"

	confirmWithin = 2 * time.Second
	confirmLeader = 300 * time.Millisecond // of a member that may have become the leader
	removedWithin = 2 * time.Second        // to notify another member of a removal
)

// Fence returns an error for a node that must not be talked to; see store.Members.Fence. A member without state accepts
// the members that it learnt when it joined, and the leader that these name. A member whose disk hangs uses the Raft
// configuration in memory, so that it does not also appear dead or lose its leader.
func Fence(ctx context.Context, s *store.Store, seeds []datadir.Place, nodeID uint64) error {
	err := s.Members.Fence(ctx, nodeID)
	if err == nil || errors.Is(err, store.ErrNotMember) {
		return err
	}
	if slices.ContainsFunc(s.Servers(), func(v store.Server) bool { return v.NodeID == nodeID }) {
		return nil
	}
	if s.Mirror.Revision() != 0 {
		return err
	}
	if nodeID == s.LeaderID() {
		return nil
	}
	for _, p := range seeds {
		if p.NodeID == nodeID {
			return nil
		}
	}
	return err
}

// gate confirms membership with the leader.
type gate struct{ *member }

// unconfirmed are the internal requests that must work without a leader, which reveal only who leads, and the goodbye:
// its transaction asks a majority, while a voter that ends no longer answers who leads. ofLeaders are requests that
// only a leader sends, possibly one that this member does not know yet.
var (
	unconfirmed = map[string]bool{
		transport.PathAnnounce: true,
		transport.PathNudge:    true,
		pathRemoved:            true,
		pathMember:             true,
		pathGoodbye:            true,
	}
	ofLeaders = map[string]bool{transport.PathProbe: true, pathHooks: true}
)

// confirm checks with the leader, which asks the voters, whether the sender of an internal request is still a member:
// local knowledge may be slightly old. It passes the leader itself, operators with access to this member's files, and
// forwarded client requests, which have their own credential and are answered only by leaders.
func (g *gate) confirm(r *http.Request, nodeID uint64) error {
	path := r.URL.Path
	switch {
	case unconfirmed[path], nodeID == g.Store.NodeID(), !strings.HasPrefix(path,
		"/internal/"), nodeID == g.Store.LeaderID():
		return nil
	case ofLeaders[path] && g.votes(nodeID): // it may be the new leader while the old one does not answer
		ctx, cancel := context.WithTimeout(r.Context(), confirmLeader)
		defer cancel()
		if err := g.confirmMember(ctx, nodeID); errors.Is(err, store.ErrNotMember) {
			return err
		}
		return nil
	}
	return g.confirmMember(r.Context(), nodeID)
}

// votes reports whether a node is a voter, from the local Raft server.
func (g *gate) votes(nodeID uint64) bool {
	for _, v := range g.Store.Servers() {
		if v.NodeID == nodeID {
			return v.Role == store.RoleVoter
		}
	}
	return false
}

// confirmMember returns nil for a member, ErrNotMember for any other node, and another error when no leader answers.
func (g *gate) confirmMember(ctx context.Context, nodeID uint64) error {
	ctx, cancel := context.WithTimeout(ctx, confirmWithin)
	defer cancel()
	ask := pathMember + "?" + url.Values{"node": {strconv.FormatUint(nodeID, 10)}}.Encode()
	a, err := fromLeader(ctx, g.member, http.MethodGet, ask, func(ctx context.Context, _ uint64) (memberAnswer, error) {
		return g.isMember(ctx, nodeID)
	})
	switch {
	case err != nil:
		return fmt.Errorf("whether node %d is a member cannot be confirmed: %w", nodeID, err)
	case !a.Member:
		return store.NotMember(nodeID, a.Removed)
	}
	return nil
}

type memberAnswer struct {
	Member  bool `json:"member"`
	Removed bool `json:"removed"` // it was removed
}

func (g *gate) isMember(ctx context.Context, nodeID uint64) (a memberAnswer, err error) {
	a.Member, a.Removed, err = g.Store.Members.ConfirmedFence(ctx, nodeID)
	return a, err
}

func (g *gate) serveMember(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseUint(r.URL.Query().Get("node"), 10, 64)
	if err != nil {
		http.Error(w, "node must be an id", http.StatusBadRequest)
		return
	}
	serveLeader(g.member, w, r, func(ctx context.Context, _ uint64) (memberAnswer, error) { return g.isMember(ctx, id) })
}

// serveRemoved receives the notification of a removal, which it confirms with the leader.
func (g *gate) serveRemoved(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseUint(r.URL.Query().Get("node"), 10, 64)
	if err != nil || id == g.Store.NodeID() {
		http.Error(w, "node must be the id of another member", http.StatusBadRequest)
		return
	}
	if err := g.confirmMember(r.Context(), id); errors.Is(err, store.ErrNotMember) {
		g.Transport.Expel(id)
	}
	writeJSON(w, struct{}{})
}

// elsewhere reports whether a request to a member can go to another voter than that and this member.
func (g *gate) elsewhere(nodeID uint64) bool {
	for _, v := range g.Store.Servers() {
		if v.Role == store.RoleVoter && v.NodeID != nodeID && v.NodeID != g.Store.NodeID() {
			return true
		}
	}
	return false
}
