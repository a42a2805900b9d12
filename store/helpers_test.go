package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/pressly/goose/v3"
	"go.uber.org/goleak"

	"muster/certs"
	"muster/migrations"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var bg = context.Background()

// answerLimit is the time in which every call is promised an answer (design, section 5).
const answerLimit = 5 * time.Second

// memoryDB opens an empty database of one connection.
func memoryDB(t testing.TB) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite3", ":memory:?_foreign_keys=1")
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { db.Close() })
	if _, err := db.Exec("PRAGMA foreign_keys = ON"); err != nil {
		t.Fatal(err)
	}
	return db
}

// migratedDB is memoryDB with the newest schema.
func migratedDB(t testing.TB) *sql.DB {
	t.Helper()
	db := memoryDB(t)
	p, err := goose.NewProvider(goose.DialectSQLite3, db, migrations.FS)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Up(context.Background()); err != nil {
		t.Fatal(err)
	}
	return db
}

// bench is a working copy without dqlite: transactions run on it as the writer would try them out.
type bench struct {
	t   testing.TB
	s   *session
	now time.Time
	rev uint64
}

func newBench(t testing.TB, db *sql.DB) *bench {
	t.Helper()
	s, err := newSession(db)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, st := range s.stmts {
			st.Close()
		}
		s.conn.Close()
	})
	return &bench{t: t, s: s, now: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)}
}

// foundedBench is a bench with the schema and a founded cluster of member 1.
func foundedBench(t testing.TB, cidr string, sliceBits int) *bench {
	t.Helper()
	b := newBench(t, migratedDB(t))
	identity, err := certs.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	f := testFounding(t, identity)
	f.OverlayCIDR, f.OverlaySlices = cidr, sliceBits
	if _, err := b.write(f.apply); err != nil {
		t.Fatal("found:", err)
	}
	return b
}

// write runs fn as the writer does: all of it, or nothing when it fails.
func (b *bench) write(fn func(*Tx) error) (*Tx, error) {
	b.t.Helper()
	b.rev++
	b.exec("SAVEPOINT request")
	tx := &Tx{View: View{s: b.s, Now: b.now}, Rev: b.rev, actor: Actor{Name: "test", NodeID: 1}}
	var err error
	if tx.nextSeq, err = tx.nextAuditOrOne(); err != nil {
		b.t.Fatal(err)
	}
	if err = fn(tx); err != nil {
		b.exec("ROLLBACK TO request")
	}
	b.exec("RELEASE request")
	return tx, err
}

func (t *Tx) nextAuditOrOne() (uint64, error) {
	ok, err := t.get("SELECT 1 FROM sqlite_master WHERE name = 'audit'", nil, new(int))
	if err != nil || !ok {
		return 1, err
	}
	var next uint64
	_, err = t.get("SELECT coalesce(max(seq), 0) + 1 FROM audit WHERE revision = ?", []any{int64(t.Rev)}, &next)
	return next, err
}

func (b *bench) exec(query string, args ...any) {
	b.t.Helper()
	if _, err := b.s.exec(query, args...); err != nil {
		b.t.Fatalf("%s: %v", query, err)
	}
}

// contents lists every row of every table, schema included, in an order that the content alone decides.
func contents(t testing.TB, s *session) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	v := &View{s: s}
	tables, err := collect(v, func(r *sql.Rows) (n string, err error) { return n, r.Scan(&n) },
		"SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range append(tables, "sqlite_master") {
		query := "SELECT * FROM " + table
		if table == "sqlite_master" {
			query = "SELECT type, name, tbl_name, sql FROM sqlite_master"
		}
		rows, err := s.conn.QueryContext(context.Background(), query)
		if err != nil {
			t.Fatal(err)
		}
		columns, err := rows.Columns()
		if err != nil {
			t.Fatal(err)
		}
		list := []string{}
		for rows.Next() {
			cells := make([]any, len(columns))
			into := make([]any, len(columns))
			for i := range cells {
				into[i] = &cells[i]
			}
			if err := rows.Scan(into...); err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			for i, c := range cells {
				fmt.Fprintf(&b, "%s=%T:%q ", columns[i], c, fmt.Sprint(c))
			}
			list = append(list, b.String())
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		rows.Close()
		sort.Strings(list)
		out[table] = list
	}
	return out
}

// difference describes how two contents differ, nil when they do not.
func difference(a, b map[string][]string) error {
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

// dumpOf is what dqlite itself holds on a node.
func (c *testCluster) dumpOf(id uint64) (map[string][]string, error) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	image, err := c.node(id).node.dump(ctx)
	if err != nil {
		return nil, err
	}
	if len(image) == 0 {
		return nil, errors.New("the dump is empty")
	}
	path := filepath.Join(c.t.TempDir(), "dump.db")
	if err := os.WriteFile(path, image, 0o600); err != nil {
		return nil, err
	}
	defer os.Remove(path)
	if err := plainHeader(path); err != nil {
		return nil, err
	}
	o, err := openFile(path)
	if err != nil {
		return nil, err
	}
	defer o.close()
	var verdict string
	if err := o.session.conn.QueryRowContext(ctx, "PRAGMA integrity_check").Scan(&verdict); err != nil || verdict != "ok" {
		return nil, fmt.Errorf("integrity_check: %s, %w", verdict, err)
	}
	return contents(c.t, o.session), nil
}

// workingOf is what the leader answers from.
func (c *testCluster) workingOf(s *Store) (out map[string][]string, err error) {
	err = s.Peek(context.Background(), func(v *View) error {
		out = contents(c.t, v.s)
		return nil
	})
	return out, err
}

// agree waits until the leader's working copy and every node's own replica have the same content, and returns it.
func (c *testCluster) agree() map[string][]string {
	c.t.Helper()
	var want map[string][]string
	c.eventually("all replicas have the same content", func() error {
		c.mu.Lock()
		var leader *Store
		var ids []uint64
		for id, s := range c.nodes {
			ids = append(ids, id)
			if s.Leading() {
				leader = s
			}
		}
		c.mu.Unlock()
		if leader == nil {
			return errors.New("no leader")
		}
		var err error
		if want, err = c.workingOf(leader); err != nil {
			return err
		}
		for _, id := range ids {
			got, err := c.dumpOf(id)
			if err != nil {
				return fmt.Errorf("node %d: %w", id, err)
			}
			if err := difference(want, got); err != nil {
				return fmt.Errorf("the working copy of node %d and dqlite's own copy on node %d: %w", leader.NodeID(), id, err)
			}
		}
		return nil
	})
	return want
}

// integers reads one column of numbers on the leader.
func integers(t testing.TB, s *Store, query string, args ...any) (list []int64) {
	t.Helper()
	err := s.Peek(context.Background(), func(v *View) (err error) {
		list, err = collect(v, func(r *sql.Rows) (n int64, err error) { return n, r.Scan(&n) }, query, args...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// promised runs f and fails the test when it has no answer within answerLimit; f goes on in its own goroutine
// then, so that the test ends all the same.
func promised(t testing.TB, what string, f func() error) error {
	t.Helper()
	done := make(chan error, 1)
	begin := time.Now()
	go func() { done <- f() }()
	timer := time.NewTimer(answerLimit)
	defer timer.Stop()
	select {
	case err := <-done:
		t.Logf("%s: %v after %v", what, err, time.Since(begin).Round(time.Millisecond))
		return err
	case <-timer.C:
		t.Fatalf("%s: no answer within %v", what, answerLimit)
		return nil
	}
}
