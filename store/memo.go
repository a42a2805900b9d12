package store

import (
	"context"
	"sync"
)

// memory keeps results of reads for as long as the tables behind them do not change. It belongs to one
// leadership, whose writer is the only one that can change them.
type memory struct{ m sync.Map }

type remembered struct {
	rev   uint64
	value any
}

// memo answers from memory when none of the tables has changed since. Callers must not modify what it returns.
// It reads like Peek: a linearisable read confirms the leadership first.
func memo[T any](ctx context.Context, s *Store, key string, tables []string, load func(*View) (T, error)) (T, error) {
	var zero T
	l := s.current()
	if l == nil {
		return zero, ErrNotLeader
	}
	rev := s.changes.of(tables...)
	if r, ok := l.memory.m.Load(key); ok && r.(remembered).rev == rev {
		return r.(remembered).value.(T), nil
	}
	var value T
	err := l.work.read(ctx, s.cfg.Now(), func(v *View) (err error) {
		value, err = load(v)
		return err
	})
	if err != nil {
		return zero, err
	}
	l.memory.m.Store(key, remembered{rev, value})
	return value, nil
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
