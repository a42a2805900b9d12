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

// HeaderTokensEnded is the header with the number of valid join tokens that a removal has superseded; the documented
// answers have no field for it.
const HeaderTokensEnded = "X-Muster-Tokens-Ended"

// Removal lists the conditions of a removal. They are checked before the removal and again in its transaction.
type Removal struct {
	Drained bool // the member must be drained
	Quorum  bool // enough live voters must remain
}

// ErrLeader means that the member to be removed is the leader.
var ErrLeader = errors.New("the member leads")

// NotDrainedError means that the member is not drained.
type NotDrainedError struct {
	NodeID uint64
	State  string
}

func (e *NotDrainedError) Error() string { return "the member is not drained (state=" + e.State + ")" }

// QuorumError means that too few live voters would remain.
type QuorumError struct{ Why error }

func (e *QuorumError) Error() string { return e.Why.Error() }

// errVotersChanged: two concurrent removals must not both count on the same three voters.
var errVotersChanged = &store.Refusal{Code: store.Conflict,
	Message: "The voters of the cluster have changed in the meantime; check the members and retry"}

// check returns the condition about the member itself that does not hold.
func (r Removal) check(m *store.Member, leader uint64) error {
	switch {
	case m.NodeID == leader:
		return ErrLeader
	case r.Drained && m.DrainState != store.DrainDrained:
		return &NotDrainedError{m.NodeID, m.DrainState}
	}
	return nil
}

// Remove removes a member from the cluster and waits a moment until it is out of Raft. It returns ErrLeader, a
// *NotDrainedError or a *QuorumError when a condition does not hold. When the voters change between the judgement and
// the removal it judges again.
func (x *Members) Remove(q *handlers.Request, m *store.Member, r Removal) error {
	for {
		err := x.remove(q, m, r)
		if !errors.Is(err, errVotersChanged) || q.Context().Err() != nil {
			return err
		}
	}
}

func (x *Members) remove(q *handlers.Request, m *store.Member, r Removal) error {
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

// RemovedBefore reports whether an earlier attempt of this request removed the member. If so it also sets the answer's
// header.
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

// Voters lists the node ids of Raft's current voters.
func (x *Members) Voters() (list []uint64) {
	for _, v := range x.Replica.Servers() {
		if v.Role == store.RoleVoter {
			list = append(list, v.NodeID)
		}
	}
	slices.Sort(list)
	return list
}

// awaitOutOfRaft waits a moment for the leader's loop to remove a node from Raft's configuration, so that the removal
// is usually complete when it is answered. It is already committed and goes on without this request.
func (x *Members) awaitOutOfRaft(ctx context.Context, nodeID uint64) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	Poll(ctx, func() bool { return Roles(x.Replica.Servers())[nodeID] == store.RoleNone })
}
