package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mattn/go-sqlite3"
	"github.com/pressly/goose/v3"

	"muster/migrations"
	"muster/store/engine"
)

// A state file comes from somebody. Before anything is asked of it, its schema is compared, text by text, with those that
// this binary's own steps make: no trigger, view, index or check of the archive's ever runs, because only ours are there.
// Then its rows are copied into a database that this binary has made.

const (
	archiveMemory = 128 << 20 // bytes of SQLite's for looking at a state and copying it
	archiveValue  = 16 << 20  // bytes of one value
	archiveTime   = 10 * time.Minute
	schemaMemory  = 8 << 20 // for reading the schema: ours takes less than one
	schemaTime    = 10 * time.Second
)

var errNoDatabase = refuse(Invalid, "the archive's state is not a database of muster's")

// openForeign opens a database file that was written by somebody else, to read it.
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

// run runs one statement that has no rows.
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

// texts reads all rows of a query, each as one text; more than most are an error.
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

const selectShape = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"

// checkState compares a state's schema with that of the version that it is said to have, then looks for damage.
func checkState(ctx context.Context, path string, version int64) error {
	if version > LatestSchema() {
		return refuse(Invalid, "the archive has schema %d and this binary knows %d: use a newer muster", version, LatestSchema())
	}
	want, err := shapeAt(ctx, version)
	if err != nil {
		return refuse(Invalid, "the archive has schema %d, which this binary does not know", version)
	}
	rows, bytes, err := schemaSize(path, len(want))
	if err != nil || rows != len(want) || bytes > recordsOf(want) {
		return foreignSchema(version)
	}
	conn, err := openForeign(path)
	if err != nil {
		return errNoDatabase
	}
	defer conn.Close()
	err = bounded(ctx, conn, schemaTime, schemaMemory, func() error {
		have, err := texts(conn, selectShape, 2*len(want))
		if err != nil {
			return errNoDatabase
		}
		if !slices.Equal(have, want) {
			return foreignSchema(version)
		}
		return nil
	})
	if errors.Is(err, errQueryTime) || errors.Is(err, errQueryMemory) {
		return errNoDatabase
	}
	if err != nil {
		return err
	}
	return bounded(ctx, conn, archiveTime, archiveMemory, func() error {
		verdict, err := texts(conn, "PRAGMA integrity_check(1)", 1)
		if err != nil || !slices.Equal(verdict, []string{"ok"}) {
			return refuse(Invalid, "the archive's state is damaged")
		}
		if broken, err := texts(conn, "SELECT 'x' FROM pragma_foreign_key_check LIMIT 1", 1); err != nil || len(broken) > 0 {
			return refuse(Invalid, "the archive's state is damaged")
		}
		return nil
	})
}

func foreignSchema(version int64) error {
	return refuse(Invalid, "the archive's state is not a database of muster's: its schema is not that of version %d", version)
}

// recordsOf is how many bytes the records of a schema have at most: beside the texts, a header and the number of a page.
func recordsOf(shape []string) (n uint64) {
	for _, text := range shape {
		n += uint64(len(text)) + 32
	}
	return n
}

var schemaShapes sync.Map // of what shapeAt has found, by version

// shapeAt returns the schema of a version, as its steps make it.
func shapeAt(ctx context.Context, version int64) ([]string, error) {
	if known, ok := schemaShapes.Load(version); ok {
		return known.([]string), nil
	}
	db, err := sql.Open("sqlite3", ":memory:")
	if err != nil {
		return nil, err
	}
	defer db.Close()
	if err := makeSchema(ctx, db, version); err != nil {
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

// makeSchema brings an empty or older database to a version.
func makeSchema(ctx context.Context, db *sql.DB, version int64) error {
	db.SetMaxOpenConns(1)
	p, err := goose.NewProvider(goose.DialectSQLite3, db, migrations.FS)
	if err != nil {
		return err
	}
	_, err = p.UpTo(ctx, version)
	return err
}

// copyState makes a database of a schema version at path and copies the rows of a state that checkState has found good.
func copyState(ctx context.Context, from, path string, version int64) error {
	db, err := sql.Open("sqlite3", engine.FileURL(path, "_journal_mode=MEMORY&_synchronous=OFF&_foreign_keys=0"))
	if err != nil {
		return err
	}
	defer db.Close()
	if err := makeSchema(ctx, db, version); err != nil {
		return err
	}
	l, err := engine.NewLocal(db, LatestSchema())
	if err != nil {
		return err
	}
	defer l.Close()
	v := l.View(time.Time{})
	var copies []string
	for _, name := range slices.Concat(restoredTables, keptTables) {
		t, err := v.Table(name)
		if errors.Is(err, engine.ErrNoTable) { // of a later step
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
