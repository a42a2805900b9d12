package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"filippo.io/age"

	"muster/certs"
	"muster/store/engine"
	"muster/store/foreign"
)

// scratch is the state of an archive as a local, writable database.
type scratch struct {
	path string
	db   *sql.DB
	s    *engine.Local
}

// openScratch creates a database with a schema version in the archive's directory and copies the state's rows into it.
func openScratch(ctx context.Context, a *Archive, version int64) (*scratch, error) {
	x := &scratch{path: a.State + ".own"}
	var tables []string
	for i := range registry {
		tables = append(tables, registry[i].name)
	}
	if err := os.Remove(x.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err := foreign.Copy(ctx, a.State, x.path, a.Meta.Schema, tables); err != nil {
		return nil, fmt.Errorf("copy the archive's state: %w", err)
	}
	var err error
	if x.db, err = sql.Open("sqlite3",
		engine.FileURL(x.path, "_journal_mode=MEMORY&_synchronous=OFF&_foreign_keys=0")); err != nil {
		return nil, err
	}
	if err := foreign.Migrate(ctx, x.db, version); err != nil {
		x.db.Close()
		return nil, fmt.Errorf("bring the archive's schema up to date: %w", err)
	}
	if x.s, err = engine.NewLocal(x.db, LatestSchema()); err != nil {
		x.db.Close()
		return nil, err
	}
	return x, nil
}

// view returns a view of the database.
func (x *scratch) view() *View { return view(x.s.View(time.Time{})) }

func (x *scratch) close() {
	x.s.Close()
	x.db.Close()
}

// shape describes the schema, to compare it with muster's own.
func (v *View) shape() ([]string, error) {
	return collect(v, func(rows *sql.Rows) (line string, err error) {
		err = rows.Scan(&line)
		return line, err
	}, "SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_master "+
		"WHERE name NOT LIKE 'sqlite_%' ORDER BY type, name")
}

var errRestoreTime = refuse(Invalid, "restoring the archive takes too long")

// Restored lists the changes of a restore by table, without unchanged tables.
type Restored struct {
	Revision uint64 // of the archive
	Tables   map[string]delta
}

// String lists the changed tables.
func (r Restored) String() string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(r.Tables)) {
		d := r.Tables[name]
		list = append(list, fmt.Sprintf("%s +%d ~%d -%d", name, d.Added, d.Changed, d.Removed))
	}
	if len(list) == 0 {
		return "nothing had changed"
	}
	return strings.Join(list, ", ")
}

// Rehearse restores an archive into a scratch database in its directory, migrates that to the newest schema, and opens
// every sealed value with the keys that the identities open. It returns why that fails and changes nothing else. It
// needs disk space for another copy of the state.
func (a *Archive) Rehearse(ctx context.Context, identities ...*age.X25519Identity) error {
	deks, err := a.Unlock(ctx, identities...)
	if err != nil {
		return err
	}
	x, err := openScratch(ctx, a, LatestSchema())
	if err != nil {
		return fmt.Errorf("the state cannot be restored: %w", err)
	}
	defer x.close()
	newest := uint64(0)
	for generation := range deks {
		newest = max(newest, generation)
	}
	if err := reseal(localTx(x.view()), deks, certs.NewDEK(), newest+1); err != nil {
		return fmt.Errorf("the sealed values of the state cannot be opened: %w", err)
	}
	return nil
}

// Rehearse is Archive.Rehearse with this member's identity.
func (ar Archives) Rehearse(ctx context.Context, a *Archive) error {
	return a.Rehearse(ctx, ar.s.cfg.Identity)
}

// Restore restores the users' contents of the cluster from an archive of the same cluster, in one transaction. It keeps
// what describes the running cluster: identity, members, Raft, addresses, authorities, keys, audit. Sealed values are
// opened with the archive's keys and sealed under the active one. Join tokens that were used or revoked since stay so,
// and the caller's API token is kept. It blocks until that is committed or ctx ends.
func (ar Archives) Restore(ctx context.Context, actor Actor, a *Archive) (Restored, error) {
	out := Restored{Revision: a.Meta.Index}
	deks, err := a.Unlock(ctx, ar.s.cfg.Identity)
	if err != nil {
		return out, err
	}
	ar.s.keys.mu.RLock()
	for generation, dek := range ar.s.keys.deks { // a member that joined later may hold the archive's keys as well
		if _, known := deks[generation]; !known {
			deks[generation] = dek
		}
	}
	ar.s.keys.mu.RUnlock()
	schema := ar.s.AppliedSchema()
	switch {
	case schema == 0:
		return out, ErrNotLeader
	case a.Meta.Schema > schema:
		return out, refuse(Conflict,
			"the archive has schema %d and the cluster has %d: restore it when every member knows the newer one", a.Meta.Schema,
			schema)
	}
	x, err := openScratch(ctx, a, schema)
	switch {
	case errors.Is(err, foreign.ErrTime) || ctx.Err() != nil:
		return out, errRestoreTime
	case err != nil:
		ar.s.log.Warn("the archive's state could not be copied", "err", err)
		return out, refuse(Invalid, "the archive's state cannot be brought to schema %d: %s", schema, foreign.Cause(err))
	}
	defer x.close()
	v := view(x.s.View(ar.s.cfg.Now()))
	dek, generation, err := ar.s.Keys.ActiveDEK()
	if err != nil {
		return out, err
	}
	prepare := localTx(v)
	if err := cleanArchive(prepare); err != nil {
		return out, err
	}
	if err := reseal(prepare, deks, dek, generation); err != nil {
		ar.s.log.Warn("the archive's values could not be opened", "err", err)
		return out, refuse(Conflict,
			"node %d cannot open the values of this archive: make one of the members that it names the leader and try again, "+
				"or give an identity that it was saved for", ar.s.cfg.NodeID)
	}
	err = ar.s.Write(ctx, actor, func(tx *Tx) error {
		out.Tables = map[string]delta{}
		return ar.restore(ctx, tx, v, a, actor, generation, &out)
	})
	return out, err
}

func (ar Archives) restore(ctx context.Context, tx *Tx, v *View, a *Archive, actor Actor, generation uint64,
	out *Restored) error {
	c, _, err := tx.Cluster()
	if err != nil {
		return err
	}
	if c.ID != a.Meta.ClusterID {
		return refuse(Conflict,
			"the archive is of cluster %s and this is cluster %s; found a cluster from it instead, with an empty data "+
				"directory", a.Meta.ClusterID, c.ID)
	}
	here, err := tx.shape()
	if err != nil {
		return err
	}
	if there, err := v.shape(); err != nil || !slices.Equal(here, there) {
		return errors.Join(err, refuse(Invalid, "the archive's state does not have the schema of this cluster"))
	}
	var active uint64
	if _, err := tx.get("SELECT generation FROM dek_generations WHERE state = 'active'", nil, &active); err != nil {
		return err
	}
	if active != generation {
		return ErrKeyMoved
	}
	if err := carry(tx, v, actor); err != nil {
		return err
	}
	for i := range registry {
		r := &registry[i]
		if r.fate == kept {
			continue
		}
		d, err := tx.become(ctx, r, v)
		if err != nil {
			return err
		}
		if d != (delta{}) {
			out.Tables[r.name] = d
		}
	}
	if err := raiseSequences(tx, v); err != nil {
		return err
	}
	return tx.audit("cluster.restore", "cluster/"+c.ID, fmt.Sprintf("revision %d of %s: %s", a.Meta.Index,
		rfc3339(a.Meta.CreatedAt), out))
}

// carry copies into the archive's state what a restore must not undo: how credentials of the running cluster have ended
// since, and the caller's credential.
func carry(tx *Tx, v *View, actor Actor) error {
	local := localTx(v)
	for i := range registry {
		r := &registry[i]
		if r.grants == nil {
			continue
		}
		if err := r.carryEnds(tx, local); err != nil {
			return fmt.Errorf("carry over %s: %w", r.name, err)
		}
	}
	own, err := tx.v.Table("api_tokens")
	if err != nil {
		return err
	}
	return tx.v.Each(&own, func(row []any) error {
		if row[own.Key[0]] != actor.Accessor {
			return nil
		}
		return local.exec(own.Upsert(), row...)
	})
}

// carryEnds applies the ends of a table's credentials to the archive's state.
func (r *registered) carryEnds(tx, local *Tx) error {
	t, err := tx.v.Table(r.name)
	if err != nil {
		return err
	}
	if r.grants.of != "" {
		return r.carryUses(tx, local, &t)
	}
	kept := map[string]bool{}
	if err := tx.v.Each(&t, func(row []any) error {
		key, text := t.KeyOf(row)
		kept[text] = true
		for column, becomes := range r.grants.marks {
			mark := row[slices.Index(t.Columns, column)]
			if mark == nil || mark == int64(0) {
				continue
			}
			update := strings.Join([]string{"UPDATE", r.name, "SET", column, "=", becomes, "WHERE id = ?2"}, " ")
			if err := local.exec(update, mark, key[0]); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	return local.removeRows(r.name, func(key string) bool { return !kept[key] })
}

// carryUses adds the uses of credentials since to the archive's state, and deletes those of credentials that it lacks.
func (r *registered) carryUses(tx, local *Tx, t *engine.Table) error {
	known := strings.Join([]string{"SELECT", "1", "FROM", r.grants.of, "WHERE id = ?"}, " ")
	if err := tx.v.Each(t, func(row []any) error {
		ok, err := local.get(known, []any{row[t.Key[0]]}, new(int))
		if err != nil || !ok {
			return err
		}
		return local.exec(t.Upsert(), row...)
	}); err != nil {
		return err
	}
	return local.exec(strings.Join([]string{"DELETE", "FROM", r.name, "WHERE", t.KeyNames()[0], "NOT IN (SELECT id FROM",
		r.grants.of + ")"}, " "))
}

// raiseSequences makes sure that numbers allocated in the archive are not reused, also when the archive is ahead of
// this cluster, which may have been founded from an older one.
func raiseSequences(tx *Tx, v *View) error {
	type sequence struct {
		name  string
		value uint64
	}
	list, err := collect(v, func(rows *sql.Rows) (q sequence, err error) {
		err = rows.Scan(&q.name, &q.value)
		return q, err
	}, "SELECT name, value FROM sequences ORDER BY name")
	if err != nil {
		return err
	}
	for _, q := range list {
		var now uint64
		known, err := tx.get("SELECT value FROM sequences WHERE name = ?", []any{q.name}, &now)
		if err != nil {
			return err
		}
		if known && now < q.value {
			if err := tx.setSequence(q.name, q.value); err != nil {
				return err
			}
		}
	}
	return nil
}
