package store

import (
	"context"
	"database/sql"
	"time"
)

// Lease says that something still runs on a member. It counts until it expires, is renewed or is given back.
type Lease struct {
	ID        string
	NodeID    uint64
	Kind      string
	CreatedAt time.Time
	ExpiresAt time.Time
}

// Put makes or renews a lease. A new one on a member that is being drained is refused; renewing goes on, so that
// what runs there can end in peace. A lease stays on its member.
func (ls Leases) Put(ctx context.Context, actor Actor, l Lease, ttl time.Duration) (Lease, bool, error) {
	created := false
	l, err := makeOnce(ctx, ls.s, actor, func(tx *Tx) (Lease, error) {
		m, err := tx.Member(l.NodeID)
		switch {
		case err != nil:
			return l, err
		case m == nil:
			return l, errNoMember
		}
		old, err := tx.leases(" WHERE id = ? AND expires_at > ?", l.ID, rfc3339(tx.Now))
		if err != nil {
			return l, err
		}
		l.ExpiresAt = tx.Now.Add(ttl + time.Second - 1).Truncate(time.Second) // never shorter than granted
		if len(old) > 0 {
			if old[0].NodeID != l.NodeID {
				return l, refuse(Conflict, "the lease is held on node %d; delete it first to move it", old[0].NodeID)
			}
			l.CreatedAt, l.Kind = old[0].CreatedAt, old[0].Kind
			if err := tx.exec("UPDATE leases SET expires_at = ?, modified_rev = ? WHERE id = ?", l.ExpiresAt, tx.Rev,
				l.ID); err != nil {
				return l, err
			}
			return l, tx.audit("lease.renew", "lease/"+l.ID, nodeObject(l.NodeID))
		}
		if m.DrainState != DrainActive {
			return l, refuse(Conflict, "node %d is %s: no new leases are granted on it", l.NodeID, m.DrainState)
		}
		if err := tx.boundLeases(l.NodeID); err != nil {
			return l, err
		}
		if err := tx.exec("DELETE FROM leases WHERE id = ?", l.ID); err != nil { // expired, not yet pruned
			return l, err
		}
		created, l.CreatedAt = true, tx.Now
		if err := tx.exec("INSERT INTO leases (id, raft_node_id, kind, created_at, expires_at, created_rev, modified_rev) "+
			"VALUES (?, ?, ?, ?, ?, ?, ?)",
			l.ID, l.NodeID, l.Kind, l.CreatedAt, l.ExpiresAt, tx.Rev, tx.Rev); err != nil {
			return l, err
		}
		return l, tx.audit("lease.grant", "lease/"+l.ID, nodeObject(l.NodeID))
	})
	return l, created, err
}

// Delete gives a lease back.
func (ls Leases) Delete(ctx context.Context, actor Actor, id string) error {
	return doOnce(ctx, ls.s, actor, func(tx *Tx) error {
		n, err := tx.execCount("DELETE FROM leases WHERE id = ?", id)
		if err != nil {
			return err
		}
		if n == 0 {
			return refuse(NotFound, "lease not found")
		}
		return tx.audit("lease.release", "lease/"+id, "")
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

// List lists the leases that have not expired, of one member or, with nodeID 0, of all.
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

// Count counts what still runs on a member.
func (ls Leases) Count(ctx context.Context, c Consistency, nodeID uint64) (n int, err error) {
	err = ls.s.Read(ctx, c, func(v *View) error {
		_, err := v.get("SELECT count(*) FROM leases WHERE raft_node_id = ? AND expires_at > ?",
			[]any{int64(nodeID), rfc3339(v.Now)}, &n)
		return err
	})
	return n, err
}
