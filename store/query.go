package store

import (
	"context"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/mattn/go-sqlite3"

	"muster/store/engine"
)

// Answer is what a query has found. Blobs are hexadecimal text.
type Answer struct {
	Columns   []string
	Rows      [][]any
	Truncated bool // there were more rows than fit the limits
}

// maxQueryTime bounds a query whose context has no deadline.
const maxQueryTime = 5 * time.Second

// Query runs one reading statement of the caller's on the local mirror, with or without a leader, and returns at most
// limit rows and 4 MiB of values. It blocks until the statement is done, ctx ends or its deadline has come. Memory, time
// and what the statement may use are bounded (queryrules.go); two statements run at a time, others wait. What is wrong
// with the statement is a Refusal; ErrBusy comes when none could be begun in time.
func (s *Store) Query(ctx context.Context, query string, limit int) (Answer, error) {
	select {
	case s.queries <- struct{}{}:
		defer func() { <-s.queries }()
	case <-ctx.Done():
		return Answer{}, ErrBusy
	}
	if _, err := os.Stat(s.Mirror.Path()); err != nil {
		return Answer{}, ErrNoLeader // there is no mirror yet
	}
	return queryFile(ctx, s.Mirror.Path(), query, limit)
}

func queryFile(ctx context.Context, path, query string, limit int) (a Answer, err error) {
	opened, err := (&sqlite3.SQLiteDriver{}).Open(engine.FileURL(path, "mode=ro&immutable=1&_query_only=1"))
	if err != nil {
		return a, ErrNoLeader
	}
	defer opened.Close()
	conn := opened.(*sqlite3.SQLiteConn)
	rules, err := restrict(conn)
	if err != nil {
		return a, err
	}
	left := maxQueryTime
	if at, ok := ctx.Deadline(); ok {
		there := time.Until(at)
		left = min(left, there-there/20) // the answer has to be written, too
	}
	err = bounded(ctx, conn, left, maxQueryMemory, func() error {
		rows, err := conn.Query(query, nil)
		if err != nil {
			return err
		}
		err = a.take(rows, limit)
		return errors.Join(err, rows.Close())
	})
	if err != nil {
		return Answer{}, queryError(ctx, rules, err)
	}
	return a, nil
}

// take reads rows until one of the limits is met.
func (a *Answer) take(rows driver.Rows, limit int) error {
	a.Columns, a.Rows = rows.Columns(), [][]any{}
	left := maxQueryAnswer
	for {
		values := make([]driver.Value, len(a.Columns))
		if err := rows.Next(values); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		row := make([]any, len(values))
		for i, v := range values {
			left -= 8
			switch v := v.(type) {
			case []byte:
				left -= 2 * len(v)
				if left >= 0 {
					row[i] = hex.EncodeToString(v)
				}
			case string:
				left -= len(v)
				row[i] = v
			case float64:
				row[i] = v
				if math.IsInf(v, 0) { // JSON has no number for it
					row[i] = strconv.FormatFloat(v, 'g', -1, 64)
				}
			default:
				row[i] = v
			}
		}
		if left < 0 && len(a.Rows) == 0 {
			return refuse(Invalid, "query: a row of the answer is larger than %d bytes", maxQueryAnswer)
		}
		if left < 0 || len(a.Rows) == limit {
			a.Truncated = true
			return nil
		}
		a.Rows = append(a.Rows, row)
	}
}

func queryError(ctx context.Context, rules *authorizer, err error) error {
	var e sqlite3.Error
	var refusal *Refusal
	switch {
	case errors.As(err, &refusal):
		return refusal
	case rules.refused != "":
		return refuse(Invalid, "query: %s", rules.refused)
	case errors.Is(err, errQueryMemory):
		return refuse(Invalid, "query: %v", errQueryMemory)
	case errors.Is(err, errQueryTime), ctx.Err() != nil:
		return refuse(Invalid, "query: %v", errQueryTime)
	case errors.As(err, &e):
		return refuse(Invalid, "query: %s", strings.TrimSpace(e.Error()))
	case strings.Contains(err.Error(), "not enough args"):
		return refuse(Invalid, "query must not have parameters")
	default:
		return err
	}
}
