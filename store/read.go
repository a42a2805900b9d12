package store

import "context"

// Consistency says which state a read may be answered from.
type Consistency int

const (
	// Linearisable reads see every write that was answered before they began. Only the leader answers them.
	Linearisable Consistency = iota
	// Stale reads are answered at once from the local mirror, with or without a leader.
	Stale
)

// Read runs fn on one consistent state. A linearisable read returns ErrNotLeader on other members and
// ErrNoLeader when a majority does not confirm this leader within a second; it blocks for that long at most.
func (s *Store) Read(ctx context.Context, c Consistency, fn func(*View) error) error {
	if c == Stale {
		return s.mirror.read(ctx, s.cfg.Now(), fn)
	}
	if err := s.Confirm(ctx); err != nil {
		return err
	}
	return s.Peek(ctx, fn)
}

// Confirm returns nil when this member leads and a majority has confirmed it after the call began: what Peek
// reads next is linearisable. Concurrent callers share one question to the voters.
func (s *Store) Confirm(ctx context.Context) error {
	l := s.current()
	if l == nil {
		return ErrNotLeader
	}
	return l.reads.confirm(ctx)
}

// Peek reads the leader's working copy without asking the voters. It is for what is checked again inside a
// transaction, and for credentials, where a deposed leader's answer is as good as one a moment earlier.
func (s *Store) Peek(ctx context.Context, fn func(*View) error) error {
	l := s.current()
	if l == nil {
		return ErrNotLeader
	}
	return l.work.read(ctx, s.cfg.Now(), fn)
}
