package engine

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// replicaBytes returns the whole replica of a node as its dqlite server has it, and as copyReplica makes it.
func (c *testCluster) replicaBytes(id uint64) (dumped, copied []byte, at point) {
	c.T.Helper()
	dir, n := c.T.TempDir(), c.node(id)
	if _, err := n.node.dumpInto(bg, filepath.Join(dir, "dumped"), point{}); err != nil {
		c.T.Fatal(err)
	}
	at, err := n.copyReplica(bg, filepath.Join(dir, "copied"))
	if err != nil {
		c.T.Fatal(err)
	}
	for name, content := range map[string]*[]byte{"dumped": &dumped, "copied": &copied} {
		if *content, err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			c.T.Fatal(err)
		}
	}
	return dumped, copied, at
}

// mirrorHeld waits until a node's mirror is known to be its replica at a point, and returns the point.
func (c *testCluster) mirrorHeld(id uint64) (at point) {
	c.T.Helper()
	c.eventually(fmt.Sprintf("the mirror of node %d is a copy of its replica", id), func() error {
		m := c.node(id).Mirror
		m.mu.Lock()
		defer m.mu.Unlock()
		if at = m.base.at; at == (point{}) {
			return fmt.Errorf("it is at %v", at)
		}
		return nil
	})
	return at
}

// A mirror that is brought up to date with the pages that have changed is the same, byte for byte, as a dump of all
// pages: on the leader and on others, when the database grows, shrinks and grows again, and after a checkpoint.
func TestCopyReplica(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, 3)
	texts := []struct {
		text  string
		times int
	}{
		{"CREATE TABLE IF NOT EXISTS heap (n INTEGER PRIMARY KEY, b TEXT)", 1},
		{"INSERT INTO heap (b) VALUES (printf('%0100000d', 1))", 1},
		{"INSERT INTO heap (b) VALUES ('2'), ('3')", 1},
		{"UPDATE heap SET b = '4' WHERE n = 2", 1},
		{"UPDATE heap SET b = printf('%0100000d', substr(b, -3) + 1) WHERE n = 1", 50}, // dqlite makes a checkpoint
		{"DELETE FROM heap", 1},
		{"INSERT INTO heap (b) VALUES (printf('%0150000d', 5))", 1},
	}
	for _, x := range texts {
		for i := range x.times {
			c.eventually("written", func() error {
				return c.leader().Write(bg, fmt.Sprint(i, x.text), func(tx *Tx) error { _, err := tx.Exec(x.text); return err })
			})
		}
		c.agree()
		for id := range uint64(3) {
			history := c.mirrorHeld(id + 1).history
			dumped, copied, at := c.replicaBytes(id + 1)
			if !bytes.Equal(dumped, copied) {
				t.Fatalf("node %d after %q: %d and %d bytes differ", id+1, x.text, len(dumped), len(copied))
			}
			if at.history != history {
				t.Errorf("node %d after %q: the history is another one", id+1, x.text)
			}
		}
	}
}

// Somebody who writes to the mirror changes neither the next mirror nor a working copy.
func TestForeignWriteToMirror(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, 1)
	e := c.leader()
	c.mirrorHeld(1)
	for _, damage := range []func(path string) error{
		func(path string) error { // as an operator might, where times of files are whole seconds
			info, err := os.Stat(path)
			if err != nil {
				return err
			}
			db, err := sql.Open("sqlite3", FileURL(path, ""))
			if err != nil {
				return err
			}
			_, err = db.Exec("UPDATE notes SET request = 'foreign'")
			return errors.Join(err, db.Close(), os.Chtimes(path, info.ModTime(), info.ModTime()))
		},
		func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteAt([]byte("foreign"), 5000)
			return err
		},
		os.Remove,
		func(path string) error { return os.WriteFile(path, []byte("foreign"), 0o600) },
		func(path string) error { return os.Truncate(path, 512) },
	} {
		c.mirrorHeld(1)
		if err := damage(e.Mirror.Path()); err != nil {
			t.Fatal(err)
		}
		if dumped, copied, _ := c.replicaBytes(1); !bytes.Equal(dumped, copied) {
			t.Error("a copy of the replica has the foreign bytes")
		}
		turned := e.Mirror.Changed()
		c.eventually("written", func() error { _, err := write(bg, e); return err })
		select {
		case <-turned:
		case <-time.After(time.Minute):
			t.Fatal("the mirror is not renewed")
		}
	}
}
