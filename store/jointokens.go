package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"time"
)

// JoinToken is the record of a join token; the token itself is computed from it and the join key.
type JoinToken struct {
	ID        string // 32 lower hex digits, or the 64 of a signed token
	Text      string // only in the answer to its creation
	Format    string // "muster" or "zlayer"
	NodeID    uint64 // 0: any
	Mode      string // "": the joiner's choice
	Labels    map[string]string
	BindCIDR  string // only callers from this prefix may use it
	BindName  string // only names that fit this pattern (path.Match)
	BindKey   string // only the public key with this SHA-256, lower hex
	Uses      int
	MaxUses   int
	CreatedBy string
	CreatedAt time.Time
	ExpiresAt time.Time
	RevokedAt *time.Time
}

// State tells in one word what the token is good for.
func (t *JoinToken) State(now time.Time) string {
	switch {
	case t.RevokedAt != nil:
		return "revoked"
	case t.Uses >= t.MaxUses:
		return "used"
	case now.After(t.ExpiresAt):
		return "expired"
	default:
		return "valid"
	}
}

const selectJoinTokens = "SELECT id, format, raft_node_id, mode, labels, bind_cidr, bind_name, bind_key, uses, max_uses, created_by, created_at, expires_at, revoked_at FROM join_tokens"

func scanJoinToken(rows *sql.Rows) (t JoinToken, err error) {
	var node sql.NullInt64
	var labels, created, expires string
	var revoked sql.NullString
	if err := rows.Scan(&t.ID, &t.Format, &node, &t.Mode, &labels, &t.BindCIDR, &t.BindName, &t.BindKey, &t.Uses, &t.MaxUses, &t.CreatedBy, &created, &expires, &revoked); err != nil {
		return t, err
	}
	t.NodeID, t.CreatedAt, t.ExpiresAt, t.RevokedAt = uint64(node.Int64), parseTime(created), parseTime(expires), nullTime(revoked)
	return t, json.Unmarshal([]byte(labels), &t.Labels)
}

// CreateJoinToken stores a token whose ID, NodeID, Mode, Labels, MaxUses and ExpiresAt the caller has chosen. A
// token for the id of a member, or of a former one, is refused.
func (s *Store) CreateJoinToken(ctx context.Context, actor Actor, t JoinToken) (JoinToken, error) {
	if t.Labels == nil {
		t.Labels = map[string]string{}
	}
	labels, err := json.Marshal(t.Labels)
	if err != nil {
		return t, err
	}
	again := func(tx *Tx, old *JoinToken) error {
		now, err := tx.joinToken(old.ID)
		if err == nil && (now == nil || now.RevokedAt != nil) {
			err = refuse(Forbidden, "the join token that this request has made is revoked; an Idempotency-Key does not bring it back")
		}
		return err
	}
	return writeOnce(ctx, s, actor, again, func(tx *Tx) (JoinToken, error) {
		if err := tx.boundJoinTokens(actor.String()); err != nil {
			return t, err
		}
		if t.NodeID != 0 {
			if err := tx.nodeIDFree(t.NodeID); err != nil {
				return t, err
			}
		}
		t.CreatedAt, t.CreatedBy = tx.Now, actor.String()
		if err := tx.exec(`INSERT INTO join_tokens (id, format, raft_node_id, mode, labels, bind_cidr, bind_name, bind_key, max_uses, created_by, created_at, expires_at, created_rev, modified_rev)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			t.ID, t.Format, optional(int64(t.NodeID)), t.Mode, string(labels), t.BindCIDR, t.BindName, t.BindKey, t.MaxUses, t.CreatedBy, t.CreatedAt, t.ExpiresAt, tx.Rev, tx.Rev); err != nil {
			return t, err
		}
		return t, tx.audit("join_token.create", "join_token/"+t.ID, "")
	})
}

func (t *Tx) nodeIDFree(id uint64) error {
	taken, err := t.get("SELECT 1 FROM members WHERE raft_node_id = ?", []any{int64(id)}, new(int))
	if err != nil {
		return err
	}
	if taken {
		return refuse(Conflict, "node %d is already a member of the cluster", id)
	}
	gone, err := t.get("SELECT 1 FROM removed_members WHERE raft_node_id = ?", []any{int64(id)}, new(int))
	if err != nil {
		return err
	}
	if gone {
		return refuse(Conflict, "node %d was a member and has been removed; its id is never used again", id)
	}
	return nil
}

// JoinTokens lists the tokens by time of creation.
func (s *Store) JoinTokens(ctx context.Context, c Consistency) (list []JoinToken, err error) {
	err = s.Read(ctx, c, func(v *View) error {
		list, err = collect(v, scanJoinToken, selectJoinTokens+" ORDER BY created_at, id")
		return err
	})
	return list, err
}

func (v *View) joinToken(id string) (*JoinToken, error) {
	list, err := collect(v, scanJoinToken, selectJoinTokens+" WHERE id = ?", id)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return &list[0], nil
}

// TokenUse is one member that was admitted by a token.
type TokenUse struct {
	TokenID string
	NodeID  uint64
	UsedAt  time.Time
	Remote  string
}

// JoinTokenUses lists who was admitted by which token and when.
func (s *Store) JoinTokenUses(ctx context.Context, c Consistency) (list []TokenUse, err error) {
	err = s.Read(ctx, c, func(v *View) error {
		list, err = collect(v, func(rows *sql.Rows) (u TokenUse, err error) {
			var used string
			err = rows.Scan(&u.TokenID, &u.NodeID, &used, &u.Remote)
			u.UsedAt = parseTime(used)
			return u, err
		}, "SELECT token_id, raft_node_id, used_at, remote FROM join_token_uses ORDER BY token_id, raft_node_id")
		return err
	})
	return list, err
}

// RevokeJoinToken makes a token useless. Revoking twice is no error.
func (s *Store) RevokeJoinToken(ctx context.Context, actor Actor, id string) error {
	return s.Write(ctx, actor, func(tx *Tx) error {
		t, err := tx.joinToken(id)
		switch {
		case err != nil:
			return err
		case t == nil:
			return refuse(NotFound, "join token not found")
		case t.RevokedAt != nil:
			return nil
		}
		if err := tx.exec("UPDATE join_tokens SET revoked_at = ?, modified_rev = ? WHERE id = ?", tx.Now, tx.Rev, id); err != nil {
			return err
		}
		return tx.audit("join_token.revoke", "join_token/"+id, "")
	})
}

// tokenKept is how long a token's record outlives its expiry.
const tokenKept = 30 * 24 * time.Hour

// Prune deletes records that nobody can need any more: join tokens, API tokens and API keys long expired, remembered answers,
// expired leases, enrollments whose certificates expired long ago.
func (s *Store) Prune(ctx context.Context, actor Actor) error {
	return s.Write(ctx, actor, func(tx *Tx) error {
		tokens, err := tx.execCount("DELETE FROM join_tokens WHERE expires_at < ?", tx.Now.Add(-tokenKept))
		if err != nil {
			return err
		}
		answers, err := tx.execCount("DELETE FROM idempotency WHERE created_at < ? OR key LIKE 'auto-%' AND created_at < ?",
			tx.Now.Add(-rememberFor), tx.Now.Add(-rememberAutoFor))
		if err != nil {
			return err
		}
		expired, err := tx.execCount("DELETE FROM api_tokens WHERE expires_at < ?", tx.Now.Add(-tokenKept))
		if err != nil {
			return err
		}
		leases, err := tx.execCount("DELETE FROM leases WHERE expires_at < ?", tx.Now)
		if err != nil {
			return err
		}
		enrollments, err := tx.pruneEnrollments(tx.Now.Add(-tokenKept))
		if err != nil {
			return err
		}
		leaves, err := tx.execCount("DELETE FROM certificates WHERE expires_at < ?", tx.Now.Add(-certificateKept))
		if err != nil || tokens+answers+expired+leases+enrollments+leaves == 0 {
			return err
		}
		return tx.audit("store.prune", "cluster", "")
	})
}
