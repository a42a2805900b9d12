package foreign

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mattn/go-sqlite3"
	"github.com/pressly/goose/v3"

	"muster/migrations"
	"muster/store/engine"
)

// A state file comes from a stranger. Before any query, its schema is compared, text by text, with the one that this
// binary's own steps make, so that no trigger, view, index or check of the file ever runs. Then its rows are copied
// into a database that this binary has made.

const (
	archiveMemory = 128 << 20 // bytes of SQLite, to check a state and copy it
	archiveValue  = 16 << 20  // bytes of one value
	archiveTime   = 10 * time.Minute
	schemaMemory  = 8 << 20 // for reading the schema: ours takes less than one
	schemaTime    = 10 * time.Second
)

// ErrNoDatabase: the file is not a database of muster.
var ErrNoDatabase = engine.Refuse(engine.Invalid, "the archive's state is not a database of muster's")

// openForeign opens a stranger's database file for reading.
func openForeign(path string) (*sqlite3.SQLiteConn, error) {
	opened, err := (&sqlite3.SQLiteDriver{}).Open(engine.FileURL(path, "mode=ro&immutable=1&_query_only=1"))
	if err != nil {
		return nil, err
	}
	conn := opened.(*sqlite3.SQLiteConn)
	conn.SetLimit(sqlite3.SQLITE_LIMIT_LENGTH, archiveValue)
	conn.SetLimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
	conn.SetLimit(sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH, 1)
	for _, query := range []string{"PRAGMA trusted_schema = OFF", "PRAGMA cell_size_check = ON"} {
		if err := pragma(conn, query); err != nil {
			opened.Close()
			return nil, err
		}
	}
	return conn, nil
}

// run runs one statement without rows.
func run(conn *sqlite3.SQLiteConn, query string, args ...driver.Value) error {
	rows, err := conn.Query(query, args)
	if err != nil {
		return err
	}
	if err = rows.Next(nil); err == io.EOF {
		err = nil
	}
	return errors.Join(err, rows.Close())
}

// texts reads all rows of a query, each as one text. It fails for more than most rows.
func texts(conn *sqlite3.SQLiteConn, query string, most int) (list []string, err error) {
	rows, err := conn.Query(query, nil)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	values := make([]driver.Value, len(rows.Columns()))
	for {
		if err := rows.Next(values); err == io.EOF {
			return list, nil
		} else if err != nil {
			return nil, err
		}
		var line []string
		for _, v := range values {
			text, ok := v.(string)
			if !ok && v != nil {
				return nil, errors.New("a column is no text")
			}
			line = append(line, text)
		}
		if list = append(list, strings.Join(line, " ")); len(list) > most {
			return nil, errors.New("too many rows")
		}
	}
}

const brokenLink = "SELECT 'a row of table ' || \"table\" || ' refers to a missing row of table ' || parent " +
	"FROM pragma_foreign_key_check LIMIT 1"

const selectShape = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"

// Check compares the schema of a state with that of its declared version, then checks the file for damage. Faults of
// the state are Refusals.
func Check(ctx context.Context, path string, version int64) error {
	if version > migrations.Latest {
		return engine.Refuse(engine.Invalid,
			"the archive has schema %d and this binary knows %d: use a newer muster", version,
			migrations.Latest)
	}
	want, err := shapeAt(ctx, version)
	if err != nil {
		return engine.Refuse(engine.Invalid, "the archive has schema %d, which this binary does not know", version)
	}
	rows, bytes, err := schemaSize(path, len(want))
	if err != nil || rows != len(want) || bytes > recordsOf(want) {
		return foreignSchema(version)
	}
	conn, err := openForeign(path)
	if err != nil {
		return ErrNoDatabase
	}
	defer conn.Close()
	err = bounded(ctx, conn, schemaTime, schemaMemory, func() error {
		have, err := texts(conn, selectShape, 2*len(want))
		if err != nil {
			return ErrNoDatabase
		}
		if !slices.Equal(have, want) {
			return foreignSchema(version)
		}
		return nil
	})
	if errors.Is(err, ErrTime) || errors.Is(err, ErrMemory) {
		return ErrNoDatabase
	}
	if err != nil {
		return err
	}
	return bounded(ctx, conn, archiveTime, archiveMemory, func() error {
		verdict, err := texts(conn, "PRAGMA integrity_check(1)", 1)
		if err != nil || len(verdict) == 0 {
			return damagedState("SQLite cannot read it")
		}
		if verdict[0] != "ok" {
			return damagedState(strings.ReplaceAll(verdict[0], "\n", " "))
		}
		broken, err := texts(conn, brokenLink, 1)
		if err != nil {
			return damagedState("SQLite cannot read it")
		}
		if len(broken) > 0 {
			return damagedState(broken[0])
		}
		return checkRows(conn, want)
	})
}

// Measure runs a query for one number on a state that Check has accepted.
func Measure(ctx context.Context, path, query string) (n int64, err error) {
	conn, err := openForeign(path)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	err = bounded(ctx, conn, archiveTime, archiveMemory, func() error {
		found, err := texts(conn, query, 1)
		if err == nil && len(found) == 1 {
			n, err = strconv.ParseInt(found[0], 10, 64)
		}
		return err
	})
	return n, err
}

func foreignSchema(version int64) error {
	return engine.Refuse(engine.Invalid,
		"the archive's state is not a database of muster's: its schema is not that of version %d",
		version)
}

// recordsOf returns the maximum size of a schema's records in bytes: the texts, a header and a page number.
func recordsOf(shape []string) (n uint64) {
	for _, text := range shape {
		n += uint64(len(text)) + 32
	}
	return n
}

var schemaShapes sync.Map // results of shapeAt, by version

// shapeAt returns the schema that the steps up to a version make.
func shapeAt(ctx context.Context, version int64) ([]string, error) {
	if known, ok := schemaShapes.Load(version); ok {
		return known.([]string), nil
	}
	db, err := sql.Open("sqlite3", ":memory:")
	if err != nil {
		return nil, err
	}
	defer db.Close()
	if err := Migrate(ctx, db, version); err != nil {
		return nil, err
	}
	c, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var list []string
	err = c.Raw(func(conn any) error {
		list, err = texts(conn.(*sqlite3.SQLiteConn), selectShape, 10_000)
		return err
	})
	if err == nil {
		schemaShapes.Store(version, list)
	}
	return list, err
}

// Migrate brings an empty or older database to a version.
func Migrate(ctx context.Context, db *sql.DB, version int64) error {
	db.SetMaxOpenConns(1)
	p, err := goose.NewProvider(goose.DialectSQLite3, db, migrations.FS)
	if err != nil {
		return err
	}
	_, err = p.UpTo(ctx, version)
	var step *goose.PartialError
	if errors.As(err, &step) {
		return &StepError{Version: step.Failed.Source.Version, Err: step.Err}
	}
	return err
}

// StepError is a schema step that failed. Err may hold SQL; Cause does not.
type StepError struct {
	Version int64
	Err     error
}

func (e *StepError) Error() string { return fmt.Sprintf("schema step %d: %v", e.Version, e.Err) }

// Unwrap returns the cause.
func (e *StepError) Unwrap() error { return e.Err }

// Cause says why a state could not be copied or migrated, in words for a caller: without paths, statements and values.
func Cause(err error) string {
	var step *StepError
	var file *os.PathError
	var e sqlite3.Error
	switch {
	case errors.As(err, &step):
		return fmt.Sprintf("schema step %d fails: %s", step.Version, Cause(step.Err))
	case errors.Is(err, ErrTime):
		return "it takes too long"
	case errors.Is(err, ErrMemory):
		return "it takes too much memory"
	case errors.As(err, &e):
		return e.Error()
	case errors.As(err, &file):
		return file.Err.Error()
	}
	return "the log of the member that tried it has the reason"
}

// Copy makes a database of a schema version at path and copies the rows of a state that Check has accepted.
func Copy(ctx context.Context, from, path string, version int64, tables []string) error {
	db, err := sql.Open("sqlite3", engine.FileURL(path, "_journal_mode=MEMORY&_synchronous=OFF&_foreign_keys=0"))
	if err != nil {
		return err
	}
	defer db.Close()
	if err := Migrate(ctx, db, version); err != nil {
		return err
	}
	l, err := engine.NewLocal(db, migrations.Latest)
	if err != nil {
		return err
	}
	defer l.Close()
	v := l.View(time.Time{})
	var copies []string
	for _, name := range tables {
		t, err := v.Table(name)
		if errors.Is(err, engine.ErrNoTable) { // made by a later step
			continue
		}
		if err != nil {
			return err
		}
		copies = append(copies, t.CopyFrom("archive"))
	}
	return l.Conn().Raw(func(c any) error {
		conn := c.(*sqlite3.SQLiteConn)
		conn.SetLimit(sqlite3.SQLITE_LIMIT_LENGTH, archiveValue)
		if err := pragma(conn, "PRAGMA trusted_schema = OFF"); err != nil {
			return err
		}
		if err := run(conn, "ATTACH ? AS archive", engine.FileURL(from, "mode=ro&immutable=1")); err != nil {
			return err
		}
		return bounded(ctx, conn, archiveTime, archiveMemory, func() error {
			for _, query := range copies {
				if err := run(conn, query); err != nil {
					return err
				}
			}
			return run(conn, "DETACH archive")
		})
	})
}
