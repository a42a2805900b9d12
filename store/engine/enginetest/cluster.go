package enginetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"muster/internal/await"
)

// Member is a member of a Cluster.
type Member interface {
	comparable
	Node
	NodeID() uint64
	Leading() bool
	AwaitLeader(ctx context.Context) (uint64, error)
	Close(ctx context.Context) error
}

// Cluster is a set of members with real dqlite in one process, joined by a Net. How one is started, and what makes it a
// voter, is for the package that it belongs to.
type Cluster[M Member] struct {
	T    testing.TB
	Net  *Net
	Dirs map[uint64]string // of the members 1 to n

	mu    sync.Mutex
	nodes map[uint64]M // that run
}

// NewCluster makes directories for n members, of which none runs. What runs at the end of the test is closed.
func NewCluster[M Member](t testing.TB, n int) *Cluster[M] {
	t.Helper()
	c := &Cluster[M]{T: t, Net: New(), Dirs: map[uint64]string{}, nodes: map[uint64]M{}}
	base := t.TempDir()
	for id := uint64(1); id <= uint64(n); id++ {
		c.Dirs[id] = filepath.Join(base, fmt.Sprint(id))
		if err := os.MkdirAll(c.Dirs[id], 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(c.Close)
	return c
}

// Set makes m the member that runs as id.
func (c *Cluster[M]) Set(id uint64, m M) {
	c.Net.Set(id, m)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[id] = m
}

// Node is the member that runs as id; the zero value when none does.
func (c *Cluster[M]) Node(id uint64) M {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[id]
}

// Founded waits until member 1, which has just been started, leads.
func (c *Cluster[M]) Founded() {
	c.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), await.Limit)
	defer cancel()
	if _, err := c.Node(1).AwaitLeader(ctx); err != nil {
		c.T.Fatal("founder does not lead:", err)
	}
}

// Leader waits for the member that accepts writes and is not cut off.
func (c *Cluster[M]) Leader() (found M) {
	c.T.Helper()
	await.NoError(c.T, "a leader", func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		for id, m := range c.nodes {
			if !c.Net.Isolated(id) && m.Leading() {
				found = m
				return nil
			}
		}
		return errors.New("none leads")
	})
	return found
}

// Stop closes a member, if it runs.
func (c *Cluster[M]) Stop(id uint64) {
	c.mu.Lock()
	m, runs := c.nodes[id]
	delete(c.nodes, id)
	c.mu.Unlock()
	c.Net.Set(id, nil)
	if !runs {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := m.Close(ctx); err != nil {
		c.T.Error(err)
	}
}

// Close closes all that run.
func (c *Cluster[M]) Close() {
	for id := range c.Dirs {
		c.Stop(id)
	}
}

// Agree blocks until the replicas of all running members have the content of the leader. contents reads the leader's;
// replica compares a member's own with it.
func (c *Cluster[M]) Agree(contents func(leader M) (map[string][]string, error),
	replica func(m M, want map[string][]string) error) (want map[string][]string) {
	c.T.Helper()
	await.NoError(c.T, "all replicas have the same content", func() (err error) {
		l := c.Leader()
		if want, err = contents(l); err != nil {
			return err
		}
		for id := range c.Dirs {
			m := c.Node(id)
			if m == *new(M) {
				continue
			}
			if err := replica(m, want); err != nil {
				return fmt.Errorf("the working copy of node %d and dqlite's own copy on node %d: %w", l.NodeID(), id, err)
			}
		}
		return nil
	})
	return want
}
