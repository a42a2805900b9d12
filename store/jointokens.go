package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"time"
)

// Formats of join tokens.
const (
	FormatMuster = "muster" // an HMAC token of the members family
	FormatZLayer = "zlayer" // a signed token of the join family
)

// JoinToken is the record of a join token; the token's text is computed from it and the join key.
type JoinToken struct {
	ID        string // 32 lower hex digits, or the 64 of a signed token
	Text      string // only in the answer to its creation
	Format    string // FormatMuster or FormatZLayer
	NodeID    uint64 // 0: any
	Mode      string // "": the joiner's choice
	Labels    map[string]string
	BindCIDR  string   // only for callers from this prefix
	BindName  string   // only for names that match this pattern (path.Match)
	Hosts     []string // allowed in the certificates of new members; see addr.HostList
	BindKey   string   // only for the public key with this SHA-256, lower hex
	Uses      int
	MaxUses   int
	CreatedBy string
	CreatedAt time.Time
	ExpiresAt time.Time
	RevokedAt *time.Time

	Superseded bool   // the epoch of its signing key no longer verifies
	KeyEpoch   uint64 `json:"-"` // of the signing key, at creation
}

// States of a join token, the same in lists and in refusals.
const (
	TokenValid      = "valid"
	TokenUsed       = "used"
	TokenExpired    = "expired"
	TokenRevoked    = "revoked"
	TokenSuperseded = "superseded"
)

// State returns the token's state in one word.
func (t *JoinToken) State(now time.Time) string {
	switch {
	case t.RevokedAt != nil:
		return TokenRevoked
	case t.Uses >= t.MaxUses:
		return TokenUsed
	case now.After(t.ExpiresAt):
		return TokenExpired
	case t.Superseded:
		return TokenSuperseded
	default:
		return TokenValid
	}
}

// Superseded is the refusal of a joiner with a superseded token.
const Superseded = "superseded: it was signed with a key that the cluster has replaced, by a rotation or because a " +
	"member was removed; ask for a new token"

// superseded is an SQL expression, with the time as its argument, for whether a row t of join_tokens was signed in an
// epoch that no longer verifies. A token is signed with the active epoch (JoinTokens.Create), so its epoch is the
// newest one older than the token. An epoch of the token's own revision is younger: it was created later in the same
// batch.
const (
	superseded = `NOT EXISTS (SELECT 1 FROM cluster_keys k
		WHERE k.purpose = CASE t.format WHEN 'zlayer' THEN 'join-signing' ELSE 'join-hmac' END
		AND k.epoch = (SELECT max(e.epoch) FROM cluster_keys e WHERE e.purpose = k.purpose AND e.created_rev < t.created_rev)
		AND (k.state = 'active' OR k.state = 'grace' AND k.grace_until > ?))`
	selectJoinTokens = `SELECT t.id, t.format, t.raft_node_id, t.mode, t.labels, t.bind_cidr, t.bind_name, t.bind_key,
		t.uses,
		t.max_uses, t.created_by, t.created_at, t.expires_at, t.revoked_at, ` + superseded + ` FROM join_tokens t`
	countValidTokens = `SELECT count(*) FROM join_tokens t WHERE t.revoked_at IS NULL AND t.uses < t.max_uses
		AND t.expires_at >= ?
		AND NOT ` + superseded
)

func scanJoinToken(rows *sql.Rows) (t JoinToken, err error) {
	var node sql.NullInt64
	var labels, created, expires string
	var revoked sql.NullString
	if err := rows.Scan(&t.ID, &t.Format, &node, &t.Mode, &labels, &t.BindCIDR, &t.BindName, &t.BindKey, &t.Uses,
		&t.MaxUses, &t.CreatedBy, &created, &expires, &revoked,
		&t.Superseded); err != nil {
		return t, err
	}
	t.NodeID, t.CreatedAt, t.ExpiresAt, t.RevokedAt = uint64(node.Int64), parseTime(created), parseTime(expires),
		nullTime(revoked)
	return t, json.Unmarshal([]byte(labels), &t.Labels)
}

// Create stores a token; the caller sets ID, NodeID, Mode, Labels, MaxUses and ExpiresAt. It rejects a node id of a
// present or former member.
func (jt JoinTokens) Create(ctx context.Context, actor Actor, t JoinToken) (JoinToken, error) {
	if t.Labels == nil {
		t.Labels = map[string]string{}
	}
	labels, err := json.Marshal(t.Labels)
	if err != nil {
		return t, err
	}
	hosts, err := json.Marshal(t.Hosts)
	if err != nil {
		return t, err
	}
	again := func(tx *Tx, old *JoinToken) error {
		now, err := tx.joinToken(old.ID)
		if err == nil && (now == nil || now.RevokedAt != nil) {
			err = refuse(Forbidden,
				"the join token that this request created has been revoked; an Idempotency-Key does not restore it")
		}
		return err
	}
	return makeOnceUnless(ctx, jt.s, actor, again, func(tx *Tx) (JoinToken, error) {
		if err := tx.boundJoinTokens(actor.String(), len(labels)+len(hosts)); err != nil {
			return t, err
		}
		if t.NodeID != 0 {
			if err := tx.nodeIDFree(t.NodeID); err != nil {
				return t, err
			}
		}
		if err := tx.activeEpoch(&t); err != nil {
			return t, err
		}
		t.CreatedAt, t.CreatedBy = tx.Now, actor.String()
		if err := tx.insertJoinToken(&t, string(labels)); err != nil {
			return t, err
		}
		if len(t.Hosts) > 0 {
			if err := tx.exec("UPDATE join_tokens SET hosts = ? WHERE id = ?", string(hosts), t.ID); err != nil {
				return t, err
			}
		}
		return t, tx.audit("join_token.create", "join_token/"+t.ID,
			made("uses", t.MaxUses, "ttl", t.ExpiresAt.Sub(tx.Now), "mode", t.Mode, "node", t.NodeID, "hosts", t.Hosts,
				"cidr", t.BindCIDR, "name", t.BindName, "key", t.BindKey, "labels", t.Labels))
	})
}

func (t *Tx) insertJoinToken(k *JoinToken, labels string) error {
	return t.exec(`INSERT INTO join_tokens (id, format, raft_node_id, mode, labels, bind_cidr, bind_name, bind_key,
		max_uses,
		created_by, created_at, expires_at, created_rev, modified_rev) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		k.ID, k.Format, optional(int64(k.NodeID)), k.Mode, labels, k.BindCIDR, k.BindName, k.BindKey, k.MaxUses,
		k.CreatedBy, k.CreatedAt, k.ExpiresAt, t.Rev, t.Rev)
}

// activeEpoch returns ErrKeyMoved when the token's signing key has been replaced since it was read.
func (t *Tx) activeEpoch(k *JoinToken) error {
	purpose := KeyJoinHMAC
	if k.Format == FormatZLayer {
		purpose = KeyJoinSigning
	}
	active, err := t.get("SELECT 1 FROM cluster_keys WHERE purpose = ? AND epoch = ? AND state = 'active'",
		[]any{purpose, int64(k.KeyEpoch)}, new(int))
	if err == nil && !active {
		err = ErrKeyMoved
	}
	return err
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

// List lists the tokens by time of creation.
func (jt JoinTokens) List(ctx context.Context, c Consistency) (list []JoinToken, err error) {
	err = jt.s.Read(ctx, c, func(v *View) error {
		list, err = collect(v, scanJoinToken, selectJoinTokens+" ORDER BY t.created_at, t.id", rfc3339(v.Now))
		if err != nil {
			return err
		}
		return v.tokenHosts(list)
	})
	return list, err
}

func (v *View) joinToken(id string) (*JoinToken, error) {
	list, err := collect(v, scanJoinToken, selectJoinTokens+" WHERE t.id = ?", rfc3339(v.Now), id)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return &list[0], v.tokenHosts(list)
}

// tokenHosts sets the hosts of tokens, if the schema has them.
func (v *View) tokenHosts(list []JoinToken) error {
	n, err := v.SchemaVersion()
	if err != nil || n < hostsSchema {
		return err
	}
	for i := range list {
		var hosts string
		if _, err := v.get("SELECT hosts FROM join_tokens WHERE id = ? AND hosts <> '[]'", []any{list[i].ID},
			&hosts); err != nil {
			return err
		}
		if hosts != "" {
			if err := json.Unmarshal([]byte(hosts), &list[i].Hosts); err != nil {
				return err
			}
		}
	}
	return nil
}

// TokenUse is one use of a token: the member that it admitted.
type TokenUse struct {
	TokenID string
	NodeID  uint64
	UsedAt  time.Time
	Remote  string
}

// Uses lists all uses of tokens.
func (jt JoinTokens) Uses(ctx context.Context, c Consistency) (list []TokenUse, err error) {
	err = jt.s.Read(ctx, c, func(v *View) error {
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

// Revoke revokes a token. Revoking twice is not an error.
func (jt JoinTokens) Revoke(ctx context.Context, actor Actor, id string) error {
	return doOnce(ctx, jt.s, actor, func(tx *Tx) error {
		t, err := tx.joinToken(id)
		switch {
		case err != nil:
			return err
		case t == nil:
			return refuse(NotFound, "join token not found")
		case t.RevokedAt != nil:
			return nil
		}
		if err := tx.exec("UPDATE join_tokens SET revoked_at = ?, modified_rev = ? WHERE id = ?", tx.Now, tx.Rev,
			id); err != nil {
			return err
		}
		return tx.audit("join_token.revoke", "join_token/"+id,
			made("was", t.State(tx.Now), "used", t.Uses, "uses", t.MaxUses, "mode", t.Mode, "node", t.NodeID))
	})
}
