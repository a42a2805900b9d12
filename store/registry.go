package store

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"slices"
	"strings"

	"muster/certs"
	"muster/store/engine"
)

// fate is what a restore does with a table.
type fate string

const (
	// restored tables have the contents that users put into the cluster: a restore brings them back.
	restored fate = "restored"
	// emptied tables have short-lived contents: a restore deletes all rows.
	emptied fate = "emptied"
	// kept tables describe the running cluster: identity, members, keys, audit. Peerings are among them, because their
	// state must match the other cluster's, which is not restored.
	kept fate = "kept"
)

// registered is a row of the registry.
type registered struct {
	name   string
	fate   fate
	sealed *sealed
	// own reports, by key, which rows of a restored table belong to the running cluster and are kept.
	own func(key string) bool
	// grants says how rows of a restored table that let somebody in stop doing so. It is nil where no row does.
	grants *grants
}

// grants are the ends of a credential. A restore undoes none of them, and a row that is gone here stays gone.
type grants struct {
	marks map[string]string // column: SQL expression of what it becomes from ?1, its value in the running cluster
	of    string            // the table of the credentials whose uses these rows are; they only become more
}

var (
	endsByDeletion = &grants{}
	endsByMarks    = &grants{marks: map[string]string{"uses": "max(uses, ?1)", "revoked_at": "coalesce(?1, revoked_at)"}}
)

// sealed is a column with values sealed under the data-encryption key; dek_generation has their generation.
type sealed struct {
	column string
	name   string // SQL expression of the name that the seal is bound to
	where  string // SQL condition of the rows with a value; empty: all
}

// registry lists all tables. Restores, re-encryption with its progress, and clean-up are derived from it. TestRegistry
// fails for a table or a sealed column of the schema that is not here.
var registry = []registered{
	{name: "settings", fate: restored, own: keptSetting},
	{name: "join_tokens", fate: restored, grants: endsByMarks},
	{name: "join_token_uses", fate: restored, grants: &grants{of: "join_tokens"}},
	{name: "api_tokens", fate: restored, grants: endsByDeletion},
	{name: "api_keys", fate: restored, grants: endsByMarks},
	{name: "secrets", fate: restored, sealed: &sealed{column: "sealed", name: "'secret/' || name || '/' || version"}},
	{name: "workloads", fate: restored, grants: endsByDeletion},
	{name: "sealed_secrets", fate: restored, sealed: &sealed{column: "sealed", name: "name"},
		own: func(key string) bool { return strings.HasPrefix(key, "key/") }},
	{name: "authorities", fate: kept, sealed: &sealed{
		column: "sealed_key",
		name:   "'authority/' || kind || '/' || generation",
		where:  "state <> 'retired'",
	}},
	{name: "idempotency", fate: emptied,
		sealed: &sealed{column: "sealed", name: "'idempotency/' || accessor || '/' || key"}},
	{name: "peering_secrets", fate: kept, sealed: &sealed{column: "sealed", name: "'peering/' || peering_id"}},
	{name: "peering_tombstones", fate: kept, sealed: &sealed{column: "sealed", name: "'peering/' || id"}},
	{name: "jwt_authorities", fate: kept},
	{name: "cluster", fate: kept},
	{name: "sequences", fate: kept},
	{name: "members", fate: kept},
	{name: "leases", fate: kept},
	{name: "operations", fate: kept},
	{name: "removed_members", fate: kept},
	{name: "overlay_allocations", fate: kept},
	{name: "ca_rotations", fate: kept},
	{name: "certificates", fate: kept},
	{name: "enrollments", fate: kept},
	{name: "dek_generations", fate: kept},
	{name: "dek_wraps", fate: kept},
	{name: "cluster_keys", fate: kept},
	{name: "unhealthy_members", fate: kept},
	{name: "peerings", fate: kept},
	{name: "peer_members", fate: kept},
	{name: "backups", fate: kept},
	{name: "peer_bundles", fate: kept},
	{name: "audit", fate: kept},
}

// ownSetting reports whether a setting belongs to the running cluster: one fixed at its founding, or left by a
// recovery.
func ownSetting(name string) bool {
	return strings.HasPrefix(name, "overlay_") || name == settingRecovery || name == settingRecoveredSince ||
		name == settingLeftOut
}

// keptSetting reports whether a restore leaves a setting alone: one of the running cluster's own, or one that says who
// and what is let in, so that a narrower rule does not become the wider one of the archive.
func keptSetting(name string) bool {
	o, err := findSetting(name)
	return ownSetting(name) || err == nil && o.admits
}

// registeredTable returns a table's row of the registry, or nil.
func registeredTable(name string) *registered {
	i := slices.IndexFunc(registry, func(r registered) bool { return r.name == name })
	if i < 0 {
		return nil
	}
	return &registry[i]
}

// owns reports whether a row belongs to the running cluster.
func (r *registered) owns(key string) bool { return r.own != nil && r.own(key) }

// find returns the query for up to ?2 values of a generation below ?1: the name of the seal, the value, its generation,
// and the row's key.
func (r *registered) find(t *engine.Table) string {
	keys := strings.Join(t.KeyNames(), ", ")
	return strings.Join([]string{"SELECT", r.sealed.name + ", " + r.sealed.column + ", dek_generation, " + keys, "FROM",
		r.name,
		"WHERE dek_generation < ?1" + r.sealed.and(), "ORDER BY", keys, "LIMIT ?2"}, " ")
}

// update returns the statement that replaces a value. Its arguments are the new value, its generation, the row's key
// and the old generation.
func (r *registered) update(t *engine.Table) string {
	return strings.Join([]string{"UPDATE", r.name, "SET", r.sealed.column + " = ?, dek_generation = ?",
		"WHERE", strings.Join(t.KeyNames(), " = ? AND ") + " = ? AND dek_generation = ?"}, " ")
}

func (s *sealed) and() string {
	if s.where == "" {
		return ""
	}
	return " AND " + s.where
}

// countSealed is the query that counts the values of a generation below ?1.
var countSealed = func() string {
	var counts []string
	for _, r := range registry {
		if r.sealed != nil {
			counts = append(counts,
				strings.Join([]string{"(SELECT", "count(*)", "FROM", r.name, "WHERE dek_generation < ?1" + r.sealed.and() + ")"},
					" "))
		}
	}
	return strings.Join([]string{"SELECT", strings.Join(counts, " + ")}, " ")
}()

// cleanArchive deletes from an archive's state what a restore does not bring back and perhaps could not open: sealed
// values of kept tables and of own rows, and emptied tables.
func cleanArchive(t *Tx) error {
	for i := range registry {
		r := &registry[i]
		all := r.fate == emptied || r.fate == kept && r.sealed != nil
		if !all && (r.sealed == nil || r.own == nil) {
			continue
		}
		if err := t.removeRows(r.name, func(key string) bool { return all || r.owns(key) }); err != nil {
			return err
		}
	}
	return nil
}

// removeRows deletes the rows of a table that match, by their keys.
func (t *Tx) removeRows(name string, match func(key string) bool) error {
	tb, err := t.v.Table(name)
	if err != nil {
		return err
	}
	var gone [][]any
	if err := t.v.Each(&tb, func(row []any) error {
		if key, text := tb.KeyOf(row); match(text) {
			gone = append(gone, key)
		}
		return nil
	}); err != nil {
		return err
	}
	for _, key := range gone {
		if err := t.exec(tb.Remove(), key...); err != nil {
			return err
		}
	}
	return nil
}

// moveSealed opens up to limit values of a generation below below with one keyring and seals them under the active
// generation of another.
func moveSealed(tx *Tx, from, to *keyring, below, active uint64, limit int) (moved int, err error) {
	for i := range registry {
		r := &registry[i]
		if r.sealed == nil || moved >= limit {
			continue
		}
		n, err := r.move(tx, from, to, below, active, limit-moved)
		if err != nil {
			return moved, err
		}
		moved += n
	}
	return moved, nil
}

// sealedValue is a sealed value to move.
type sealedValue struct {
	name       string
	sealed     []byte
	generation uint64
	key        []any
}

func scanSealed(keys int) func(*sql.Rows) (sealedValue, error) {
	return func(rows *sql.Rows) (v sealedValue, err error) {
		v.key = make([]any, keys)
		into := []any{&v.name, &v.sealed, &v.generation}
		for i := range v.key {
			into = append(into, &v.key[i])
		}
		return v, rows.Scan(into...)
	}
}

func (r *registered) move(tx *Tx, from, to *keyring, below, active uint64, limit int) (moved int, err error) {
	t, err := tx.v.Table(r.name)
	if err != nil {
		return 0, err
	}
	list, err := collect(&tx.View, scanSealed(len(t.Key)), r.find(&t), int64(below), int64(limit))
	if err != nil {
		return 0, err
	}
	for _, v := range list {
		plain, err := from.open(v.name, v.generation, v.sealed)
		if err != nil {
			return moved, fmt.Errorf("re-encrypt %s: %w", v.name, err)
		}
		value, err := to.sealUnder(active, v.name, plain)
		clear(plain)
		if err != nil {
			return moved, fmt.Errorf("re-encrypt %s under generation %d: %w", v.name, active, err)
		}
		args := slices.Concat([]any{value, active}, v.key, []any{v.generation})
		if err := tx.exec(r.update(&t), args...); err != nil {
			return moved, err
		}
		moved++
	}
	return moved, nil
}

// reseal re-encrypts every sealed value of a scratch database, from the archive's keys to another key.
func reseal(t *Tx, from map[uint64]certs.DEK, to certs.DEK, generation uint64) error {
	old := &keyring{deks: from}
	ring := &keyring{deks: map[uint64]certs.DEK{generation: to}, active: generation}
	below := uint64(math.MaxInt64)
	if from[generation] == to { // already under this key
		below = generation
	}
	_, err := moveSealed(t, old, ring, below, generation, math.MaxInt32)
	return err
}

// delta is the number of rows that a restore has changed.
type delta struct{ Added, Changed, Removed int }

// become makes a table equal to the one of another database. It writes only rows that differ.
func (t *Tx) become(ctx context.Context, r *registered, want *View) (d delta, err error) {
	tb, err := t.v.Table(r.name)
	if err != nil {
		return d, err
	}
	have := map[string][32]byte{}
	keys := map[string][]any{}
	if err := t.v.Each(&tb, func(row []any) error {
		key, text := tb.KeyOf(row)
		if !r.owns(text) {
			have[text], keys[text] = tb.Digest(row), key
		}
		return nil
	}); err != nil {
		return d, err
	}
	var added, changed [][]any
	if err := want.v.Each(&tb, func(row []any) error {
		if ctx.Err() != nil { // other writes are waiting
			return errRestoreTime
		}
		_, text := tb.KeyOf(row)
		if r.owns(text) {
			return nil
		}
		sum, there := have[text]
		delete(have, text)
		if there && sum == tb.Digest(row) {
			return nil
		}
		if tb.Changed >= 0 {
			row[tb.Changed] = int64(t.Rev)
		}
		if there {
			changed = append(changed, row)
		} else {
			added = append(added, row)
		}
		return nil
	}); err != nil {
		return d, err
	}
	for text := range have {
		if err := t.exec(tb.Remove(), keys[text]...); err != nil {
			return d, err
		}
	}
	for _, row := range changed {
		if err := t.exec(tb.Upsert(), row...); err != nil {
			return d, err
		}
	}
	for _, row := range added {
		if err := t.exec(tb.Insert(), row...); err != nil {
			return d, err
		}
	}
	return delta{len(added), len(changed), len(have)}, nil
}
