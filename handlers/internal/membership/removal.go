package membership

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"muster/handlers"
	"muster/store"
)

// HeaderTokensEnded says how many valid join tokens a removal has superseded; the documented answers have no room for
// it.
const HeaderTokensEnded = "X-Muster-Tokens-Ended"

// Removal is what has to hold for a member to be removed. It is judged before the removal and again in its transaction.
type Removal struct {
	Drained bool // the member is drained
	Quorum  bool // enough live voters are left
}

// ErrLeader is that the member which is to be removed leads.
var ErrLeader = errors.New("the member leads")

// NotDrainedError is that a member is not drained.
type NotDrainedError struct {
	NodeID uint64
	State  string
}

func (e *NotDrainedError) Error() string { return "the member is not drained (state=" + e.State + ")" }

// QuorumError is that too few live voters would be left.
type QuorumError struct{ Why error }

func (e *QuorumError) Error() string { return e.Why.Error() }

// errVotersChanged: two removals at once must not both be right about the same three voters.
var errVotersChanged = &store.Refusal{Code: store.Conflict,
	Message: "The voters of the cluster have changed meanwhile; look again and retry"}

// check returns what does not hold about a member itself.
func (r Removal) check(m *store.Member, leader uint64) error {
	switch {
	case m.NodeID == leader:
		return ErrLeader
	case r.Drained && m.DrainState != store.DrainDrained:
		return &NotDrainedError{m.NodeID, m.DrainState}
	}
	return nil
}

// Remove takes a member out of the cluster, for whichever family asks, and waits a moment until it is out of Raft. It
// returns ErrLeader, a *NotDrainedError or a *QuorumError when what has to hold does not.
func (x *Members) Remove(q *handlers.Request, m *store.Member, r Removal) error {
	ctx := q.Context()
	if err := r.check(m, x.Replica.NodeID()); err != nil {
		return err
	}
	voters := x.Voters()
	if r.Quorum {
		if err := x.Cluster.CanRemove(ctx, m.NodeID); err != nil {
			return &QuorumError{err}
		}
	}
	rotation, err := x.Cluster.PrepareRemoval(ctx, m.NodeID)
	if err != nil {
		return err
	}
	ended, err := x.Members.Remove(ctx, q.Actor, m.NodeID, rotation, func(m *store.Member) error {
		if err := r.check(m, x.Replica.NodeID()); err != nil {
			return err
		}
		if r.Quorum && !slices.Equal(voters, x.Voters()) {
			return errVotersChanged
		}
		return nil
	})
	if err != nil {
		return err
	}
	q.W.Header().Set(HeaderTokensEnded, strconv.Itoa(ended))
	x.Cluster.Wake()
	x.awaitOutOfRaft(ctx, m.NodeID)
	return nil
}

// RemovedBefore reports whether this very request has removed a member before; then it says so in the answer's header,
// too.
func (x *Members) RemovedBefore(q *handlers.Request) (again bool, err error) {
	if again, err = x.Replica.Answered(q.Context(), q.Actor); err != nil || !again {
		return false, err
	}
	ended, err := x.Members.Remove(q.Context(), q.Actor, 0, nil, nil)
	if err == nil {
		q.W.Header().Set(HeaderTokensEnded, strconv.Itoa(ended))
	}
	return err == nil, err
}

// Voters lists who votes in Raft now, by node id.
func (x *Members) Voters() (list []uint64) {
	for _, v := range x.Replica.Servers() {
		if v.Role == store.RoleVoter {
			list = append(list, v.NodeID)
		}
	}
	slices.Sort(list)
	return list
}

// awaitOutOfRaft waits a moment for the leader's loop to take a node out of the configuration, so that the usual
// answer is the whole truth. The removal is committed already and goes on without this request.
func (x *Members) awaitOutOfRaft(ctx context.Context, nodeID uint64) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	Poll(ctx, func() bool { return Roles(x.Replica.Servers())[nodeID] == store.RoleNone })
}
