// Package foreign runs SQL statements and reads database files from strangers, within limits of memory and time. It
// does not know the meaning of any table.
package foreign

import (
	"context"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"io"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/mattn/go-sqlite3"

	"muster/store/engine"
)

// Answer is the result of a query. Blobs are hexadecimal text.
type Answer struct {
	Columns   []string
	Rows      [][]any
	Truncated bool // more rows than the limits allow were left out
}

// MaxAnswer bounds the size of all values of an answer in bytes. Each value counts 8 bytes more.
const MaxAnswer = 4 << 20

// maxQueryTime bounds a query whose context has no deadline.
const maxQueryTime = 5 * time.Second

// Query runs one read-only statement of a caller on a database file that no process writes and returns at most limit
// rows and MaxAnswer bytes of values. It blocks until the statement is done, ctx ends or maxQueryTime has passed.
// Memory and the SQL that it may use are limited. Errors in the statement are a Refusal.
func Query(ctx context.Context, path, query string, limit int) (a Answer, err error) {
	opened, err := (&sqlite3.SQLiteDriver{}).Open(engine.FileURL(path, "mode=ro&immutable=1&_query_only=1"))
	if err != nil {
		return a, engine.ErrNoLeader
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
		left = min(left, there-there/20) // time to write the answer
	}
	err = bounded(ctx, conn, left, maxQueryMemory, func() error {
		statement, err := onlyStatement(conn, query)
		if err != nil {
			return err
		}
		if statement == nil {
			a.Columns, a.Rows = []string{}, [][]any{}
			return nil
		}
		defer statement.Close()
		rows, err := statement.(driver.StmtQueryContext).QueryContext(context.WithoutCancel(ctx), nil)
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

// onlyStatement compiles a query that is one statement; nil when it has none. SQLite compiles the first statement of a
// text and returns the rest; go-sqlite3 would run that, too, and does not reveal it.
func onlyStatement(conn *sqlite3.SQLiteConn, query string) (driver.Stmt, error) {
	if strings.ContainsRune(query, 0) { // where SQLite would end the text
		return nil, engine.Refuse(engine.Invalid, "query must not have a NUL character")
	}
	var only driver.Stmt
	for query != "" {
		s, err := conn.Prepare(query)
		if err != nil {
			return nil, err
		}
		inside := reflect.ValueOf(s).Elem()
		query = inside.FieldByName("t").String()
		switch empty := inside.FieldByName("s").IsNil(); { // a comment is an empty statement
		case empty:
			_ = s.Close()
		case only != nil:
			return nil, errors.Join(engine.Refuse(engine.Invalid, "query: it must be one statement"), s.Close(), only.Close())
		default:
			only = s
		}
	}
	if only != nil && only.NumInput() > 0 {
		return nil, errors.Join(engine.Refuse(engine.Invalid, "query must not have parameters"), only.Close())
	}
	return only, nil
}

// take reads rows until a limit is reached.
func (a *Answer) take(rows driver.Rows, limit int) error {
	a.Columns, a.Rows = rows.Columns(), [][]any{}
	left := MaxAnswer
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
				if math.IsInf(v, 0) { // JSON cannot express it
					row[i] = strconv.FormatFloat(v, 'g', -1, 64)
				}
			default:
				row[i] = v
			}
		}
		if left < 0 && len(a.Rows) == 0 {
			return engine.Refuse(engine.Invalid, "query: a row of the answer is larger than %d bytes", MaxAnswer)
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
	var refusal *engine.Refusal
	switch {
	case errors.As(err, &refusal):
		return refusal
	case rules.refused != "":
		return engine.Refuse(engine.Invalid, "query: %s", rules.refused)
	case errors.Is(err, ErrMemory):
		return engine.Refuse(engine.Invalid, "query: %v", ErrMemory)
	case errors.Is(err, ErrTime), ctx.Err() != nil:
		return engine.Refuse(engine.Invalid, "query: %v", ErrTime)
	case errors.As(err, &e):
		return engine.Refuse(engine.Invalid, "query: %s", strings.TrimSpace(e.Error()))
	default:
		return err
	}
}

// Limits of a query. The length of a value also bounds functions whose time grows with its square.
const (
	maxQueryText   = 100_000
	maxQueryValue  = 256 << 10
	maxQueryMemory = 24 << 20 // of sorting, grouping and compiling
)

var queryLimits = map[int]int{
	sqlite3.SQLITE_LIMIT_LENGTH:              maxQueryValue,
	sqlite3.SQLITE_LIMIT_SQL_LENGTH:          maxQueryText,
	sqlite3.SQLITE_LIMIT_COLUMN:              100,
	sqlite3.SQLITE_LIMIT_EXPR_DEPTH:          100,
	sqlite3.SQLITE_LIMIT_COMPOUND_SELECT:     50,
	sqlite3.SQLITE_LIMIT_VDBE_OP:             50_000,
	sqlite3.SQLITE_LIMIT_FUNCTION_ARG:        50,
	sqlite3.SQLITE_LIMIT_ATTACHED:            0,
	sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 500,
	sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER:     0,
	sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH:       1,
	sqlite3.SQLITE_LIMIT_WORKER_THREADS:      0,
}

// Everything that a query may use. All else is rejected: load_extension, functions that make large values, writes to
// SQLite's log, and additions of later SQLite versions. The pragmas here describe the schema and change nothing.
var (
	queryFunctions = words(`-> ->> abs avg char coalesce concat concat_ws count cume_dist current_date current_time
		current_timestamp date datetime dense_rank first_value format glob group_concat hex if ifnull iif instr json
		json_array
		json_array_length json_each json_extract json_group_array json_group_object json_insert json_object json_patch
		json_pretty json_quote json_remove json_replace json_set json_tree json_type json_valid julianday lag last_value lead
		length like likelihood likely lower ltrim max min nth_value ntile nullif octet_length percent_rank printf quote random
		rank replace round row_number rtrim sign sqlite_version strftime string_agg substr substring sum time timediff total
		trim typeof unicode unixepoch unlikely upper`)
	queryPragmas = words(`table_info table_xinfo table_list index_list index_info index_xinfo foreign_key_list
		compile_options function_list`)
	// without an argument
	queryPragmaValues = words(`user_version schema_version page_count page_size freelist_count encoding`)
)

func words(text string) map[string]bool {
	set := map[string]bool{}
	for _, w := range strings.Fields(text) {
		set[w] = true
	}
	return set
}

// Actions of the authorizer for which go-sqlite3 has no name.
const actionRecursive = 33

// authorizer decides about each action of a statement while it is compiled, and keeps the first refusal.
type authorizer struct{ refused string }

func (a *authorizer) check(action int, one, two, _ string) int {
	ok, why := true, "it must only read: the mirror cannot be written"
	switch action {
	case sqlite3.SQLITE_SELECT, actionRecursive:
	case sqlite3.SQLITE_READ:
		// Tables, views, json_each, json_tree and the schema. A table of a pragma also asks for that pragma.
	case sqlite3.SQLITE_FUNCTION:
		ok, why = queryFunctions[strings.ToLower(two)], "the function "+two+" is not allowed here"
	case sqlite3.SQLITE_PRAGMA:
		name := strings.ToLower(one)
		ok, why = queryPragmas[name] || queryPragmaValues[name] && two == "", "PRAGMA "+one+" is not allowed here"
	case sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH:
		ok, why = false, "no other database can be attached"
	case sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_SAVEPOINT:
		ok, why = false, "it must be one statement without a transaction"
	default:
		ok = false
	}
	if ok {
		return sqlite3.SQLITE_OK
	}
	if a.refused == "" {
		a.refused = why
	}
	return sqlite3.SQLITE_DENY
}

// pragma sets a property of a connection.
func pragma(conn *sqlite3.SQLiteConn, query string) error {
	rows, err := conn.Query(query, nil)
	if err != nil {
		return err
	}
	if err = rows.Next(make([]driver.Value, len(rows.Columns()))); err == io.EOF {
		err = nil
	}
	return errors.Join(err, rows.Close())
}

// restrict limits a connection to read-only statements of bounded size. It affects that connection alone: PRAGMA
// temp_store belongs to it, hard_heap_limit and temp_store_directory to the process.
func restrict(conn *sqlite3.SQLiteConn) (*authorizer, error) {
	for _, query := range []string{"PRAGMA temp_store = MEMORY", "PRAGMA trusted_schema = OFF"} {
		if err := pragma(conn, query); err != nil {
			return nil, err
		}
	}
	for id, value := range queryLimits {
		conn.SetLimit(id, value)
	}
	for _, name := range []string{"trim", "ltrim", "rtrim"} { // their time grows with the product of the lengths
		if err := conn.RegisterFunc(name, func(any, any) (any, error) {
			return nil, errors.New(name + " takes one argument here")
		}, true); err != nil {
			return nil, err
		}
	}
	a := &authorizer{}
	conn.RegisterAuthorizer(a.check)
	return a, nil
}
