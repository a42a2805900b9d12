package handlers

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"time"

	"muster/store"
)

// removedBefore tells whether this very request has removed a member before; then it says so in the answer's header, too.
func (s *Server) removedBefore(q *Request) (again bool, err error) {
	if again, err = s.Store.Answered(q.Context(), q.Actor); err != nil || !again {
		return false, err
	}
	ended, err := s.Store.RemoveMember(q.Context(), q.Actor, 0, nil, nil)
	if err == nil {
		q.W.Header().Set(headerTokensEnded, strconv.Itoa(ended))
	}
	return err == nil, err
}

// quorumSafe judges whether enough live voters would be left, and adds to the check that runs in the transaction that the
// voters are still those that were judged: two removals at once must not both be right about the same three.
func (s *Server) quorumSafe(ctx context.Context, nodeID uint64, check func(*store.Member) error) (func(*store.Member) error, error) {
	before := s.voters()
	if err := s.CanRemove(ctx, nodeID); err != nil {
		return nil, err
	}
	return func(m *store.Member) error {
		if err := check(m); err != nil {
			return err
		}
		if !slices.Equal(before, s.voters()) {
			return Fail(http.StatusConflict, "The voters of the cluster have changed meanwhile; look again and retry")
		}
		return nil
	}, nil
}

// voters lists who votes in Raft now, by node id.
func (s *Server) voters() (list []uint64) {
	for _, v := range s.Store.Servers() {
		if v.Role == store.RoleVoter {
			list = append(list, v.NodeID)
		}
	}
	slices.Sort(list)
	return list
}

// headerTokensEnded says how many valid join tokens a removal has superseded; the documented answers have no room for it.
const headerTokensEnded = "X-Muster-Tokens-Ended"

// remove takes a member out of the cluster, for whichever family asks.
func (s *Server) remove(q *Request, nodeID uint64, check func(*store.Member) error) error {
	rotation, err := s.PrepareRemoval(q.Context(), nodeID)
	if err != nil {
		return err
	}
	ended, err := s.Store.RemoveMember(q.Context(), q.Actor, nodeID, rotation, check)
	if err != nil {
		return err
	}
	q.W.Header().Set(headerTokensEnded, strconv.Itoa(ended))
	s.Wake()
	s.awaitOutOfRaft(q.Context(), nodeID)
	return nil
}

// awaitOutOfRaft waits a moment for the leader's loop to take a node out of the configuration, so that the usual
// answer is the whole truth. The removal is committed already and goes on without this request.
func (s *Server) awaitOutOfRaft(ctx context.Context, nodeID uint64) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	s.poll(ctx, func() bool { return rolesOf(s.Store.Servers())[nodeID] == store.RoleNone })
}

// poll checks a condition of this process every few milliseconds until it holds or ctx ends.
func (s *Server) poll(ctx context.Context, holds func() bool) bool {
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

func rolesOf(servers []store.Server) map[uint64]store.Role {
	m := make(map[uint64]store.Role, len(servers))
	for _, v := range servers {
		m[v.NodeID] = v.Role
	}
	return m
}
