package store

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"strings"

	"github.com/mattn/go-sqlite3"
)

// Query runs one statement of the caller's on the local mirror and returns at most limit rows. The connection can
// read that one file and nothing else. Blobs come as hexadecimal text. What is wrong with the statement is a
// Refusal with SQLite's own words.
func (s *Store) Query(ctx context.Context, query string, limit int) (columns []string, rows [][]any, truncated bool, err error) {
	db, err := sql.Open("sqlite3", fileURL(s.mirror.path, "mode=ro&immutable=1&_query_only=1"))
	if err != nil {
		return nil, nil, false, err
	}
	defer db.Close()
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, nil, false, ErrNoLeader // there is no mirror yet
	}
	defer conn.Close()
	err = conn.Raw(func(c any) error {
		c.(*sqlite3.SQLiteConn).SetLimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
		return nil
	})
	if err != nil {
		return nil, nil, false, err
	}
	list, err := conn.QueryContext(ctx, query)
	if err != nil {
		return nil, nil, false, queryError(ctx, err)
	}
	defer list.Close()
	if columns, err = list.Columns(); err != nil {
		return nil, nil, false, err
	}
	rows = [][]any{}
	for list.Next() {
		if len(rows) == limit {
			return columns, rows, true, nil
		}
		row, into := make([]any, len(columns)), make([]any, len(columns))
		for i := range row {
			into[i] = &row[i]
		}
		if err := list.Scan(into...); err != nil {
			return nil, nil, false, err
		}
		for i, v := range row {
			if b, ok := v.([]byte); ok {
				row[i] = hex.EncodeToString(b)
			}
		}
		rows = append(rows, row)
	}
	if err := list.Err(); err != nil {
		return nil, nil, false, queryError(ctx, err)
	}
	return columns, rows, false, nil
}

func queryError(ctx context.Context, err error) error {
	var e sqlite3.Error
	switch {
	case ctx.Err() != nil:
		return refuse(Invalid, "the query takes too long")
	case errors.As(err, &e) && e.Code == sqlite3.ErrReadonly:
		return refuse(Invalid, "query must only read: the mirror cannot be written")
	case errors.As(err, &e):
		return refuse(Invalid, "query: %s", strings.TrimSpace(e.Error()))
	case strings.Contains(err.Error(), "not enough args"):
		return refuse(Invalid, "query must not have parameters")
	default:
		return err
	}
}
