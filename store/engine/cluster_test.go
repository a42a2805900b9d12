package engine

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

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
	t     testing.TB
	net   *enginetest.Net
	mu    sync.Mutex
	nodes map[uint64]*Engine
	dirs  map[uint64]string
	// prepare, if it is not nil, takes what node from asks of a voter before it hands over. It is set before it can be asked.
	prepare func(ctx context.Context, from uint64, heir *Engine, p Preparation) (uint64, error)
}

func newTestCluster(t testing.TB, n int) *testCluster {
	t.Helper()
	c := &testCluster{t: t, net: enginetest.New(), nodes: map[uint64]*Engine{}, dirs: map[uint64]string{}}
	base := t.TempDir()
	t.Cleanup(c.close)
	for id := uint64(1); id <= uint64(n); id++ {
		c.dirs[id] = filepath.Join(base, fmt.Sprint(id))
		if err := os.MkdirAll(c.dirs[id], 0o700); err != nil {
			t.Fatal(err)
		}
		c.start(id, testHooks(id == 1))
	}
	ctx, cancel := context.WithTimeout(bg, 10*time.Second)
	defer cancel()
	if _, err := c.nodes[1].AwaitLeader(ctx); err != nil {
		t.Fatal("founder does not lead:", err)
	}
	for id := uint64(2); id <= uint64(n); id++ {
		if err := c.leader().Assign(ctx, id, RoleVoter); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func (c *testCluster) start(id uint64, hooks Hooks) {
	c.t.Helper()
	cfg := Config{
		Dir:    c.dirs[id],
		NodeID: id,
		Logger: slog.New(slog.DiscardHandler),
		Dial:   func(ctx context.Context, to uint64) (net.Conn, error) { return c.net.Dial(ctx, id, to) },
		Ask:    func(ctx context.Context, ids []uint64, need int) bool { return c.net.Ask(ctx, id, ids, need) },
		Schema: testSchema,
		Hooks:  hooks,
		Prepare: func(ctx context.Context, to uint64, p Preparation) (uint64, error) {
			heir := c.node(to)
			if heir == nil || c.net.Isolated(to) {
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
		c.t.Fatal(err)
	}
	c.net.Set(id, e)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[id] = e
}

func (c *testCluster) node(id uint64) *Engine {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[id]
}

// leader waits for the node that accepts writes.
func (c *testCluster) leader() (found *Engine) {
	c.t.Helper()
	c.eventually("a leader", func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		for id, e := range c.nodes {
			if !c.net.Isolated(id) && e.Leading() {
				found = e
				return nil
			}
		}
		return errors.New("none leads")
	})
	return found
}

func (c *testCluster) eventually(what string, f func() error) {
	c.t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (c *testCluster) stop(id uint64) {
	c.mu.Lock()
	e := c.nodes[id]
	delete(c.nodes, id)
	c.mu.Unlock()
	c.net.Set(id, nil)
	if e != nil {
		ctx, cancel := context.WithTimeout(bg, 2*time.Second)
		defer cancel()
		if err := e.Close(ctx); err != nil {
			c.t.Error(err)
		}
	}
}

func (c *testCluster) close() {
	for id := range c.dirs {
		c.stop(id)
	}
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
	c.t.Helper()
	c.eventually("all replicas have the same content", func() error {
		want := map[string][]string{}
		l := c.leader()
		if err := l.Read(bg, AsLeader, func(v *View) error { want = contents(c.t, v.s); return nil }); err != nil {
			return err
		}
		for id := range c.dirs {
			e := c.node(id)
			if e == nil {
				continue
			}
			ctx, cancel := context.WithTimeout(bg, 10*time.Second)
			err := e.ReadReplica(ctx, func(v *View) error { return enginetest.Difference(want, contents(c.t, v.s)) })
			cancel()
			if err != nil {
				return fmt.Errorf("the working copy of node %d and dqlite's own copy on node %d: %w", l.NodeID(), id, err)
			}
		}
		return nil
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
