package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"strings"
	"time"
)

// Kinds of API keys.
const (
	KeyKindAPI        = "api_key"          // created by POST /_security/api_key
	KeyKindEnrollment = "enrollment_token" // the key of an enrollment token
)

// ScopeEnrollKibana is a scope that only API keys can have: it allows to enroll a Kibana, not a node.
const ScopeEnrollKibana = "enroll:kibana"

// APIKey is a credential in Elasticsearch's form: an id and a secret, presented together. Unlike an API token it is
// invalidated, not deleted, so that a refusal can give the reason.
type APIKey struct {
	ID              string
	Kind            string
	Name            string
	Secret          string // only in the answer to its creation
	Text            string // of an enrollment token, only in the answer to its creation
	SecretHash      string // lower hex SHA-256
	Scopes          []string
	RoleDescriptors json.RawMessage // as in the request
	Metadata        json.RawMessage
	OwnerID         string // id of the credential that created it
	OwnerName       string
	Uses            int // enrollments
	MaxUses         int // 0: any number
	CreatedAt       time.Time
	ExpiresAt       *time.Time
	RevokedAt       *time.Time
}

// State returns the key's state in one word.
func (k *APIKey) State(now time.Time) string {
	switch {
	case k.RevokedAt != nil:
		return "revoked"
	case k.UsedUp():
		return "used"
	case k.ExpiresAt != nil && !now.Before(*k.ExpiresAt):
		return "expired"
	default:
		return "valid"
	}
}

// UsedUp reports whether no uses are left.
func (k *APIKey) UsedUp() bool { return k.MaxUses > 0 && k.Uses >= k.MaxUses }

// Refusal returns why the key is invalid, in Elasticsearch's words, or "". It does not consider UsedUp: a repeated
// request may be the one that took the last use.
func (k *APIKey) Refusal(now time.Time) string {
	switch {
	case k.RevokedAt != nil:
		return "api key [" + k.ID + "] has been invalidated"
	case k.ExpiresAt != nil && !now.Before(*k.ExpiresAt):
		return "api key is expired"
	}
	return ""
}

// Used returns the refusal of a key without uses left.
func (k *APIKey) Used() string { return "api key [" + k.ID + "] has already been used" }

// Token returns the key as an API token, which authorizes requests.
func (k *APIKey) Token() *APIToken {
	return &APIToken{
		ID:        k.ID,
		Name:      k.Name,
		Scopes:    k.Scopes,
		CreatedBy: k.OwnerName,
		CreatedAt: k.CreatedAt,
		ExpiresAt: k.ExpiresAt,
	}
}

const selectAPIKeys = `SELECT id, kind, name, secret_hash, scopes, role_descriptors, metadata, owner_id, owner_name,
	uses, max_uses, created_at,
	expires_at, revoked_at FROM api_keys`

func scanAPIKey(rows *sql.Rows) (k APIKey, err error) {
	var scopes, roles, metadata, created string
	var expires, revoked sql.NullString
	var most sql.NullInt64
	if err := rows.Scan(&k.ID, &k.Kind, &k.Name, &k.SecretHash, &scopes, &roles, &metadata, &k.OwnerID, &k.OwnerName,
		&k.Uses, &most, &created,
		&expires, &revoked); err != nil {
		return k, err
	}
	k.RoleDescriptors, k.Metadata, k.MaxUses = json.RawMessage(roles), json.RawMessage(metadata), int(most.Int64)
	k.CreatedAt, k.ExpiresAt, k.RevokedAt = parseTime(created), nullTime(expires), nullTime(revoked)
	return k, json.Unmarshal([]byte(scopes), &k.Scopes)
}

// Create stores a key; the caller sets all fields but CreatedAt.
func (ak APIKeys) Create(ctx context.Context, actor Actor, k APIKey) (APIKey, error) {
	if k.Scopes == nil {
		k.Scopes = []string{}
	}
	scopes, err := json.Marshal(k.Scopes)
	if err != nil {
		return k, err
	}
	again := func(tx *Tx, old *APIKey) error {
		now, err := tx.apiKey(old.ID)
		if err == nil && (now == nil || now.RevokedAt != nil) {
			err = refuse(Forbidden,
				"the key that this request created has been invalidated; an Idempotency-Key does not restore it")
		}
		return err
	}
	return makeOnceUnless(ctx, ak.s, actor, again, func(tx *Tx) (APIKey, error) {
		if err := tx.boundAPIKeys(k.OwnerID, len(k.RoleDescriptors)+len(k.Metadata)); err != nil {
			return k, err
		}
		k.CreatedAt = tx.Now
		if err := tx.exec(`INSERT INTO api_keys (id, kind, name, secret_hash, scopes, role_descriptors, metadata, owner_id,
			owner_name, max_uses, created_at,
			expires_at, created_rev, modified_rev) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			k.ID, k.Kind, k.Name, k.SecretHash, string(scopes), orObject(k.RoleDescriptors), orObject(k.Metadata), k.OwnerID,
			k.OwnerName,
			optional(int64(k.MaxUses)), k.CreatedAt, k.ExpiresAt, tx.Rev, tx.Rev); err != nil {
			return k, err
		}
		return k, tx.audit(k.Kind+".create", keyObject(k.ID),
			made("name", k.Name, "scopes", k.Scopes, "uses", uint64(max(k.MaxUses, 0)), "ttl", lifetime(tx.Now, k.ExpiresAt)))
	})
}

func orObject(v json.RawMessage) string {
	if len(v) == 0 {
		return "{}"
	}
	return string(v)
}

func keyObject(id string) string { return "api_key/" + id }

// List returns the keys of a kind ("": all) by time of creation.
func (ak APIKeys) List(ctx context.Context, c Consistency, kind string) (list []APIKey, err error) {
	err = ak.s.Read(ctx, c, func(v *View) error {
		list, err = collect(v, scanAPIKey, selectAPIKeys+" WHERE ?1 = '' OR kind = ?1 ORDER BY created_at, id", kind)
		return err
	})
	return list, err
}

// ByID returns a key, valid or not, or nil.
func (ak APIKeys) ByID(ctx context.Context, c Consistency, id string) (k *APIKey, err error) {
	load := func(v *View) (err error) {
		k, err = v.apiKey(id)
		return err
	}
	if c == Stale {
		err = ak.s.Read(ctx, Stale, load)
	} else {
		err = ak.s.Read(ctx, AsLeader, load)
	}
	return k, err
}

func (v *View) apiKey(id string) (*APIKey, error) {
	list, err := collect(v, scanAPIKey, selectAPIKeys+" WHERE id = ?", id)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return &list[0], nil
}

// Revoked is the result of a revocation of keys.
type Revoked struct {
	Now         []string // ids
	Before      []string // ids of keys that were revoked before
	Enrollments int      // enrollments made with them, revoked now
}

// Revoke revokes the keys that match and, with enrollments, the enrollments made with them.
func (ak APIKeys) Revoke(ctx context.Context, actor Actor, match func(*APIKey) bool,
	enrollments bool) (Revoked, error) {
	return makeOnce(ctx, ak.s, actor, func(tx *Tx) (out Revoked, err error) {
		list, err := collect(&tx.View, scanAPIKey, selectAPIKeys+" ORDER BY created_at, id")
		if err != nil {
			return out, err
		}
		for i := range list {
			k := &list[i]
			switch {
			case !match(k):
				continue
			case k.RevokedAt != nil:
				out.Before = append(out.Before, k.ID)
			default:
				out.Now = append(out.Now, k.ID)
				if err := tx.exec("UPDATE api_keys SET revoked_at = ?, modified_rev = ? WHERE id = ?", tx.Now, tx.Rev,
					k.ID); err != nil {
					return out, err
				}
				if err := tx.audit(k.Kind+".revoke", keyObject(k.ID), k.Name); err != nil {
					return out, err
				}
			}
			if !enrollments {
				continue
			}
			made, err := collect(&tx.View, scanEnrollment,
				selectEnrollments+" WHERE key_id = ? AND revoked_at IS NULL ORDER BY id", k.ID)
			if err != nil {
				return out, err
			}
			for i := range made {
				if err := tx.revokeEnrollment(&made[i], ", with "+keyObject(k.ID)); err != nil {
					return out, err
				}
			}
			out.Enrollments += len(made)
		}
		return out, nil
	})
}

// NamePattern reports whether a name matches a pattern in which * stands for any text.
func NamePattern(pattern, name string) bool {
	head, rest, star := strings.Cut(pattern, "*")
	if !star {
		return name == pattern
	}
	name, ok := strings.CutPrefix(name, head)
	for ok {
		part, more, again := strings.Cut(rest, "*")
		if !again {
			return strings.HasSuffix(name, part)
		}
		_, name, ok = strings.Cut(name, part)
		rest = more
	}
	return false
}
