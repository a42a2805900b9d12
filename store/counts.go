package store

import (
	"fmt"
	"sync"
)

// counts knows of what is bounded how many rows there are at most, so that not every row that is added has all counted.
// It belongs to the leader, whose writer is the only one that adds any.
type counts struct {
	mu   sync.Mutex
	most map[string]*count
}

type count struct {
	rows   uint64 // at most: those that were counted, and those that were to be added since
	checks uint64 // that are left until they are counted again
}

const (
	minCountChecks = 256     // a count is good for that many additions, or for an eighth of what was counted
	maxCounts      = 100_000 // that are remembered
)

// forget is for a leadership that begins: nothing is known of what others have added.
func (c *counts) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.most = nil
}

// add notes that one more is to be added and reports whether there are surely fewer than a limit. If not, they must be
// counted. A row whose transaction fails stays noted until the next count.
func (c *counts) add(key string, limit uint64) bool {
	if c == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.most[key]
	if n == nil || n.checks == 0 || n.rows >= limit {
		return false
	}
	n.rows++
	n.checks--
	return true
}

// set notes what was counted just before one more is added.
func (c *counts) set(key string, rows uint64) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.most == nil || len(c.most) >= maxCounts {
		c.most = map[string]*count{}
	}
	c.most[key] = &count{rows: rows + 1, checks: max(minCountChecks, rows/8)}
}

// bound refuses one more row where a query counts as many as a setting allows.
func (t *Tx) bound(option, what, query string, args ...any) error {
	most, err := t.number(option)
	if err != nil {
		return err
	}
	key := option + fmt.Sprint(args...)
	if t.counts.add(key, most) {
		return nil
	}
	var have uint64
	if _, err := t.get(query, args, &have); err != nil {
		return err
	}
	if have >= most {
		return refuse(Full, "there are %d %s, and the setting %s allows no more", have, what, option)
	}
	t.counts.set(key, have)
	return nil
}
