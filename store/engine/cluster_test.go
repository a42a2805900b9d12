package engine

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"muster/internal/await"
	"muster/store/engine/enginetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var bg = context.Background()

// answerLimit is the time in which every call is promised an answer.
const answerLimit = 5 * time.Second

// testSchema has the engine's own table and one for what a test writes.
var testSchema = Schema{Latest: 1, Steps: fstest.MapFS{"00001_test.sql": {Data: []byte(`-- +goose Up
CREATE TABLE cluster (one INTEGER PRIMARY KEY CHECK (one = 1), revision INTEGER NOT NULL, batch_id TEXT NOT NULL,
	epoch INTEGER NOT NULL, leader_node_id INTEGER NOT NULL) STRICT;
-- +goose StatementBegin
CREATE TRIGGER cluster_revision BEFORE UPDATE OF revision ON cluster WHEN NEW.revision <> OLD.revision + 1
BEGIN
  SELECT RAISE(ABORT, 'revision moved');
END;
-- +goose StatementEnd
CREATE TABLE notes (revision INTEGER NOT NULL, seq INTEGER NOT NULL, request TEXT NOT NULL, PRIMARY KEY (revision,
seq)) STRICT;
`)}}}

// note writes what a request is known by later.
func note(request string) func(*Tx) error {
	return func(tx *Tx) error {
		_, err := tx.Exec("INSERT INTO notes (revision, seq, request) VALUES (?, ?, ?)", tx.Rev, tx.Next(), request)
		return err
	}
}

func noted(v *View, request string) (bool, error) {
	return v.Get("SELECT 1 FROM notes WHERE request = ?", []any{request}, new(int))
}

func testHooks(founder bool) Hooks {
	h := Hooks{
		Begin: func(tx *Tx, b Beginning) error { return note(fmt.Sprint("epoch ", b.Epoch))(tx) },
		Happened: func(v *View, revision uint64, request string) (bool, error) {
			return v.Get("SELECT 1 FROM notes WHERE revision = ? AND request = ?", []any{int64(revision), request}, new(int))
		},
	}
	if founder {
		h.Found = func(tx *Tx) error {
			if _, err := tx.Exec("INSERT INTO cluster (one, revision, batch_id, epoch, leader_node_id) " +
				"VALUES (1, 1, '', 0, 1)"); err != nil {
				return err
			}
			return note("found")(tx)
		}
	}
	return h
}

// testCluster is a set of real dqlite nodes in one process.
type testCluster struct {
	*enginetest.Cluster[*Engine]
	// prepare, if it is not nil, takes what node from asks of a voter before it hands over. It is set before it can be
	// asked.
	prepare func(ctx context.Context, from uint64, heir *Engine, p Preparation) (uint64, error)
}

func newTestCluster(t testing.TB, n int) *testCluster {
	t.Helper()
	c := &testCluster{Cluster: enginetest.NewCluster[*Engine](t, n)}
	for id := range uint64(n) {
		c.start(id+1, testHooks(id == 0))
	}
	c.Founded()
	ctx, cancel := context.WithTimeout(bg, await.Limit)
	defer cancel()
	for id := uint64(2); id <= uint64(n); id++ {
		if err := c.Leader().Assign(ctx, id, RoleVoter); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func (c *testCluster) start(id uint64, hooks Hooks) {
	c.T.Helper()
	cfg := Config{
		Dir:    c.Dirs[id],
		NodeID: id,
		Logger: slog.New(slog.DiscardHandler),
		Dial:   func(ctx context.Context, to uint64) (net.Conn, error) { return c.Net.Dial(ctx, id, to) },
		Ask:    func(ctx context.Context, ids []uint64, need int) bool { return c.Net.Ask(ctx, id, ids, need) },
		Schema: testSchema,
		Hooks:  hooks,
		Prepare: func(ctx context.Context, to uint64, p Preparation) (uint64, error) {
			heir := c.node(to)
			if heir == nil || c.Net.Isolated(to) {
				return 0, errors.New("unreachable")
			}
			if c.prepare != nil {
				return c.prepare(ctx, id, heir, p)
			}
			return heir.PrepareToLead(ctx, id, p)
		},
	}
	if testing.Verbose() {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("node", id)
	}
	e, err := Open(cfg)
	if err != nil {
		c.T.Fatal(err)
	}
	c.Set(id, e)
}

func (c *testCluster) node(id uint64) *Engine { return c.Node(id) }
func (c *testCluster) leader() *Engine        { c.T.Helper(); return c.Leader() }
func (c *testCluster) stop(id uint64)         { c.Stop(id) }

func (c *testCluster) eventually(what string, f func() error) {
	c.T.Helper()
	await.NoError(c.T, what, f)
}

// write writes a note and returns the request that it is known by.
func write(ctx context.Context, e *Engine) (string, error) {
	request := uuid.NewString()
	return request, e.Write(ctx, request, note(request))
}

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

// bench is a database on which transactions run as the writer would try them out.
type bench struct {
	t   testing.TB
	s   *session
	rev uint64
}

func newBench(t testing.TB, db *sql.DB) *bench {
	t.Helper()
	l, err := NewLocal(db, testSchema.Latest)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &bench{t: t, s: l.s}
}

// write runs fn as the writer does: all of it, or nothing when it fails.
func (b *bench) write(fn func(*Tx) error) (*Tx, error) {
	b.t.Helper()
	b.rev++
	b.exec("SAVEPOINT request")
	tx := (&View{s: b.s}).Offline(b.rev, nil)
	err := fn(tx)
	if err != nil {
		b.exec("ROLLBACK TO request")
	}
	b.exec("RELEASE request")
	return tx, err
}

func (b *bench) exec(query string, args ...any) {
	b.t.Helper()
	if _, err := b.s.exec(query, args...); err != nil {
		b.t.Fatalf("%s: %v", query, err)
	}
}

func contents(t testing.TB, s *session) map[string][]string {
	t.Helper()
	out, err := enginetest.Contents((&View{s: s}).plainQuery)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (v *View) plainQuery(query string) (*sql.Rows, error) { return v.Query(query) }

// agree waits until the leader's working copy and every node's own replica have the same content.
func (c *testCluster) agree() {
	c.T.Helper()
	c.Agree(func(l *Engine) (want map[string][]string, err error) {
		err = l.Read(bg, AsLeader, func(v *View) error { want = contents(c.T, v.s); return nil })
		return want, err
	}, func(e *Engine, want map[string][]string) error {
		ctx, cancel := context.WithTimeout(bg, 10*time.Second)
		defer cancel()
		return e.ReadReplica(ctx, func(v *View) error { return enginetest.Difference(want, contents(c.T, v.s)) })
	})
}

// integers reads one column of numbers on the leader.
func integers(t testing.TB, e *Engine, query string, args ...any) (list []int64) {
	t.Helper()
	err := e.Read(bg, AsLeader, func(v *View) (err error) {
		list, err = Collect(v, func(r *sql.Rows) (n int64, err error) { return n, r.Scan(&n) }, query, args...)
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
	go func() { done <- f() }()
	timer := time.NewTimer(answerLimit)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		t.Fatalf("%s: no answer within %v", what, answerLimit)
		return nil
	}
}
