package store

import (
	"context"
	"encoding/json"
	"time"
)

// HookOutcome is how one drain or resume hook ended on its member.
type HookOutcome struct {
	Name    string `json:"name"`
	OK      bool   `json:"ok"`
	Message string `json:"message,omitempty"`
	Millis  int64  `json:"millis"`
}

// Kinds of hooks.
const (
	HookDrain  = "drain"
	HookResume = "resume"
)

var errNoMember = refuse(NotFound, "Cluster member not found")

// BeginDrain marks a member as draining; leases on it are waited for until the deadline. A member that is draining or
// drained already stays as it is. Whoever leads carries the drain on.
func (s *Store) BeginDrain(ctx context.Context, actor Actor, nodeID uint64, wait time.Duration) (*Member, error) {
	return makeOnce(ctx, s, actor, func(tx *Tx) (*Member, error) {
		m, err := tx.Member(nodeID)
		switch {
		case err != nil:
			return nil, err
		case m == nil:
			return nil, errNoMember
		case m.DrainState != DrainActive:
			return m, nil
		}
		deadline := tx.Now
		if wait > 0 { // times are whole seconds: never earlier than was asked for
			deadline = tx.Now.Add(wait + time.Second - 1).Truncate(time.Second)
		}
		if err := tx.exec(`UPDATE members SET drain_state = 'draining', drain_updated_at = ?1, drain_generation = drain_generation + 1,
			drain_deadline = ?2, hooks_pending = 'drain', hooks_outcome = '[]', modified_rev = ?3 WHERE raft_node_id = ?4`,
			tx.Now, deadline, tx.Rev, nodeID); err != nil {
			return nil, err
		}
		if err := tx.audit("member.drain", nodeObject(nodeID), "deadline "+rfc3339(deadline)); err != nil {
			return nil, err
		}
		return tx.Member(nodeID)
	})
}

// HooksDone records how the hooks of a drain or resume ended. A generation that is no longer the member's is ignored.
func (s *Store) HooksDone(ctx context.Context, actor Actor, nodeID, generation uint64, kind string, outcome []HookOutcome) error {
	if outcome == nil {
		outcome = []HookOutcome{}
	}
	text, err := json.Marshal(outcome)
	if err != nil {
		return err
	}
	return s.Write(ctx, actor, func(tx *Tx) error {
		n, err := tx.execCount(`UPDATE members SET hooks_pending = '', hooks_outcome = ?, modified_rev = ?
			WHERE raft_node_id = ? AND drain_generation = ? AND hooks_pending = ?`, string(text), tx.Rev, nodeID, generation, kind)
		if err != nil || n == 0 {
			return err
		}
		return tx.audit("member."+kind+"_hooks", nodeObject(nodeID), string(text))
	})
}

// FinishDrain marks a drain as done, unless a resume has come in between. New leases that arrived too late to be
// refused do not hold it up: whether to wait was the caller's decision.
func (s *Store) FinishDrain(ctx context.Context, actor Actor, nodeID, generation uint64) error {
	return s.Write(ctx, actor, func(tx *Tx) error {
		n, err := tx.execCount(`UPDATE members SET drain_state = 'drained', drain_updated_at = ?, modified_rev = ?
			WHERE raft_node_id = ? AND drain_generation = ? AND drain_state = 'draining'`, tx.Now, tx.Rev, nodeID, generation)
		if err != nil || n == 0 {
			return err
		}
		return tx.audit("member.drained", nodeObject(nodeID), "")
	})
}

// Resume ends or cancels a drain. It changes nothing for a member that is active.
func (s *Store) Resume(ctx context.Context, actor Actor, nodeID uint64) (*Member, error) {
	return makeOnce(ctx, s, actor, func(tx *Tx) (*Member, error) {
		m, err := tx.Member(nodeID)
		switch {
		case err != nil:
			return nil, err
		case m == nil:
			return nil, errNoMember
		case m.DrainState == DrainActive:
			return m, nil
		}
		if err := tx.exec(`UPDATE members SET drain_state = 'active', drain_updated_at = ?, drain_generation = drain_generation + 1,
			drain_deadline = NULL, hooks_pending = 'resume', hooks_outcome = '[]', modified_rev = ? WHERE raft_node_id = ?`,
			tx.Now, tx.Rev, nodeID); err != nil {
			return nil, err
		}
		if err := tx.audit("member.resume", nodeObject(nodeID), "from "+m.DrainState); err != nil {
			return nil, err
		}
		return tx.Member(nodeID)
	})
}

// Promote makes a member a voter at an operator's word: autopilot does not undo it.
func (s *Store) Promote(ctx context.Context, actor Actor, nodeID uint64) error {
	return doOnce(ctx, s, actor, func(tx *Tx) error {
		m, err := tx.Member(nodeID)
		switch {
		case err != nil:
			return err
		case m == nil:
			return errNoMember
		case m.Mode == ModeReplicate:
			return refuse(Conflict, "Node is replicate-only and never votes")
		case m.Role == RoleVoter && m.Pinned:
			return nil
		}
		if err := tx.exec("UPDATE members SET raft_role = 'voter', pinned = 1, modified_rev = ? WHERE raft_node_id = ?", tx.Rev, nodeID); err != nil {
			return err
		}
		return tx.audit("member.promote", nodeObject(nodeID), "")
	})
}
