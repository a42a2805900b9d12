package engine

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
)

// Consistency is the state that a read may be answered from.
type Consistency int

const (
	// Linearisable reads see every write that was answered before they began. Only the leader answers them.
	Linearisable Consistency = iota
	// AsLeader reads are answered by the leader without asking the voters. They are for what is checked again in a
	// transaction, and for credentials, where a deposed leader's answer is as good as one a moment earlier.
	AsLeader
	// Stale reads are answered at once from the local mirror, with or without a leader.
	Stale
)

// Read runs fn on one consistent state. Reads that are not stale return ErrNotLeader on other members. A linearisable
// read blocks until a majority confirms this leadership, for at most a second, and else returns ErrNoLeader.
func (e *Engine) Read(ctx context.Context, c Consistency, fn func(*View) error) error {
	switch c {
	case Stale:
		return e.Mirror.read(ctx, e.cfg.Now(), fn)
	case Linearisable:
		if err := e.Confirm(ctx); err != nil {
			return err
		}
	}
	l := e.current()
	if l == nil {
		return ErrNotLeader
	}
	return l.work.read(ctx, e.cfg.Now(), fn)
}

// Local runs fn on the leader's working copy or, elsewhere, on the mirror. It asks no other member.
func (e *Engine) Local(ctx context.Context, fn func(*View) error) error {
	if err := e.Read(ctx, AsLeader, fn); !errors.Is(err, ErrNotLeader) {
		return err
	}
	return e.Read(ctx, Stale, fn)
}

// Confirm returns nil when this member leads and a majority has confirmed it after the call began: the next AsLeader
// read is then linearisable. Concurrent callers share one question to the voters.
func (e *Engine) Confirm(ctx context.Context) error {
	l := e.current()
	if l == nil {
		return ErrNotLeader
	}
	return l.reads.confirm(ctx)
}

// Copy writes the state to a new file with mode 0600.
func (e *Engine) Copy(ctx context.Context, c Consistency, path string) error {
	if c == Stale {
		return e.Mirror.copyTo(path)
	}
	if c == Linearisable {
		if err := e.Confirm(ctx); err != nil {
			return err
		}
	}
	l := e.current()
	if l == nil {
		return ErrNotLeader
	}
	if err := l.work.copyTo(ctx, path); err != nil {
		return err
	}
	return plainHeader(path)
}

func (m *Mirror) copyTo(path string) error {
	src, err := os.Open(m.path) // a newer mirror replaces the name, not this file
	if errors.Is(err, os.ErrNotExist) {
		return ErrNoLeader
	}
	if err != nil {
		return err
	}
	defer src.Close()
	return copyFile(src, path)
}

// copyFile copies to a new file with mode 0600. The kernel does it, on some file systems without copying the contents.
func copyFile(src *os.File, path string) error {
	dst, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}

// confirmer makes concurrent reads share one question to the voters. A read joins the round that begins after it, never
// one in progress.
type confirmer struct {
	ask     func() error
	mu      sync.Mutex
	running bool
	next    *round
	rounds  atomic.Uint64
}

type round struct {
	done chan struct{}
	err  error
}

func (c *confirmer) confirm(ctx context.Context) error {
	c.mu.Lock()
	if c.next == nil {
		c.next = &round{done: make(chan struct{})}
	}
	r := c.next
	if !c.running {
		c.running = true
		go c.run()
	}
	c.mu.Unlock()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return ErrNoLeader
	}
}

func (c *confirmer) run() {
	for {
		c.mu.Lock()
		r := c.next
		c.next = nil
		if r == nil {
			c.running = false
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		c.rounds.Add(1)
		r.err = c.ask()
		close(r.done)
	}
}

// confirmMajority asks the voters which leader they follow. If a majority follows this node after the read has begun,
// no other leader can have answered a write that the working copy lacks: a majority would follow that leader (Raft,
// Ongaro 2014, section 6.4, with the question instead of a heartbeat).
func (l *leadership) confirmMajority() error {
	e := l.engine
	var others []uint64
	voters := 0
	for _, v := range e.Servers() {
		if v.Role != RoleVoter {
			continue
		}
		voters++
		if v.NodeID != e.cfg.NodeID {
			others = append(others, v.NodeID)
		}
	}
	if voters == 0 {
		return ErrNoLeader // the configuration is not known yet
	}
	need := voters/2 + 1
	ctx, cancel := context.WithTimeout(l.ctx, askTimeout)
	defer cancel()
	if id, err := e.FollowsNow(ctx); err != nil || id != e.cfg.NodeID {
		return ErrNotLeader
	}
	if need > 1 && (e.cfg.Ask == nil || !e.cfg.Ask(ctx, others, need-1)) {
		return ErrNoLeader
	}
	if !e.unbroken() { // this process was suspended: the working copy may be outdated
		e.Look()
		return ErrNoLeader
	}
	return nil
}

// verify asks dqlite whether this leadership is still the newest.
func (l *leadership) verify(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	db, err := l.engine.node.open(ctx)
	if err != nil {
		return false
	}
	defer db.close()
	var epoch uint64
	err = db.within(askTimeout, func(c *sql.Conn) error {
		return c.QueryRowContext(ctx, "SELECT epoch FROM cluster").Scan(&epoch)
	})
	return err == nil && epoch == l.epoch
}
