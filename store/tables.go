package store

import (
	"context"
	"strings"
)

// What a restore does with each table. Nothing else in the package takes the names of tables from a list: the statements
// below are made of the schema, because a copy that forgets a column is worse than a statement that is not a literal.
// TestTables checks that every table is in one of the two lists, and every statement that can be made.
var (
	// restoredTables hold what people have put into the cluster.
	restoredTables = []string{"settings", "join_tokens", "join_token_uses", "api_tokens", "api_keys", "secrets", "sealed_secrets", "idempotency"}
	// keptTables hold what the running cluster is: who it is, who belongs to it, its keys, and what has happened. Peerings
	// are among them: their state is one with the other cluster's, which is not restored.
	keptTables = []string{"cluster", "sequences", "members", "leases", "operations", "removed_members", "overlay_allocations",
		"authorities", "ca_rotations", "certificates", "enrollments", "dek_generations", "dek_wraps", "cluster_keys", "unhealthy_members",
		"peerings", "peering_secrets", "peering_tombstones", "peer_members", "audit"}
)

// keptRows excepts rows of a restored table that belong to the running cluster.
func keptRows(table, key string) bool {
	switch table {
	case "sealed_secrets":
		return strings.HasPrefix(key, "key/")
	case "settings":
		return strings.HasPrefix(key, "overlay_") || key == settingRecovery
	}
	return false
}

// delta is how many rows a restore has touched.
type delta struct{ Added, Changed, Removed int }

// become makes a table of the transaction hold the rows that it has in another database, and touches no row that is the
// same already.
func (t *Tx) become(ctx context.Context, name string, want *View) (d delta, err error) {
	tb, err := t.v.Table(name)
	if err != nil {
		return d, err
	}
	have := map[string][32]byte{}
	keys := map[string][]any{}
	if err := t.v.Each(&tb, func(row []any) error {
		key, text := tb.KeyOf(row)
		if !keptRows(name, text) {
			have[text], keys[text] = tb.Digest(row), key
		}
		return nil
	}); err != nil {
		return d, err
	}
	var added, changed [][]any
	if err := want.v.Each(&tb, func(row []any) error {
		if ctx.Err() != nil { // other writes wait meanwhile
			return errRestoreTime
		}
		_, text := tb.KeyOf(row)
		if keptRows(name, text) {
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
