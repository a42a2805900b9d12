package engine

import (
	"context"
	"slices"
	"sync"
)

// changes is the leader's feed of commits: the revision, and the revision at which each table last changed.
type changes struct {
	mu     sync.Mutex
	rev    uint64
	tables map[string]uint64
	base   uint64 // revision at which this process began to watch; a table that is not in the map last changed there
	wake   chan struct{}
}

func (c *changes) init() { c.tables, c.wake = map[string]uint64{}, make(chan struct{}) }

func (c *changes) revision() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rev
}

// reset begins the feed of a new leadership, which does not know what others have changed.
func (c *changes) reset(rev uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rev, c.base, c.tables = rev, rev, map[string]uint64{}
	c.broadcast()
}

func (c *changes) advance(rev uint64, tables map[string]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rev = rev
	for t := range tables {
		c.tables[t] = rev
	}
	c.broadcast()
}

func (c *changes) broadcast() {
	close(c.wake)
	c.wake = make(chan struct{})
}

// of returns the revision at which one of the tables last changed.
func (c *changes) of(tables ...string) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	rev := c.base
	for _, t := range tables {
		rev = max(rev, c.tables[t])
	}
	return rev
}

func (c *changes) wait() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wake
}

// Revision returns the newest revision that this member has committed as leader. It does not block.
func (e *Engine) Revision() uint64 { return e.changes.revision() }

// Since is a revision after which changes of some tables count.
type Since struct {
	Revision uint64
	Tables   []string
}

// AwaitChange blocks until one of the tables changes after the revision, the leadership ends or ctx ends. It returns
// the revision at which one of them last changed.
func (e *Engine) AwaitChange(ctx context.Context, after uint64, tables ...string) uint64 {
	e.AwaitChanges(ctx, Since{Revision: after, Tables: tables})
	return e.changes.of(tables...)
}

// AwaitChanges blocks until a table of one of the sets changes after the revision of that set, the leadership ends or
// ctx ends.
func (e *Engine) AwaitChanges(ctx context.Context, all ...Since) {
	for {
		wake, turned := e.changes.wait(), e.Leadership()
		changed := func(s Since) bool { return e.changes.of(s.Tables...) > s.Revision }
		if slices.ContainsFunc(all, changed) || !e.Leading() {
			return
		}
		select {
		case <-wake:
		case <-turned:
		case <-ctx.Done():
			return
		}
	}
}

// ChangedAt returns the revision at which one of the tables last changed, as far as this leader knows. It never returns
// less than an earlier leader did. It does not block.
func (e *Engine) ChangedAt(tables ...string) uint64 { return e.changes.of(tables...) }
