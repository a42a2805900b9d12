package store

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"time"

	"muster/certs"
)

// Purposes of the cluster's keys.
const (
	KeyJoinHMAC    = "join-hmac"    // signs muster's own join tokens
	KeyJoinSigning = "join-signing" // Ed25519, signs join tokens in ZLayer's format
	KeyJoinSecret  = "join-secret"  // internal bearers are derived from it
	KeyJWT         = "jwt"          // Ed25519, signs node identities
)

// States of a key.
const (
	KeyActive  = "active"
	KeyGrace   = "grace"
	KeyRetired = "retired"
)

// Key is one epoch of a cluster key.
type Key struct {
	Purpose    string
	Epoch      uint64
	State      string
	KID        string
	Public     []byte // of Ed25519 keys
	Secret     []byte // HMAC key, Ed25519 seed or the text of the join secret
	CreatedAt  time.Time
	GraceUntil *time.Time
}

// Verifies reports whether signatures of the key are still accepted.
func (k *Key) Verifies(now time.Time) bool {
	return k.State == KeyActive || k.State == KeyGrace && k.GraceUntil != nil && now.Before(*k.GraceUntil)
}

// NewKey is the key of the next epoch of a purpose.
type NewKey struct {
	Purpose string
	KID     string
	Public  []byte
	Secret  []byte
}

// KeySecret returns the name that the secret part of a key is sealed with.
func KeySecret(purpose string, epoch uint64) string { return fmt.Sprintf("key/%s/%d", purpose, epoch) }

const insertKey = "INSERT INTO cluster_keys (purpose, epoch, state, kid, public, created_at, created_rev, " +
	"modified_rev) VALUES (?, ?, 'active', ?, ?, ?, ?, ?)"

// List returns the kept epochs of a purpose, the newest first, with their secrets. Callers must not modify it.
func (ks Keys) List(ctx context.Context, c Consistency, purpose string) ([]Key, error) {
	return recall(ctx, ks.s, c, "keys/"+purpose, []string{"cluster_keys", "sealed_secrets"}, func(v *View) ([]Key, error) {
		list, err := v.keys(purpose)
		if err != nil {
			return nil, err
		}
		for i := range list {
			k := &list[i]
			var sealed []byte
			var generation uint64
			name := KeySecret(k.Purpose, k.Epoch)
			if _, err := v.get("SELECT sealed, dek_generation FROM sealed_secrets WHERE name = ?", []any{name}, &sealed,
				&generation); err != nil {
				return nil, err
			}
			if k.Secret, err = ks.s.keys.open(name, generation, sealed); err != nil {
				return nil, fmt.Errorf("open %s: %w", name, err)
			}
		}
		return list, nil
	})
}

// Active returns the newest epoch of a purpose.
func (ks Keys) Active(ctx context.Context, c Consistency, purpose string) (*Key, error) {
	list, err := ks.List(ctx, c, purpose)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if list[i].State == KeyActive {
			return &list[i], nil
		}
	}
	return nil, fmt.Errorf("store: there is no active key for %s", purpose)
}

func (v *View) keys(purpose string) ([]Key, error) {
	return collect(v, func(rows *sql.Rows) (k Key, err error) {
		var public, created string
		var grace sql.NullString
		if err := rows.Scan(&k.Purpose, &k.Epoch, &k.State, &k.KID, &public, &created, &grace); err != nil {
			return k, err
		}
		k.CreatedAt, k.GraceUntil = parseTime(created), nullTime(grace)
		k.Public, err = base64.StdEncoding.DecodeString(public)
		return k, err
	}, "SELECT purpose, epoch, state, kid, public, created_at, grace_until FROM cluster_keys "+
		"WHERE purpose = ? ORDER BY epoch DESC", purpose)
}

// sealer seals a value under a generation that exists in the transaction.
type sealer func(name string, plain []byte) (sealed []byte, generation uint64, err error)

// rotateKeys begins a new epoch of each key. The previous one verifies until graceUntil, or with nil is retired at
// once.
func (t *Tx) rotateKeys(list []NewKey, graceUntil *time.Time, seal sealer) error {
	state := KeyRetired
	if graceUntil != nil {
		state = KeyGrace
	}
	for _, k := range list {
		var epoch uint64
		if _, err := t.get("SELECT coalesce(max(epoch), 0) FROM cluster_keys WHERE purpose = ?", []any{k.Purpose},
			&epoch); err != nil {
			return err
		}
		if err := t.exec("UPDATE cluster_keys SET state = ?, grace_until = ?, modified_rev = ? "+
			"WHERE purpose = ? AND (state = 'active' OR ? = 'retired' AND state = 'grace')",
			state, graceUntil, t.Rev, k.Purpose, state); err != nil {
			return err
		}
		epoch++
		sealed, generation, err := seal(KeySecret(k.Purpose, epoch), k.Secret)
		if err != nil {
			return err
		}
		if err := t.exec(insertSecret, KeySecret(k.Purpose, epoch), sealed, generation, t.Now, t.Rev); err != nil {
			return err
		}
		if err := t.exec(insertKey, k.Purpose, epoch, k.KID, base64.StdEncoding.EncodeToString(k.Public), t.Now, t.Rev,
			t.Rev); err != nil {
			return err
		}
	}
	return nil
}

// KeyRotated is the result of a rotation of keys.
type KeyRotated struct {
	KIDs       map[string]string // by purpose
	GraceUntil time.Time

	TokensEnded int // join tokens that were valid and now end with the grace period
}

// validTokens counts the valid join tokens.
func (v *View) validTokens() (n int, err error) {
	now := rfc3339(v.Now)
	_, err = v.get(countValidTokens, []any{now, now}, &n)
	return n, err
}

// Rotate begins a new epoch of each key; signatures of the old ones are accepted until graceUntil.
func (ks Keys) Rotate(ctx context.Context, actor Actor, list []NewKey, graceUntil time.Time) (KeyRotated, error) {
	return makeOnce(ctx, ks.s, actor, func(tx *Tx) (KeyRotated, error) {
		out := KeyRotated{KIDs: map[string]string{}, GraceUntil: graceUntil}
		var err error
		if out.TokensEnded, err = tx.validTokens(); err != nil {
			return out, err
		}
		if err := tx.rotateKeys(list, &graceUntil, ks.s.keys.seal); err != nil {
			return out, err
		}
		for _, k := range list {
			out.KIDs[k.Purpose] = k.KID
			if err := tx.audit("key.rotate", "key/"+k.Purpose, fmt.Sprintf("kid %s; ends %d join tokens at %s", k.KID,
				out.TokensEnded, rfc3339(graceUntil))); err != nil {
				return out, err
			}
		}
		return out, nil
	})
}

// NewKeys generates a key for each purpose.
func NewKeys(purposes ...string) (list []NewKey, err error) {
	for _, p := range purposes {
		k, err := newKey(p)
		if err != nil {
			return nil, err
		}
		list = append(list, k)
	}
	return list, nil
}

// newKey generates a key for a purpose: an Ed25519 seed, 32 random bytes, or their hexadecimal text.
func newKey(purpose string) (k NewKey, err error) {
	k = NewKey{Purpose: purpose, Secret: make([]byte, 32)}
	if _, err := rand.Read(k.Secret); err != nil {
		return k, err
	}
	switch purpose {
	case KeyJoinSigning, KeyJWT:
		k.Public = ed25519.NewKeyFromSeed(k.Secret).Public().(ed25519.PublicKey)
		k.KID = certs.KeyID(ed25519.PublicKey(k.Public))
	case KeyJoinSecret:
		k.Secret = []byte(hex.EncodeToString(k.Secret))
		k.KID = certs.HashSecret(string(k.Secret))[:8]
	case KeyJoinHMAC:
		k.KID = certs.HashSecret(string(k.Secret))[:8]
	default:
		return k, fmt.Errorf("there is no key for %q", purpose)
	}
	return k, nil
}

// StoredSecret is a value that an operator keeps in the cluster. Value is set only where it was asked for.
type StoredSecret struct {
	Name       string
	Version    uint64
	Value      []byte
	Generation uint64 // of the data-encryption key that it is sealed under
	CreatedAt  time.Time
	UpdatedAt  time.Time
}

func secretSeal(name string, version uint64) string {
	return fmt.Sprintf("secret/%s/%d", name, version)
}

const selectSecrets = "SELECT name, version, sealed, dek_generation, created_at, updated_at FROM secrets"

type sealedSecret struct {
	StoredSecret
	sealed []byte
}

func scanSecret(rows *sql.Rows) (x sealedSecret, err error) {
	var created, updated string
	err = rows.Scan(&x.Name, &x.Version, &x.sealed, &x.Generation, &created, &updated)
	x.CreatedAt, x.UpdatedAt = parseTime(created), parseTime(updated)
	return x, err
}

// Put stores a value as the next version of a name.
func (sx Secrets) Put(ctx context.Context, actor Actor, name string, value []byte) (StoredSecret, error) {
	return makeOnce(ctx, sx.s, actor, func(tx *Tx) (StoredSecret, error) {
		list, err := collect(&tx.View, scanSecret, selectSecrets+" WHERE name = ?", name)
		if err != nil {
			return StoredSecret{}, err
		}
		x, had := StoredSecret{Name: name, Version: 1, CreatedAt: tx.Now, UpdatedAt: tx.Now}, 0
		if len(list) > 0 {
			x.Version, x.CreatedAt, had = list[0].Version+1, list[0].CreatedAt, len(list[0].sealed)
		} else if err := tx.boundSecrets(); err != nil {
			return x, err
		}
		sealed, generation, err := sx.s.keys.seal(secretSeal(name, x.Version), value)
		if err != nil {
			return x, err
		}
		x.Generation = generation
		if err := tx.boundBytes(&boundOfSecrets, "", had, len(sealed)); err != nil {
			return x, err
		}
		if err := tx.exec(`INSERT INTO secrets (name, version, sealed, dek_generation, created_at, updated_at, created_rev,
			modified_rev)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE
			SET version = excluded.version, sealed = excluded.sealed,
			dek_generation = excluded.dek_generation, updated_at = excluded.updated_at, modified_rev = excluded.modified_rev`,
			name, x.Version, sealed, generation, x.CreatedAt, x.UpdatedAt, tx.Rev, tx.Rev); err != nil {
			return x, err
		}
		return x, tx.audit("secret.put", "secret/"+name, fmt.Sprintf("version %d", x.Version))
	})
}

// Get reads a value, or nil if none has that name.
func (sx Secrets) Get(ctx context.Context, c Consistency, name string) (*StoredSecret, error) {
	var list []sealedSecret
	err := sx.s.Read(ctx, c, func(v *View) (err error) {
		list, err = collect(v, scanSecret, selectSecrets+" WHERE name = ?", name)
		return err
	})
	if err != nil || len(list) == 0 {
		return nil, err
	}
	x := &list[0].StoredSecret
	if x.Value, err = sx.s.keys.open(secretSeal(name, x.Version), x.Generation, list[0].sealed); err != nil {
		return nil, fmt.Errorf("open secret: %w", err)
	}
	return x, nil
}

// List lists the names, without values.
func (sx Secrets) List(ctx context.Context, c Consistency) (list []StoredSecret, err error) {
	err = sx.s.Read(ctx, c, func(v *View) error {
		rows, err := collect(v, scanSecret, selectSecrets+" ORDER BY name")
		for i := range rows {
			list = append(list, rows[i].StoredSecret)
		}
		return err
	})
	return list, err
}

// Delete takes a value away for good.
func (sx Secrets) Delete(ctx context.Context, actor Actor, name string) error {
	return doOnce(ctx, sx.s, actor, func(tx *Tx) error {
		var version uint64
		there, err := tx.get("SELECT version FROM secrets WHERE name = ?", []any{name}, &version)
		if err != nil {
			return err
		}
		if !there {
			return refuse(NotFound, "secret not found")
		}
		if err := tx.exec("DELETE FROM secrets WHERE name = ?", name); err != nil {
			return err
		}
		return tx.audit("secret.delete", "secret/"+name, fmt.Sprintf("version %d", version))
	})
}
