package engine

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

// Recall is Read for what is asked for again and again: the leader answers from memory when none of the tables has
// changed since it last read; of those who ask for the same at a time, one reads. Callers must not modify what it
// returns.
func Recall[T any](ctx context.Context, e *Engine, c Consistency, key string, tables []string,
	load func(*View) (T, error)) (value T, err error) {
	switch c {
	case Stale:
		err = e.Mirror.read(ctx, e.cfg.Now(), func(v *View) (err error) {
			value, err = load(v)
			return err
		})
		return value, err
	case Linearisable:
		if err := e.Confirm(ctx); err != nil {
			return value, err
		}
	}
	return remember(ctx, e, key, tables, load)
}

func remember[T any](ctx context.Context, e *Engine, key string, tables []string,
	load func(*View) (T, error)) (value T, err error) {
	l := e.current()
	if l == nil {
		return value, ErrNotLeader
	}
	for {
		mine := &remembered{rev: e.changes.of(tables...), ready: make(chan struct{})}
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
		err = l.work.read(ctx, e.cfg.Now(), func(v *View) (err error) {
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
