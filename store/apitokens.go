package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"slices"
	"time"
)

// Scopes of API tokens. ScopeManagement includes all others.
const (
	ScopeManagement    = "management"
	ScopeClusterRead   = "cluster:read"
	ScopeClusterManage = "cluster:manage"
	ScopePeeringRead   = "peering:read"
	ScopePeeringWrite  = "peering:write"
	ScopeEnroll        = "enroll"
	ScopeKeysManage    = "keys:manage"
)

// Scopes lists every scope that a token can have.
var Scopes = []string{ScopeManagement, ScopeClusterRead, ScopeClusterManage, ScopePeeringRead, ScopePeeringWrite,
	ScopeEnroll, ScopeKeysManage}

// APIToken is a credential of the API. Only its hash is stored.
type APIToken struct {
	ID         string
	Name       string
	Secret     string // only in the answer to its creation
	SecretHash string // lower hex SHA-256
	Scopes     []string
	CreatedBy  string
	CreatedAt  time.Time
	ExpiresAt  *time.Time
}

// Allows reports whether the token has a scope, directly or through one that includes it.
func (t *APIToken) Allows(scope string) bool {
	for _, have := range t.Scopes {
		switch {
		case have == scope, have == ScopeManagement,
			have == ScopeClusterManage && scope == ScopeClusterRead,
			have == ScopePeeringWrite && scope == ScopePeeringRead,
			have == ScopeEnroll && scope == ScopeEnrollKibana:
			return true
		}
	}
	return false
}

const (
	insertAPIToken = "INSERT INTO api_tokens (id, name, secret_hash, scopes, created_by, created_at, expires_at, " +
		"created_rev) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
	selectAPITokens = "SELECT id, name, secret_hash, scopes, created_by, created_at, expires_at FROM api_tokens"
)

func scanAPIToken(rows *sql.Rows) (t APIToken, err error) {
	var scopes, created string
	var expires sql.NullString
	if err := rows.Scan(&t.ID, &t.Name, &t.SecretHash, &scopes, &t.CreatedBy, &created, &expires); err != nil {
		return t, err
	}
	t.CreatedAt, t.ExpiresAt = parseTime(created), nullTime(expires)
	return t, json.Unmarshal([]byte(scopes), &t.Scopes)
}

func nullTime(s sql.NullString) *time.Time {
	if !s.Valid {
		return nil
	}
	t := parseTime(s.String)
	return &t
}

// Create stores a token; the caller sets ID, Name, Secret, SecretHash and Scopes.
func (at APITokens) Create(ctx context.Context, actor Actor, t APIToken) (APIToken, error) {
	scopes, err := json.Marshal(t.Scopes)
	if err != nil {
		return t, err
	}
	again := func(tx *Tx, old *APIToken) error {
		there, err := tx.get("SELECT 1 FROM api_tokens WHERE id = ?", []any{old.ID}, new(int))
		if err == nil && !there {
			err = refuse(Forbidden,
				"the API token that this request created has been deleted; an Idempotency-Key does not restore it")
		}
		return err
	}
	return makeOnceUnless(ctx, at.s, actor, again, func(tx *Tx) (APIToken, error) {
		if err := tx.boundAPITokens(); err != nil {
			return t, err
		}
		t.CreatedAt, t.CreatedBy = tx.Now, actor.String()
		if err := tx.exec(insertAPIToken, t.ID, t.Name, t.SecretHash, string(scopes), t.CreatedBy, t.CreatedAt, t.ExpiresAt,
			int64(tx.Rev)); err != nil {
			return t, err
		}
		return t, tx.audit("api_token.create", "api_token/"+t.ID,
			made("name", t.Name, "scopes", t.Scopes, "ttl", lifetime(tx.Now, t.ExpiresAt)))
	})
}

// RecoveredToken is a token created by an operator with access to a member's files.
type RecoveredToken struct {
	ID, Hash string // of the secret
	Scope    string
	TTL      time.Duration // whole seconds; 0: does not expire
}

// Recover stores a token created by an operator with access to a member's files; how goes into the audit. Storing the
// same token again changes nothing.
func (at APITokens) Recover(ctx context.Context, actor Actor, t RecoveredToken, how string) error {
	scopes, err := json.Marshal([]string{t.Scope})
	if err != nil {
		return err
	}
	return at.s.Write(ctx, actor, func(tx *Tx) error {
		var have string
		known, err := tx.get("SELECT secret_hash FROM api_tokens WHERE id = ?", []any{t.ID}, &have)
		switch {
		case err != nil:
			return err
		case known && have == t.Hash:
			return nil
		case known:
			return refuse(Conflict, "another API token has that id")
		}
		var ends *time.Time
		if t.TTL > 0 {
			end := tx.Now.Add(t.TTL)
			ends = &end
		}
		if err := tx.exec(insertAPIToken, t.ID, "recovered", t.Hash, string(scopes), actor.String(), tx.Now, ends,
			int64(tx.Rev)); err != nil {
			return err
		}
		return tx.audit("api_token.recover", "api_token/"+t.ID, how)
	})
}

// List lists the tokens by time of creation.
func (at APITokens) List(ctx context.Context, c Consistency) (list []APIToken, err error) {
	err = at.s.Read(ctx, c, func(v *View) error {
		list, err = collect(v, scanAPIToken, selectAPITokens+" ORDER BY created_at, id")
		return err
	})
	return list, err
}

// Delete deletes a token. It rejects the last token with scope management that does not expire: without it nobody could
// create another.
func (at APITokens) Delete(ctx context.Context, actor Actor, id string) error {
	return doOnce(ctx, at.s, actor, func(tx *Tx) error {
		list, err := collect(&tx.View, scanAPIToken, selectAPITokens)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(list, func(t APIToken) bool { return t.ID == id })
		if i < 0 {
			return refuse(NotFound, "API token not found")
		}
		managers := 0
		for _, t := range list {
			if t.Allows(ScopeManagement) && t.ExpiresAt == nil {
				managers++
			}
		}
		if managers == 1 && list[i].Allows(ScopeManagement) && list[i].ExpiresAt == nil {
			return refuse(Conflict,
				"this is the last API token with scope management that does not expire; create another one first")
		}
		if err := tx.exec("DELETE FROM api_tokens WHERE id = ?", id); err != nil {
			return err
		}
		return tx.audit("api_token.delete", "api_token/"+id, list[i].Name)
	})
}

// ByHash returns the valid token with this secret hash, or nil.
func (at APITokens) ByHash(ctx context.Context, c Consistency, hash string) (*APIToken, error) {
	return at.findToken(ctx, c, "hash/"+hash, " WHERE secret_hash = ?", hash)
}

// ByID returns the valid token with this id, or nil.
func (at APITokens) ByID(ctx context.Context, c Consistency, id string) (*APIToken, error) {
	return at.findToken(ctx, c, "id/"+id, " WHERE id = ?", id)
}

func (at APITokens) findToken(ctx context.Context, c Consistency, key, where, arg string) (*APIToken, error) {
	load := func(v *View) (*APIToken, error) {
		list, err := collect(v, scanAPIToken, selectAPITokens+where, arg)
		if err != nil {
			return nil, err
		}
		if len(list) == 0 {
			return nil, errNoSuchToken // errors are not cached, so guesses do not fill the cache
		}
		return &list[0], nil
	}
	var t *APIToken
	var err error
	if c == Stale {
		err = at.s.Read(ctx, Stale, func(v *View) (err error) { t, err = load(v); return err })
	} else {
		t, err = recall(ctx, at.s, AsLeader, "api_token/"+key, []string{"api_tokens"}, load)
	}
	switch {
	case err == errNoSuchToken:
		return nil, nil
	case err != nil:
		return nil, err
	case t.ExpiresAt != nil && !at.s.cfg.Now().Before(*t.ExpiresAt):
		return nil, nil
	}
	return t, nil
}

var errNoSuchToken = refuse(NotFound, "API token not found")
