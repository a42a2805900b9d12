package engine

import (
	"context"
	"errors"
	"io"
	"os"
)

// Consistency says which state a read may be answered from.
type Consistency int

const (
	// Linearisable reads see every write that was answered before they began. Only the leader answers them.
	Linearisable Consistency = iota
	// AsLeader reads are answered by the leader without asking the voters. They are for what is checked again inside a
	// transaction, and for credentials, where a deposed leader's answer is as good as one a moment earlier.
	AsLeader
	// Stale reads are answered at once from the local mirror, with or without a leader.
	Stale
)

// Read runs fn on one consistent state. Reads that are not stale return ErrNotLeader on other members. A linearisable
// one returns ErrNoLeader when a majority does not confirm this leader within a second; it blocks for that long at
// most.
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

// Local reads the leader's working copy or, elsewhere, the mirror, whichever is there; it asks nobody.
func (e *Engine) Local(ctx context.Context, fn func(*View) error) error {
	if err := e.Read(ctx, AsLeader, fn); !errors.Is(err, ErrNotLeader) {
		return err
	}
	return e.Read(ctx, Stale, fn)
}

// Confirm returns nil when this member leads and a majority has confirmed it after the call began: what is read
// AsLeader next is linearisable. Concurrent callers share one question to the voters.
func (e *Engine) Confirm(ctx context.Context) error {
	l := e.current()
	if l == nil {
		return ErrNotLeader
	}
	return l.reads.confirm(ctx)
}

// Copy writes the state to a new file, which is readable by its owner only.
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
	src, err := os.Open(m.path) // a newer mirror takes the name, not this file
	if errors.Is(err, os.ErrNotExist) {
		return ErrNoLeader
	}
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}
