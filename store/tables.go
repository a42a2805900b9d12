package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
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

// table is what can be known of a table from the schema.
type table struct {
	name    string
	columns []string
	key     []int // positions of the primary key
	changed int   // position of modified_rev, -1 if there is none
}

var errNoTable = errors.New("store: there is no table")

func (v *View) table(name string) (t table, err error) {
	t = table{name: name, changed: -1}
	type column struct {
		name string
		pk   int
	}
	list, err := collect(v, func(rows *sql.Rows) (c column, err error) {
		err = rows.Scan(&c.name, &c.pk)
		return c, err
	}, "SELECT name, pk FROM pragma_table_info(?) ORDER BY cid", name)
	for i, c := range list {
		t.columns = append(t.columns, c.name)
		if c.pk > 0 {
			t.key = append(t.key, i)
		}
		if c.name == "modified_rev" {
			t.changed = i
		}
	}
	if err == nil && len(t.key) == 0 {
		err = fmt.Errorf("%w %s with a primary key", errNoTable, name)
	}
	return t, err
}

func (t *table) keyNames() (names []string) {
	for _, i := range t.key {
		names = append(names, t.columns[i])
	}
	return names
}

func (t *table) selectAll() string {
	return strings.Join([]string{"SELECT", strings.Join(t.columns, ", "), "FROM", t.name, "ORDER BY", strings.Join(t.keyNames(), ", ")}, " ")
}

// copyFrom copies all rows from an attached database. The order makes SQLite take row by row, with its checks, where it
// would copy whole records.
func (t *table) copyFrom(schema string) string {
	columns := strings.Join(t.columns, ", ")
	return strings.Join([]string{"INSERT", "INTO", "main." + t.name, "(" + columns + ")", "SELECT", columns, "FROM", schema + "." + t.name,
		"ORDER BY", strings.Join(t.keyNames(), ", ")}, " ")
}

func (t *table) insert() string {
	marks := strings.TrimSuffix(strings.Repeat("?, ", len(t.columns)), ", ")
	return strings.Join([]string{"INSERT", "INTO", t.name, "(" + strings.Join(t.columns, ", ") + ")", "VALUES", "(" + marks + ")"}, " ")
}

func (t *table) upsert() string {
	var set []string
	for _, c := range t.columns {
		set = append(set, c+" = excluded."+c)
	}
	return strings.Join([]string{t.insert(), "ON CONFLICT (" + strings.Join(t.keyNames(), ", ") + ")", "DO UPDATE SET", strings.Join(set, ", ")}, " ")
}

func (t *table) remove() string {
	return strings.Join([]string{"DELETE", "FROM", t.name, "WHERE", strings.Join(t.keyNames(), " = ? AND ") + " = ?"}, " ")
}

// each reads all rows by primary key.
func (v *View) each(t *table, row func([]any) error) error {
	rows, err := v.query(t.selectAll())
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		values, into := make([]any, len(t.columns)), make([]any, len(t.columns))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			return err
		}
		if err := row(values); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (t *table) keyOf(row []any) (key []any, text string) {
	for _, i := range t.key {
		key = append(key, row[i])
	}
	return key, fmt.Sprint(key...)
}

// digest tells rows apart, whatever revision last changed them.
func (t *table) digest(row []any) (sum [32]byte) {
	h := sha256.New()
	for i, v := range row {
		if i == t.changed {
			continue
		}
		var text []byte
		switch v := v.(type) {
		case nil:
			h.Write([]byte{0})
			continue
		case []byte:
			text = v
		default:
			text = fmt.Append(nil, v)
		}
		h.Write(binary.BigEndian.AppendUint64([]byte{1}, uint64(len(text))))
		h.Write(text)
	}
	h.Sum(sum[:0])
	return sum
}

// delta is how many rows a restore has touched.
type delta struct{ Added, Changed, Removed int }

// become makes a table of the transaction hold the rows that it has in another database, and touches no row that is the
// same already.
func (t *Tx) become(ctx context.Context, name string, want *View) (d delta, err error) {
	tb, err := t.table(name)
	if err != nil {
		return d, err
	}
	have := map[string][32]byte{}
	keys := map[string][]any{}
	if err := t.each(&tb, func(row []any) error {
		key, text := tb.keyOf(row)
		if !keptRows(name, text) {
			have[text], keys[text] = tb.digest(row), key
		}
		return nil
	}); err != nil {
		return d, err
	}
	var added, changed [][]any
	if err := want.each(&tb, func(row []any) error {
		if ctx.Err() != nil { // other writes wait meanwhile
			return errRestoreTime
		}
		_, text := tb.keyOf(row)
		if keptRows(name, text) {
			return nil
		}
		sum, there := have[text]
		delete(have, text)
		if there && sum == tb.digest(row) {
			return nil
		}
		if tb.changed >= 0 {
			row[tb.changed] = int64(t.Rev)
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
		if err := t.exec(tb.remove(), keys[text]...); err != nil {
			return d, err
		}
	}
	for _, row := range changed {
		if err := t.exec(tb.upsert(), row...); err != nil {
			return d, err
		}
	}
	for _, row := range added {
		if err := t.exec(tb.insert(), row...); err != nil {
			return d, err
		}
	}
	return delta{len(added), len(changed), len(have)}, nil
}
