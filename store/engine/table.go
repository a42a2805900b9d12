package engine

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Table describes a table by its schema.
type Table struct {
	Name    string
	Columns []string
	Key     []int // positions of the primary key
	Changed int   // position of modified_rev; -1 without one
}

var ErrNoTable = errors.New("engine: no table")

// Table reads the description of a table. It returns ErrNoTable if it does not exist or has no primary key.
func (v *View) Table(name string) (t Table, err error) {
	t = Table{Name: name, Changed: -1}
	type column struct {
		name string
		pk   int
	}
	list, err := Collect(v, func(rows *sql.Rows) (c column, err error) {
		err = rows.Scan(&c.name, &c.pk)
		return c, err
	}, "SELECT name, pk FROM pragma_table_info(?) ORDER BY cid", name)
	for i, c := range list {
		t.Columns = append(t.Columns, c.name)
		if c.pk > 0 {
			t.Key = append(t.Key, i)
		}
		if c.name == "modified_rev" {
			t.Changed = i
		}
	}
	if err == nil && len(t.Key) == 0 {
		err = fmt.Errorf("%w %s with a primary key", ErrNoTable, name)
	}
	return t, err
}

// KeyNames lists the columns of the primary key.
func (t *Table) KeyNames() (names []string) {
	for _, i := range t.Key {
		names = append(names, t.Columns[i])
	}
	return names
}

// SelectAll is the query that reads all rows by primary key.
func (t *Table) SelectAll() string {
	return strings.Join([]string{"SELECT", strings.Join(t.Columns, ", "), "FROM", t.Name, "ORDER BY",
		strings.Join(t.KeyNames(), ", ")}, " ")
}

// CopyFrom is the statement that copies all rows from an attached database. The ORDER BY makes SQLite insert row by
// row, with its checks, instead of copying whole records.
func (t *Table) CopyFrom(schema string) string {
	columns := strings.Join(t.Columns, ", ")
	return strings.Join([]string{"INSERT", "INTO", "main." + t.Name, "(" + columns + ")", "SELECT", columns, "FROM",
		schema + "." + t.Name,
		"ORDER BY", strings.Join(t.KeyNames(), ", ")}, " ")
}

// Insert is the statement that adds a row.
func (t *Table) Insert() string {
	marks := strings.TrimSuffix(strings.Repeat("?, ", len(t.Columns)), ", ")
	return strings.Join([]string{"INSERT", "INTO", t.Name, "(" + strings.Join(t.Columns, ", ") + ")", "VALUES",
		"(" + marks + ")"}, " ")
}

// Upsert is the statement that adds or replaces a row.
func (t *Table) Upsert() string {
	var set []string
	for _, c := range t.Columns {
		set = append(set, c+" = excluded."+c)
	}
	return strings.Join([]string{t.Insert(), "ON CONFLICT (" + strings.Join(t.KeyNames(), ", ") + ")", "DO UPDATE SET",
		strings.Join(set, ", ")}, " ")
}

// Remove is the statement that deletes a row by its key.
func (t *Table) Remove() string {
	return strings.Join([]string{"DELETE", "FROM", t.Name, "WHERE", strings.Join(t.KeyNames(), " = ? AND ") + " = ?"}, " ")
}

// Bytes is the query for the size of the values of all rows, as text, plus perRow for each row.
func (t *Table) Bytes(perRow int) string {
	var sum []string
	for _, c := range t.Columns {
		sum = append(sum, "ifnull(octet_length("+c+"), 0)")
	}
	return strings.Join([]string{"SELECT", fmt.Sprintf("CAST(ifnull(sum(%d + %s), 0) AS TEXT)", perRow,
		strings.Join(sum, " + ")), "FROM", t.Name}, " ")
}

// Each reads all rows by primary key.
func (v *View) Each(t *Table, row func([]any) error) error {
	rows, err := v.Query(t.SelectAll())
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		values, into := make([]any, len(t.Columns)), make([]any, len(t.Columns))
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

// KeyOf returns the key of a row, as arguments and as one text.
func (t *Table) KeyOf(row []any) (key []any, text string) {
	for _, i := range t.Key {
		key = append(key, row[i])
	}
	return key, fmt.Sprint(key...)
}

// Digest returns the hash of a row without the revision that last changed it.
func (t *Table) Digest(row []any) (sum [32]byte) {
	h := sha256.New()
	for i, v := range row {
		if i == t.Changed {
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

// importState makes the contents of a file the first transaction of a new cluster. It does nothing in a cluster that is
// founded already.
func (l *leadership) importState(ctx context.Context, path string) error {
	var founded bool
	if err := l.db.within(commitTimeout, func(c *sql.Conn) error {
		return c.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM cluster)").Scan(&founded)
	}); err != nil || founded {
		return err
	}
	o, err := OpenFile(path, l.engine.cfg.Schema.Latest)
	if err != nil {
		return err
	}
	defer o.Close()
	v := &View{s: o.session}
	names, err := Collect(v, func(rows *sql.Rows) (name string, err error) {
		err = rows.Scan(&name)
		return name, err
	}, "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' "+
		"AND name <> 'goose_db_version' ORDER BY name")
	if err != nil {
		return err
	}
	var all script
	for _, name := range names {
		t, err := v.Table(name)
		if err != nil {
			return err
		}
		if err := v.Each(&t, func(row []any) error {
			all.add(Statement{Query: t.Insert(), Args: row})
			return nil
		}); err != nil {
			return err
		}
	}
	text, err := all.text()
	if err != nil {
		return err
	}
	return l.db.within(commitTimeout+time.Duration(len(text)>>20)*commitPerMiB, func(c *sql.Conn) error {
		_, err := c.ExecContext(ctx, text)
		return err
	})
}
