package store

import (
	"context"
	"database/sql"
	"fmt"
)

const removal = "member.remove"

// RemoveMember takes a machine out of the cluster in one transaction: its row, its leases, its addresses, its wraps of
// the data-encryption key; its certificates are revoked and its id and key are refused for ever. What it knew is worth
// nothing afterwards: the rotation makes a new data-encryption key and new epochs of the keys that it could open. Only one removal is
// under way at a time; the leader's loop, whoever leads, takes the node out of Raft and then calls FinishRemoval.
// check runs inside the transaction, so that two removals cannot both be judged by the same state.
// It returns how many join tokens that were valid are superseded by the new keys.
func (s *Store) RemoveMember(ctx context.Context, actor Actor, nodeID uint64, rotation *DEKRotation, check func(*Member) error) (tokensEnded int, err error) {
	return makeOnce(ctx, s, actor, func(tx *Tx) (tokensEnded int, err error) {
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
		for _, st := range []statement{
			{query: "INSERT INTO removed_members (raft_node_id, id, name, recipient, removed_at, removed_rev) VALUES (?, ?, ?, ?, ?, ?)",
				args: []any{m.NodeID, m.ID, m.Name, optional(m.Recipient), tx.Now, tx.Rev}},
			{query: "DELETE FROM members WHERE raft_node_id = ?", args: []any{m.NodeID}},
			{query: "DELETE FROM leases WHERE raft_node_id = ?", args: []any{m.NodeID}},
			{query: "DELETE FROM unhealthy_members WHERE raft_node_id = ?", args: []any{m.NodeID}},
			{query: "DELETE FROM dek_wraps WHERE raft_node_id = ?", args: []any{m.NodeID}},
			{query: "UPDATE overlay_allocations SET raft_node_id = NULL, released_at = ? WHERE raft_node_id = ?", args: []any{tx.Now, m.NodeID}},
			{query: "UPDATE certificates SET revoked_at = ? WHERE raft_node_id = ? AND revoked_at IS NULL", args: []any{tx.Now, m.NodeID}},
			{query: "UPDATE join_tokens SET revoked_at = ?, modified_rev = ? WHERE raft_node_id = ? AND revoked_at IS NULL", args: []any{tx.Now, tx.Rev, m.NodeID}},
			{query: "INSERT INTO operations (id, kind, object, state, created_at, updated_at, created_rev, modified_rev) VALUES (?, ?, ?, 'running', ?, ?, ?, ?)",
				args: []any{m.ID, removal, nodeObject(m.NodeID), tx.Now, tx.Now, tx.Rev, tx.Rev}},
		} {
			if err := tx.exec(st.query, st.args...); err != nil {
				return 0, err
			}
		}
		generation, err := tx.rotateDEK(rotation, fmt.Sprintf("node %d removed", m.NodeID))
		if err != nil {
			return 0, err
		}
		s.keys.expect(generation, rotation.DEK)
		tx.tx.OnCommit(func() { s.keys.adopt(generation, rotation.DEK) })
		return tokensEnded, tx.audit(removal, nodeObject(nodeID), fmt.Sprintf("%s; data-encryption key generation %d; ends %d join tokens", m.Name, generation, tokensEnded))
	})
}

// FinishRemoval records that a removed member is out of the Raft configuration.
func (s *Store) FinishRemoval(ctx context.Context, actor Actor, nodeID uint64) error {
	return s.Write(ctx, actor, func(tx *Tx) error {
		n, err := tx.execCount("UPDATE operations SET state = 'done', updated_at = ?, modified_rev = ? WHERE kind = ? AND object = ? AND state = 'running'",
			tx.Now, tx.Rev, removal, nodeObject(nodeID))
		if err != nil || n == 0 {
			return err
		}
		return tx.audit("member.removed", nodeObject(nodeID), "")
	})
}

// RunningRemovals lists the nodes whose removal has yet to be finished, as the leader knows them.
func (s *Store) RunningRemovals(ctx context.Context) ([]uint64, error) {
	return memo(ctx, s, "removals", []string{"operations"}, func(v *View) ([]uint64, error) {
		return collect(v, func(rows *sql.Rows) (id uint64, err error) {
			err = rows.Scan(&id)
			return id, err
		}, `SELECT r.raft_node_id FROM operations o JOIN removed_members r ON r.id = o.id WHERE o.kind = ? AND o.state = 'running'`, removal)
	})
}

// Removed lists the nodes that were members once, from the local replica.
func (s *Store) Removed(ctx context.Context) (list []uint64, err error) {
	err = s.Read(ctx, Stale, func(v *View) error {
		list, err = collect(v, func(rows *sql.Rows) (id uint64, err error) {
			err = rows.Scan(&id)
			return id, err
		}, "SELECT raft_node_id FROM removed_members")
		return err
	})
	return list, err
}
