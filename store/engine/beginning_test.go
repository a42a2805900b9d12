package engine

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"
)

// TestBeginningIsCommitted: what an earlier leadership has left in the log may be applied after a new one has copied
// the database. Its first commit is refused then, and it does not answer with a copy that lacks something.
func TestBeginningIsCommitted(t *testing.T) {
	c := newTestCluster(t, 1)
	if _, err := write(bg, c.leader()); err != nil {
		t.Fatal(err)
	}
	c.stop(1)
	hooks, late := testHooks(false), atomic.Bool{}
	hooks.Prepare = func(v *View) error { // the copy has been made
		if late.Swap(true) {
			return nil
		}
		var e *Engine
		c.eventually("the engine", func() error {
			if e = c.node(1); e == nil {
				return errors.New("it is being opened")
			}
			return nil
		})
		revision, err := v.revision()
		if err != nil {
			return err
		}
		db, err := e.node.open(bg)
		if err != nil {
			return err
		}
		defer db.close()
		return db.within(10*time.Second, func(conn *sql.Conn) error {
			_, err := conn.ExecContext(bg, fmt.Sprintf("BEGIN; UPDATE cluster SET revision = %d, batch_id = 'late'; "+
				"INSERT INTO notes (revision, seq, request) VALUES (%d, 1, 'late'); COMMIT", revision+1, revision+1))
			return err
		})
	}
	c.start(1, hooks)
	e := c.leader()
	ctx, cancel := context.WithTimeout(bg, 10*time.Second)
	defer cancel()
	if err := e.Read(ctx, Linearisable, func(v *View) error {
		there, err := noted(v, "late")
		if err == nil && !there {
			err = errors.New("what was applied late is not there")
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	if _, err := write(ctx, e); err != nil {
		t.Errorf("a write: %v", err)
	}
}
