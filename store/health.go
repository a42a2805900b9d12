package store

import (
	"context"
	"database/sql"
)

// HealthChange is a member that has stopped answering, or answers again.
type HealthChange struct {
	NodeID  uint64
	Healthy bool
	Reason  string
}

// UnhealthyMembers lists the members that are noted as unhealthy, as the leader has it. Callers must not modify the map.
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

// SetHealth notes changes of health, each with an audit row; what is noted already is left alone.
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

// RefusedAttempt is a refused call of the API, or several alike within a while.
type RefusedAttempt struct {
	Actor  string // whose credential it was, if it was a valid one
	Remote string
	Object string // method and pattern of the path
	Detail string // why, and how often; never a credential
}

// NoteRefusals writes an audit row for each of some refused attempts.
func (au Audit) NoteRefusals(ctx context.Context, list []RefusedAttempt) error {
	return au.s.Write(ctx, Actor{Name: "muster"}, func(tx *Tx) error {
		for _, r := range list {
			if err := tx.auditRow(AuditRow{Actor: r.Actor, NodeID: au.s.cfg.NodeID, Remote: r.Remote, Action: "access.refused",
				Object: r.Object, Outcome: outcomeRefused, Detail: r.Detail}); err != nil {
				return err
			}
		}
		return nil
	})
}
