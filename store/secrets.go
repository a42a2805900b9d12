package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// StoredSecret is a secret that an operator stores in the cluster. Only Get sets Value.
type StoredSecret struct {
	Name       string
	Version    uint64
	Value      []byte
	Generation uint64 // of the data-encryption key that seals it
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
		x := StoredSecret{Name: name, Version: 1, CreatedAt: tx.Now, UpdatedAt: tx.Now}
		if len(list) > 0 {
			x.Version, x.CreatedAt = list[0].Version+1, list[0].CreatedAt
		} else if err := tx.boundSecrets(); err != nil {
			return x, err
		}
		sealed, generation, err := sx.s.keys.seal(secretSeal(name, x.Version), value)
		if err != nil {
			return x, err
		}
		x.Generation = generation
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

// Get returns a secret with its value, or nil.
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

// List lists the secrets, without values.
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

// Delete deletes a secret.
func (sx Secrets) Delete(ctx context.Context, actor Actor, name string) error {
	return doOnce(ctx, sx.s, actor, func(tx *Tx) error {
		n, err := tx.execCount("DELETE FROM secrets WHERE name = ?", name)
		if err != nil {
			return err
		}
		if n == 0 {
			return refuse(NotFound, "secret not found")
		}
		return tx.audit("secret.delete", "secret/"+name, "")
	})
}
