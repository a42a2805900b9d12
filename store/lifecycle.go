package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// HookOutcome is the result of one drain or resume hook on its member.
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

// BeginDrain marks a member as draining, with a deadline for its leases. A member that is already draining or drained
// is unchanged. Any leader continues the drain.
func (ms Members) BeginDrain(ctx context.Context, actor Actor, nodeID uint64, wait time.Duration) (*Member, error) {
	return makeOnce(ctx, ms.s, actor, func(tx *Tx) (*Member, error) {
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
		if wait > 0 { // times are whole seconds: round up
			deadline = tx.Now.Add(wait + time.Second - 1).Truncate(time.Second)
		}
		if err := tx.exec(`UPDATE members SET drain_state = 'draining', drain_updated_at = ?1,
			drain_generation = drain_generation + 1,
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

// HooksDone records the outcomes of the hooks of a drain or resume. It ignores an outdated generation.
func (ms Members) HooksDone(ctx context.Context, actor Actor, nodeID, generation uint64, kind string,
	outcome []HookOutcome) error {
	if outcome == nil {
		outcome = []HookOutcome{}
	}
	text, err := json.Marshal(outcome)
	if err != nil {
		return err
	}
	return ms.s.Write(ctx, actor, func(tx *Tx) error {
		n, err := tx.execCount(`UPDATE members SET hooks_pending = '', hooks_outcome = ?, modified_rev = ?
			WHERE raft_node_id = ? AND drain_generation = ? AND hooks_pending = ?`, string(text), tx.Rev, nodeID, generation,
			kind)
		if err != nil || n == 0 {
			return err
		}
		return tx.audit("member."+kind+"_hooks", nodeObject(nodeID), string(text))
	})
}

// FinishDrain marks a member as drained, unless it was resumed in the meantime. It does not check leases: the caller
// decides whether to wait for them.
func (ms Members) FinishDrain(ctx context.Context, actor Actor, nodeID, generation uint64) error {
	return ms.s.Write(ctx, actor, func(tx *Tx) error {
		n, err := tx.execCount(`UPDATE members SET drain_state = 'drained', drain_updated_at = ?, modified_rev = ?
			WHERE raft_node_id = ? AND drain_generation = ? AND drain_state = 'draining'`, tx.Now, tx.Rev, nodeID, generation)
		if err != nil || n == 0 {
			return err
		}
		var leases int
		if _, err := tx.get("SELECT count(*) FROM leases WHERE raft_node_id = ? AND expires_at >= ?",
			[]any{int64(nodeID), tx.Now}, &leases); err != nil {
			return err
		}
		return tx.audit("member.drained", nodeObject(nodeID), made("leases", leases))
	})
}

// Resume ends or cancels a drain. It does nothing for an active member.
func (ms Members) Resume(ctx context.Context, actor Actor, nodeID uint64) (*Member, error) {
	return makeOnce(ctx, ms.s, actor, func(tx *Tx) (*Member, error) {
		m, err := tx.Member(nodeID)
		switch {
		case err != nil:
			return nil, err
		case m == nil:
			return nil, errNoMember
		case m.DrainState == DrainActive:
			return m, nil
		}
		if err := tx.exec(`UPDATE members SET drain_state = 'active', drain_updated_at = ?,
			drain_generation = drain_generation + 1,
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

// Promote makes a member a voter by an operator's decision, which autopilot does not undo.
func (ms Members) Promote(ctx context.Context, actor Actor, nodeID uint64) error {
	return doOnce(ctx, ms.s, actor, func(tx *Tx) error {
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
		if err := tx.exec("UPDATE members SET raft_role = 'voter', pinned = 1, modified_rev = ? WHERE raft_node_id = ?",
			tx.Rev, nodeID); err != nil {
			return err
		}
		return tx.audit("member.promote", nodeObject(nodeID), made("was", m.Role))
	})
}

const removal = "member.remove"

// Remove removes a member in one transaction. It deletes its row, leases, addresses and wraps of the data-encryption
// key, revokes its certificates, and refuses its id and key from then on. The rotation replaces the data-encryption key
// and the keys that the member could open. Only one removal runs at a time: afterwards the leader's loop, of any
// leader, removes the node from Raft and calls FinishRemoval. check runs inside the transaction, so that two removals
// are not checked against the same state. Remove returns how many valid join tokens the new keys supersede.
func (ms Members) Remove(ctx context.Context, actor Actor, nodeID uint64, rotation *DEKRotation,
	check func(*Member) error) (tokensEnded int, err error) {
	return makeOnce(ctx, ms.s, actor, func(tx *Tx) (tokensEnded int, err error) {
		m, err := tx.Member(nodeID)
		if err != nil {
			return 0, err
		}
		if m == nil {
			return 0, errNoMember
		}
		if err := check(m); err != nil {
			return 0, err
		}
		var other string
		busy, err := tx.get("SELECT object FROM operations WHERE kind = ? AND state = 'running'", []any{removal}, &other)
		if err != nil {
			return 0, err
		}
		if busy {
			return 0, fmt.Errorf("the removal of %s: %w", other, ErrUnderWay)
		}
		if tokensEnded, err = tx.validTokens(); err != nil {
			return 0, err
		}
		if err := tx.execAll([]statement{
			{query: "INSERT INTO removed_members (raft_node_id, id, name, recipient, removed_at, removed_rev) " +
				"VALUES (?, ?, ?, ?, ?, ?)",
				args: []any{m.NodeID, m.ID, m.Name, optional(m.Recipient), tx.Now, tx.Rev}},
			{query: "DELETE FROM members WHERE raft_node_id = ?", args: []any{m.NodeID}},
			{query: "DELETE FROM leases WHERE raft_node_id = ?", args: []any{m.NodeID}},
			{query: "DELETE FROM unhealthy_members WHERE raft_node_id = ?", args: []any{m.NodeID}},
			{query: "DELETE FROM dek_wraps WHERE raft_node_id = ?", args: []any{m.NodeID}},
			{query: "UPDATE overlay_allocations SET raft_node_id = NULL, released_at = ? WHERE raft_node_id = ?",
				args: []any{tx.Now, m.NodeID}},
			{query: "UPDATE certificates SET revoked_at = ? WHERE raft_node_id = ? AND revoked_at IS NULL",
				args: []any{tx.Now, m.NodeID}},
			{query: "UPDATE join_tokens SET revoked_at = ?, modified_rev = ? WHERE raft_node_id = ? AND revoked_at IS NULL",
				args: []any{tx.Now, tx.Rev, m.NodeID}},
			{query: "INSERT INTO operations (id, kind, object, state, created_at, updated_at, created_rev, modified_rev) " +
				"VALUES (?, ?, ?, 'running', ?, ?, ?, ?)",
				args: []any{m.ID, removal, nodeObject(m.NodeID), tx.Now, tx.Now, tx.Rev, tx.Rev}},
		}); err != nil {
			return 0, err
		}
		if err := tx.deleteWorkloadsOf(m.NodeID); err != nil {
			return 0, err
		}
		generation, err := tx.rotateDEK(rotation, fmt.Sprintf("node %d removed", m.NodeID))
		if err != nil {
			return 0, err
		}
		ms.s.keys.expect(generation, rotation.DEK)
		tx.tx.OnCommit(func() { ms.s.keys.adopt(generation, rotation.DEK) })
		return tokensEnded, tx.audit(removal, nodeObject(nodeID),
			fmt.Sprintf("%s; data-encryption key generation %d; ends %d join tokens", m.Name, generation, tokensEnded))
	})
}

// FinishRemoval records that a removed member is no longer in the Raft configuration.
func (ms Members) FinishRemoval(ctx context.Context, actor Actor, nodeID uint64) error {
	return ms.s.Write(ctx, actor, func(tx *Tx) error {
		var began string
		if _, err := tx.get("SELECT created_at FROM operations WHERE kind = ? AND object = ? AND state = 'running'",
			[]any{removal, nodeObject(nodeID)}, &began); err != nil {
			return err
		}
		n, err := tx.execCount("UPDATE operations SET state = 'done', updated_at = ?, modified_rev = ? "+
			"WHERE kind = ? AND object = ? AND state = 'running'",
			tx.Now, tx.Rev, removal, nodeObject(nodeID))
		if err != nil || n == 0 {
			return err
		}
		detail := "out of the Raft configuration"
		if took := tx.Now.Sub(parseTime(began)); took >= time.Second {
			detail += " after " + took.Truncate(time.Second).String()
		}
		return tx.audit("member.removed", nodeObject(nodeID), detail)
	})
}

// RunningRemovals lists the nodes whose removal is not finished.
func (ms Members) RunningRemovals(ctx context.Context, c Consistency) ([]uint64, error) {
	return recall(ctx, ms.s, c, "removals", []string{"operations"}, func(v *View) ([]uint64, error) {
		return collect(v, func(rows *sql.Rows) (id uint64, err error) {
			err = rows.Scan(&id)
			return id, err
		}, `SELECT r.raft_node_id FROM operations o JOIN removed_members r ON r.id = o.id
			WHERE o.kind = ? AND o.state = 'running'`, removal)
	})
}

// Removed lists the removed members.
func (ms Members) Removed(ctx context.Context, c Consistency) (list []uint64, err error) {
	err = ms.s.Read(ctx, c, func(v *View) error {
		list, err = collect(v, func(rows *sql.Rows) (id uint64, err error) {
			err = rows.Scan(&id)
			return id, err
		}, "SELECT raft_node_id FROM removed_members")
		return err
	})
	return list, err
}

// Lease records that something runs on a member. It ends when it expires or is deleted.
type Lease struct {
	ID        string
	NodeID    uint64
	Kind      string
	CreatedAt time.Time
	ExpiresAt time.Time
}

// Put creates or renews a lease; the result reports whether it is new. It rejects a new lease on a member that is
// draining, but renews an existing one, so that running work can finish. A lease cannot move to another member.
func (ls Leases) Put(ctx context.Context, actor Actor, l Lease, ttl time.Duration) (Lease, bool, error) {
	type granted struct {
		Lease
		Created bool
	}
	g, err := makeOnce(ctx, ls.s, actor, func(tx *Tx) (granted, error) {
		g := granted{Lease: l}
		var err error
		g.Created, err = tx.putLease(&g.Lease, ttl)
		return g, err
	})
	return g.Lease, g.Created, err
}

// putLease reports whether the lease is new.
func (t *Tx) putLease(l *Lease, ttl time.Duration) (created bool, err error) {
	m, err := t.Member(l.NodeID)
	switch {
	case err != nil:
		return false, err
	case m == nil:
		return false, errNoMember
	}
	old, err := t.leases(" WHERE id = ? AND expires_at > ?", l.ID, rfc3339(t.Now))
	if err != nil {
		return false, err
	}
	l.ExpiresAt = t.Now.Add(ttl + time.Second - 1).Truncate(time.Second) // round up
	if len(old) > 0 {
		if old[0].NodeID != l.NodeID {
			return false, refuse(Conflict, "the lease is held on node %d; delete it first to move it", old[0].NodeID)
		}
		l.CreatedAt, l.Kind = old[0].CreatedAt, old[0].Kind
		if err := t.exec("UPDATE leases SET expires_at = ?, modified_rev = ? WHERE id = ?", l.ExpiresAt, t.Rev,
			l.ID); err != nil {
			return false, err
		}
		return false, t.audit("lease.renew", "lease/"+l.ID, nodeObject(l.NodeID))
	}
	if m.DrainState != DrainActive {
		return false, refuse(Conflict, "node %d is %s: no new leases are granted on it", l.NodeID, m.DrainState)
	}
	if err := t.boundLeases(l.NodeID); err != nil {
		return false, err
	}
	if err := t.exec("DELETE FROM leases WHERE id = ?", l.ID); err != nil { // an expired one that is not pruned yet
		return false, err
	}
	l.CreatedAt = t.Now
	if err := t.exec("INSERT INTO leases (id, raft_node_id, kind, created_at, expires_at, created_rev, modified_rev) "+
		"VALUES (?, ?, ?, ?, ?, ?, ?)",
		l.ID, l.NodeID, l.Kind, l.CreatedAt, l.ExpiresAt, t.Rev, t.Rev); err != nil {
		return false, err
	}
	return true, t.audit("lease.grant", "lease/"+l.ID, nodeObject(l.NodeID)+" "+made("kind", l.Kind, "ttl", ttl))
}

// Delete deletes a lease.
func (ls Leases) Delete(ctx context.Context, actor Actor, id string) error {
	return doOnce(ctx, ls.s, actor, func(tx *Tx) error {
		held, err := tx.leases(" WHERE id = ?", id)
		if err != nil {
			return err
		}
		if len(held) == 0 {
			return refuse(NotFound, "lease not found")
		}
		if err := tx.exec("DELETE FROM leases WHERE id = ?", id); err != nil {
			return err
		}
		return tx.audit("lease.release", "lease/"+id,
			strings.TrimSpace(nodeObject(held[0].NodeID)+" "+made("kind", held[0].Kind)))
	})
}

func (v *View) leases(where string, args ...any) ([]Lease, error) {
	return collect(v, func(rows *sql.Rows) (l Lease, err error) {
		var created, expires string
		err = rows.Scan(&l.ID, &l.NodeID, &l.Kind, &created, &expires)
		l.CreatedAt, l.ExpiresAt = parseTime(created), parseTime(expires)
		return l, err
	}, "SELECT id, raft_node_id, kind, created_at, expires_at FROM leases"+where+" ORDER BY id", args...)
}

// List lists the current leases of one member or, with nodeID 0, of all.
func (ls Leases) List(ctx context.Context, c Consistency, nodeID uint64) (list []Lease, err error) {
	err = ls.s.Read(ctx, c, func(v *View) error {
		if nodeID == 0 {
			list, err = v.leases(" WHERE expires_at > ?", rfc3339(v.Now))
		} else {
			list, err = v.leases(" WHERE raft_node_id = ? AND expires_at > ?", int64(nodeID), rfc3339(v.Now))
		}
		return err
	})
	return list, err
}

// Count counts the current leases of a member.
func (ls Leases) Count(ctx context.Context, c Consistency, nodeID uint64) (n int, err error) {
	err = ls.s.Read(ctx, c, func(v *View) error {
		_, err := v.get("SELECT count(*) FROM leases WHERE raft_node_id = ? AND expires_at > ?",
			[]any{int64(nodeID), rfc3339(v.Now)}, &n)
		return err
	})
	return n, err
}
