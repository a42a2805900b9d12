package store

import (
	"context"
	"database/sql"
)

// HealthChange is a change of a member's health.
type HealthChange struct {
	NodeID  uint64
	Healthy bool
	Reason  string
}

// Unhealthy lists the members recorded as unhealthy. Callers must not modify the map.
func (ms Members) Unhealthy(ctx context.Context, c Consistency) (map[uint64]bool, error) {
	return recall(ctx, ms.s, c, "unhealthy", []string{"unhealthy_members"}, func(v *View) (map[uint64]bool, error) {
		list, err := collect(v, func(rows *sql.Rows) (id uint64, err error) { return id, rows.Scan(&id) },
			"SELECT raft_node_id FROM unhealthy_members")
		m := make(map[uint64]bool, len(list))
		for _, id := range list {
			m[id] = true
		}
		return m, err
	})
}

// SetHealth records changes of health, each with an audit row; it skips those already recorded.
func (ms Members) SetHealth(ctx context.Context, actor Actor, changes []HealthChange) error {
	return ms.s.Write(ctx, actor, func(tx *Tx) error {
		for _, c := range changes {
			var n int64
			var err error
			action := "member.unhealthy"
			if c.Healthy {
				action = "member.healthy"
				n, err = tx.execCount("DELETE FROM unhealthy_members WHERE raft_node_id = ?", c.NodeID)
			} else {
				n, err = tx.execCount(`INSERT INTO unhealthy_members (raft_node_id, since, created_rev) VALUES (?, ?, ?)
					ON CONFLICT (raft_node_id) DO NOTHING`, c.NodeID, tx.Now, tx.Rev)
			}
			if err != nil {
				return err
			}
			if n == 0 {
				continue
			}
			if err := tx.audit(action, nodeObject(c.NodeID), c.Reason); err != nil {
				return err
			}
		}
		return nil
	})
}
