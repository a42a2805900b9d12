package engine

import (
	"context"
	"sync"
)

// memory caches results of reads while their tables do not change. It belongs to one leadership, whose writer alone
// changes them.
type memory struct{ m sync.Map }

// remembered is a cached result, or one that is being read.
type remembered struct {
	rev   uint64
	ready chan struct{} // closed when value and err are set
	value any
	err   error
}

// Recall is Read with a cache, for frequent reads. The leader answers from memory if none of the tables has changed
// since it last read; of concurrent callers with the same key, one reads. Callers must not modify the result. It
// returns the errors of Read and of load.
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
			if r.err != nil { // of another caller, perhaps because of its deadline
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
