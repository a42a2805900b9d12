package engine

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/pressly/goose/v3"
)

// ErrOldSchema: the call needs a table or column that the cluster's database does not have yet, because a member cannot
// work with it.
var ErrOldSchema = errors.New("the database has an older schema than this call needs: it is brought up to date when " +
	"every live member runs a muster that knows the newer one")

// errNewSchema: the database has a schema that this binary does not know; a newer one must lead.
var errNewSchema = errors.New("the database has a newer schema than this binary knows: a newer muster must lead")

// AppliedSchema returns the schema version of this leadership; 0 on a member that does not lead.
func (e *Engine) AppliedSchema() int64 {
	if l := e.current(); l != nil {
		return l.schema
	}
	return 0
}

// migration is a requested schema step.
type migration struct {
	version int64
	by      string
}

// Migrate brings the schema to a version: this member takes its leadership up again and first applies the missing
// steps. by names who asked for it. It blocks until that is done, leadership is lost or ctx ends; requests that arrive
// meanwhile wait. A version that this binary does not know is a Refusal.
func (e *Engine) Migrate(ctx context.Context, by string, version int64) error {
	l := e.current()
	switch {
	case l == nil:
		return ErrNotLeader
	case version > e.cfg.Schema.Latest:
		return Refuse(Invalid, "this muster knows the schema up to version %d", e.cfg.Schema.Latest)
	case version <= l.schema:
		return nil
	}
	e.schema.Store(&migration{version: version, by: by})
	e.descend(ErrNotLeader)
	for {
		turned := e.Leadership()
		e.Look()
		if e.AppliedSchema() >= version {
			return nil
		}
		if id := e.LeaderID(); id != 0 && id != e.cfg.NodeID {
			return ErrNotLeader
		}
		select {
		case <-turned:
		case <-time.After(leaderPoll):
		case <-ctx.Done():
			return ErrNoLeader
		}
	}
}

// migrate applies the missing schema steps: all of them to a new database, otherwise those that Migrate has requested.
// Older members must still be able to read the database.
func (l *leadership) migrate(ctx context.Context, conn *sql.Conn) error {
	err := conn.QueryRowContext(ctx, selectSchema).Scan(&l.schema)
	want := l.schema
	switch asked := l.engine.schema.Load(); {
	case err != nil && strings.Contains(err.Error(), "no such table"):
		return l.createSchema(ctx, conn)
	case err != nil:
		return fmt.Errorf("read the schema version: %w", err)
	case l.schema > l.engine.cfg.Schema.Latest:
		return fmt.Errorf("%w (%d, not %d)", errNewSchema, l.schema, l.engine.cfg.Schema.Latest)
	case asked != nil && asked.version > l.schema:
		want = asked.version
		l.migrated = fmt.Sprintf("from %d, asked for by %s", l.schema, asked.by)
	}
	if want == l.schema {
		return nil
	}
	// goose needs a *sql.DB, and dqlite allows one connection: close ours and open it again later.
	conn.Close()
	p, err := goose.NewProvider(goose.DialectSQLite3, l.db.db, l.engine.cfg.Schema.Steps)
	if err != nil {
		return fmt.Errorf("read the migrations: %w", err)
	}
	done, err := p.UpTo(ctx, want)
	if err != nil {
		return fmt.Errorf("migrate the schema: %w", err)
	}
	if l.db.conn, err = l.db.db.Conn(ctx); err != nil {
		return fmt.Errorf("open the database again: %w", err)
	}
	for _, r := range done {
		l.engine.log.Info("schema", "version", r.Source.Version, "took", r.Duration.Round(time.Millisecond))
	}
	l.schema = want
	return nil
}

// createSchema creates the newest schema in a new database, as one text. The steps run in memory first: each of their
// statements would be a round trip, and an ALTER TABLE reads the whole schema again.
func (l *leadership) createSchema(ctx context.Context, conn *sql.Conn) error {
	begin := time.Now()
	text, err := l.engine.cfg.Schema.Script(ctx)
	if err == nil {
		_, err = conn.ExecContext(ctx, text)
	}
	if err != nil {
		return fmt.Errorf("create the schema: %w", err)
	}
	l.schema = l.engine.cfg.Schema.Latest
	l.engine.log.Info("schema", "version", l.schema, "took", time.Since(begin).Round(time.Millisecond))
	return nil
}

// scripts has the text of each Schema that can be compared: a test's process founds hundreds of clusters.
var scripts sync.Map

// Script returns a transaction that creates the same as all the steps, including goose's own table.
func (s Schema) Script(ctx context.Context) (string, error) {
	if !reflect.TypeOf(s.Steps).Comparable() {
		return s.script(ctx)
	}
	if text, ok := scripts.Load(s); ok {
		return text.(string), nil
	}
	text, err := s.script(ctx)
	if err == nil {
		scripts.Store(s, text)
	}
	return text, err
}

func (s Schema) script(ctx context.Context) (string, error) {
	db, err := sql.Open("sqlite3", ":memory:")
	if err != nil {
		return "", err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	p, err := goose.NewProvider(goose.DialectSQLite3, db, s.Steps)
	if err != nil {
		return "", err
	}
	if _, err := p.Up(ctx); err != nil {
		return "", err
	}
	text := []string{"BEGIN"}
	for _, query := range []string{selectObjects, selectSteps} {
		rows, err := db.QueryContext(ctx, query)
		if err != nil {
			return "", err
		}
		for rows.Next() {
			var line string
			if err := rows.Scan(&line); err != nil {
				rows.Close()
				return "", err
			}
			text = append(text, line)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return "", err
		}
	}
	return strings.Join(append(text, "COMMIT"), ";\n"), nil
}

const (
	selectObjects = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY rowid"
	selectSteps   = `SELECT format('INSERT INTO goose_db_version (id, version_id, is_applied, tstamp)
		VALUES (%d, %d, %d, %Q)',
		id, version_id, is_applied, tstamp) FROM goose_db_version ORDER BY id`
)
