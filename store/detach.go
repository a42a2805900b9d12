package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"

	"filippo.io/age"

	"muster/certs"
	"muster/store/engine"
	"muster/store/foreign"
)

// Detached describes what a new cluster has taken over from a member's replica of another cluster.
type Detached struct {
	From     string `json:"from"`     // id of that cluster
	Revision uint64 `json:"revision"` // of the replica
	Settings int    `json:"settings"`
	Secrets  int    `json:"secrets"`
	Closed   int    `json:"closed"` // secrets that the member could not open, which were not taken over
}

// Detach writes the state of a new cluster into a file: the founding f, and from the replica of another cluster its
// settings and the secrets that its member's identity opens, sealed under the new key dek. It does not take over
// members, tokens, peerings, authorities, keys and the audit. The replica is not changed.
func Detach(ctx context.Context, replica string, own *age.X25519Identity, f *Founding, dek certs.DEK,
	path string) (out Detached, err error) {
	from, err := openFile(replica)
	if err != nil {
		return out, err
	}
	defer from.Close()
	v := viewOf(from)
	c, founded, err := v.Cluster()
	if err != nil || !founded {
		return out, errors.Join(err, errors.New("the mirror has no cluster"))
	}
	out.From, out.Revision = c.ID, c.Revision
	deks, err := (&Archive{State: replica}).Unlock(ctx, own)
	if err != nil {
		return out, err
	}
	x, err := newScratch(ctx, path)
	if err != nil {
		return out, err
	}
	defer x.close()
	t := newTx(x.s.View(f.CreatedAt).Offline(1, checkSizes), Actor{
		Name:      "muster",
		NodeID:    f.Member.NodeID,
		RequestID: newRequestID(),
	})
	if err := t.exec("BEGIN IMMEDIATE"); err != nil {
		return out, err
	}
	if err := f.apply(t); err != nil {
		return out, err
	}
	if err := t.takeSettings(v, &out); err != nil {
		return out, err
	}
	if err := t.takeSecrets(v, &keyring{deks: deks}, dek, &out); err != nil {
		return out, err
	}
	if err := t.audit("cluster.detach", "cluster/"+out.From, fmt.Sprintf("from revision %d: %d settings, %d secrets; %d "+
		"secrets could not be opened", out.Revision, out.Settings, out.Secrets, out.Closed)); err != nil {
		return out, err
	}
	return out, t.exec("COMMIT")
}

// newScratch creates an empty database with the newest schema.
func newScratch(ctx context.Context, path string) (*scratch, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	db, err := sql.Open("sqlite3", engine.FileURL(path, "_journal_mode=MEMORY&_synchronous=FULL&_foreign_keys=0"))
	if err != nil {
		return nil, err
	}
	if err := foreign.Migrate(ctx, db, LatestSchema()); err != nil {
		db.Close()
		return nil, err
	}
	s, err := engine.NewLocal(db, LatestSchema())
	if err != nil {
		db.Close()
		return nil, err
	}
	return &scratch{path: path, db: db, s: s}, nil
}

// takeSettings copies the settings of another cluster, except those fixed at its founding.
func (t *Tx) takeSettings(from *View, out *Detached) error {
	type setting struct{ name, value string }
	list, err := collect(from, func(rows *sql.Rows) (s setting, err error) {
		err = rows.Scan(&s.name, &s.value)
		return s, err
	}, "SELECT name, value FROM settings ORDER BY name")
	if err != nil {
		return err
	}
	for _, s := range list {
		if ownSetting(s.name) || s.name == settingDatacenter {
			continue
		}
		if err := t.exec(insertSetting, s.name, s.value, t.Rev); err != nil {
			return err
		}
		out.Settings++
	}
	return nil
}

// takeSecrets copies the secrets of another cluster that the ring opens, sealed under a new key.
func (t *Tx) takeSecrets(from *View, ring *keyring, dek certs.DEK, out *Detached) error {
	list, err := collect(from, scanSecret, selectSecrets+" ORDER BY name")
	if err != nil {
		return err
	}
	for _, s := range list {
		name := secretSeal(s.Name, s.Version)
		plain, err := ring.open(name, s.Generation, s.sealed)
		if errors.Is(err, errNoKey) {
			out.Closed++
			continue
		}
		if err != nil {
			return fmt.Errorf("open the secret %s: %w", s.Name, err)
		}
		sealed, err := dek.Seal(name, 1, plain)
		clear(plain)
		if err != nil {
			return err
		}
		if err := t.exec(`INSERT INTO secrets (name, version, sealed, dek_generation, created_at, updated_at, created_rev,
			modified_rev) VALUES (?, ?, ?, 1, ?, ?, ?, ?)`, s.Name, s.Version, sealed, s.CreatedAt, s.UpdatedAt, t.Rev,
			t.Rev); err != nil {
			return err
		}
		out.Secrets++
	}
	return nil
}
