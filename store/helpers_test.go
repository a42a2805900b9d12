package store

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster/certs"
	"muster/store/engine"
	"muster/store/engine/enginetest"
	"muster/store/sizes"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var bg = context.Background()

// answerLimit is the time in which every call is promised an answer (docs/reference/contract.md, section 5).
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

// newestSchema is what makes the newest schema of an empty database. TestNewestSchema holds it against the steps.
var newestSchema = sync.OnceValues(func() (string, error) { return schema().Script(bg) })

// migratedDB is memoryDB with the newest schema.
func migratedDB(t testing.TB) *sql.DB {
	t.Helper()
	text, err := newestSchema()
	if err != nil {
		t.Fatal(err)
	}
	db := memoryDB(t)
	if _, err := db.Exec(text); err != nil {
		t.Fatal(err)
	}
	return db
}

// bench is a working copy without dqlite: transactions run on it as the writer would try them out.
type bench struct {
	t   testing.TB
	s   *engine.Local
	now time.Time
	rev uint64
}

func newBench(t testing.TB, db *sql.DB) *bench {
	t.Helper()
	s, err := engine.NewLocal(db, LatestSchema())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
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
	tx := newTx(b.s.View(b.now).Offline(b.rev, sizes.CheckStatement), Actor{Name: "test", NodeID: 1})
	err := fn(tx)
	if err != nil {
		b.exec("ROLLBACK TO request")
	}
	b.exec("RELEASE request")
	return tx, err
}

// view reads what is there now.
func (b *bench) view() *View { return view(b.s.View(b.now)) }

func (b *bench) exec(query string, args ...any) {
	b.t.Helper()
	if err := b.s.Exec(query, args...); err != nil {
		b.t.Fatalf("%s: %v", query, err)
	}
}

// contents lists every row of every table, schema included, in an order that the content alone decides.
func contents(t testing.TB, v *View) map[string][]string {
	t.Helper()
	out, err := enginetest.Contents(func(query string) (*sql.Rows, error) { return v.query(query) })
	if err != nil {
		t.Fatal(err)
	}
	return out
}

var difference = enginetest.Difference

// dumpOf is what dqlite itself holds on a node.
func (c *testCluster) dumpOf(s *Store) (out map[string][]string, err error) {
	c.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err = s.ReadReplica(ctx, func(r *engine.View) error {
		v := view(r)
		var verdict string
		if _, err := v.get("PRAGMA integrity_check", nil, &verdict); err != nil || verdict != "ok" {
			return fmt.Errorf("integrity_check: %s, %w", verdict, err)
		}
		out = contents(c.T, v)
		return nil
	})
	return out, err
}

// workingOf is what the leader answers from.
func (c *testCluster) workingOf(s *Store) (out map[string][]string, err error) {
	err = s.Read(context.Background(), AsLeader, func(v *View) error {
		out = contents(c.T, v)
		return nil
	})
	return out, err
}

// agree waits until the leader's working copy and every node's own replica have the same content, and returns it.
func (c *testCluster) agree() map[string][]string {
	c.T.Helper()
	return c.Agree(c.workingOf, func(s *Store, want map[string][]string) error {
		got, err := c.dumpOf(s)
		if err != nil {
			return err
		}
		return difference(want, got)
	})
}

// integers reads one column of numbers on the leader.
func integers(t testing.TB, s *Store, query string, args ...any) (list []int64) {
	t.Helper()
	err := s.Read(context.Background(), AsLeader, func(v *View) (err error) {
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
