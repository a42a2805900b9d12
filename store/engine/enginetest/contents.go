package enginetest

import (
	"database/sql"
	"fmt"
	"sort"
	"strings"
)

// Contents lists every row of every table, schema included, in an order that the content alone decides.
func Contents(query func(string) (*sql.Rows, error)) (map[string][]string, error) {
	tables, err := rowsOf(query, "SELECT name FROM sqlite_master WHERE type = 'table'",
		func(_ []string, cells []any) string {
			return fmt.Sprint(cells[0])
		})
	if err != nil {
		return nil, err
	}
	out := map[string][]string{}
	for _, table := range append(tables, "sqlite_master") {
		text := "SELECT * FROM " + table
		if table == "sqlite_master" {
			text = "SELECT type, name, tbl_name, sql FROM sqlite_master"
		}
		if out[table], err = rowsOf(query, text, line); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func line(columns []string, cells []any) string {
	var b strings.Builder
	for i, c := range cells {
		fmt.Fprintf(&b, "%s=%T:%q ", columns[i], c, fmt.Sprint(c))
	}
	return b.String()
}

func rowsOf(query func(string) (*sql.Rows, error), text string,
	line func(columns []string, cells []any) string) ([]string, error) {
	rows, err := query(text)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	list := []string{}
	for rows.Next() {
		cells, into := make([]any, len(columns)), make([]any, len(columns))
		for i := range cells {
			into[i] = &cells[i]
		}
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		list = append(list, line(columns, cells))
	}
	sort.Strings(list)
	return list, rows.Err()
}

// Difference describes how two contents differ, nil when they do not.
func Difference(a, b map[string][]string) error {
	names := map[string]bool{}
	for n := range a {
		names[n] = true
	}
	for n := range b {
		names[n] = true
	}
	for n := range names {
		have := map[string]int{}
		for _, r := range a[n] {
			have[r]++
		}
		for _, r := range b[n] {
			have[r]--
		}
		for r, count := range have {
			if count != 0 {
				return fmt.Errorf("table %s (%d and %d rows): %+d × %s", n, len(a[n]), len(b[n]), count, r)
			}
		}
		if (a[n] == nil) != (b[n] == nil) {
			return fmt.Errorf("table %s is in one of them only", n)
		}
	}
	return nil
}
