package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pressly/goose/v3"

	"muster/migrations"
)

// LatestSchema is the newest database schema that this binary works with.
func LatestSchema() int64 { return migrations.Latest }

// ErrOldSchema is the answer to what needs a table or column that the cluster's database does not have yet, because some
// member cannot work with it.
var ErrOldSchema = errors.New("the database has an older schema than this call needs: it is brought up to date when every live member runs a muster that knows the newer one")

// errNewSchema: the database has a schema that this binary does not know; a newer one must lead.
var errNewSchema = errors.New("the database has a newer schema than this binary knows: a newer muster must lead")

// SchemaVersion reads the newest migration that was applied.
func (v *View) SchemaVersion() (n int64, err error) {
	_, err = v.get(selectSchema, nil, &n)
	return n, err
}

const selectSchema = "SELECT max(version_id) FROM goose_db_version"

// AppliedSchema returns the schema version that holds while this member leads, 0 where it does not.
func (s *Store) AppliedSchema() int64 {
	if l := s.current(); l != nil {
		return l.schema
	}
	return 0
}

// migration is a schema step that was asked for.
type migration struct {
	version int64
	by      string
}

// Migrate brings the schema to a version: this member takes its leadership up anew and applies the steps that are missing
// before anything else. It blocks until that is done, leadership is lost or ctx ends; requests that arrive meanwhile wait.
func (s *Store) Migrate(ctx context.Context, actor Actor, version int64) error {
	l := s.current()
	switch {
	case l == nil:
		return ErrNotLeader
	case version > migrations.Latest:
		return refuse(Invalid, "this muster knows the schema up to version %d", migrations.Latest)
	case version <= l.schema:
		return nil
	}
	s.schema.Store(&migration{version, actor.Name})
	s.descend(ErrNotLeader)
	for {
		turned := s.Leadership()
		s.Look()
		if s.AppliedSchema() >= version {
			return nil
		}
		if id := s.LeaderID(); id != 0 && id != s.cfg.NodeID {
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

// migrate applies the schema steps that are missing: all in a database that is new, otherwise those that Migrate has asked
// for. Other members may be of an older version, and their reads must go on.
func (l *leadership) migrate(ctx context.Context, conn *sql.Conn) error {
	err := conn.QueryRowContext(ctx, selectSchema).Scan(&l.schema)
	want := l.schema
	switch asked := l.store.schema.Load(); {
	case err != nil && strings.Contains(err.Error(), "no such table"):
		want = migrations.Latest
	case err != nil:
		return fmt.Errorf("read the schema version: %w", err)
	case l.schema > migrations.Latest:
		return fmt.Errorf("%w (%d, not %d)", errNewSchema, l.schema, migrations.Latest)
	case asked != nil && asked.version > l.schema:
		want = asked.version
		l.migrated = fmt.Sprintf("from %d, asked for by %s", l.schema, asked.by)
	}
	if want == l.schema {
		return nil
	}
	// goose wants a *sql.DB, which may hold one connection only: lend it ours.
	conn.Close()
	p, err := goose.NewProvider(goose.DialectSQLite3, l.db.db, migrations.FS)
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
		l.store.log.Info("schema", "version", r.Source.Version, "took", r.Duration.Round(time.Millisecond))
	}
	l.schema = want
	return nil
}

// outdated tells whether a statement may have failed for want of a schema step.
func (s *session) outdated(err error) bool {
	if !strings.Contains(err.Error(), "no such") {
		return false
	}
	var have int64
	e := s.conn.QueryRowContext(context.Background(), selectSchema).Scan(&have)
	return e == nil && have < migrations.Latest
}
