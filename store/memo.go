package store

import (
	"context"
	"sync"
)

// memory keeps results of reads for as long as the tables behind them do not change. It belongs to one
// leadership, whose writer is the only one that can change them.
type memory struct{ m sync.Map }

// remembered is a result, or one that somebody is reading now.
type remembered struct {
	rev   uint64
	ready chan struct{} // closed when value and err are there
	value any
	err   error
}

// memo answers from memory when none of the tables has changed since; of those who ask for the same at a time, one reads.
// Callers must not modify what it returns. It reads like Peek: a linearisable read confirms the leadership first.
func memo[T any](ctx context.Context, s *Store, key string, tables []string, load func(*View) (T, error)) (value T, err error) {
	l := s.current()
	if l == nil {
		return value, ErrNotLeader
	}
	for {
		mine := &remembered{rev: s.changes.of(tables...), ready: make(chan struct{})}
		found, ok := l.memory.m.LoadOrStore(key, mine)
		r := found.(*remembered)
		if ok && r.rev == mine.rev {
			select {
			case <-r.ready:
			case <-ctx.Done():
				return value, ErrNoLeader
			}
			if r.err != nil { // the other's, perhaps for its own deadline
				continue
			}
			return r.value.(T), nil
		}
		if ok && !l.memory.m.CompareAndSwap(key, r, mine) {
			continue
		}
		err = l.work.read(ctx, s.cfg.Now(), func(v *View) (err error) {
			value, err = load(v)
			return err
		})
		mine.value, mine.err = value, err
		if err != nil { // not remembered
			l.memory.m.CompareAndDelete(key, mine)
		}
		close(mine.ready)
		return value, err
	}
}

// recall is a read of a noun: linearisable from memory, or stale from the mirror.
func recall[T any](ctx context.Context, s *Store, c Consistency, key string, tables []string, load func(*View) (T, error)) (value T, err error) {
	if c == Stale {
		err = s.mirror.read(ctx, s.cfg.Now(), func(v *View) (err error) {
			value, err = load(v)
			return err
		})
		return value, err
	}
	if err := s.Confirm(ctx); err != nil {
		return value, err
	}
	return memo(ctx, s, key, tables, load)
}
