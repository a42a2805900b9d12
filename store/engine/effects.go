package engine

import (
	"context"
	"errors"
	"sync/atomic"
)

// Effects remembers whether the writes of one request have changed anything: an error that says that nothing happened
// says so of one write, not of those before it.
type Effects struct{ changed atomic.Bool }

// Changed reports whether a write has changed something, or may have.
func (e *Effects) Changed() bool { return e.changed.Load() }

type effectsKey struct{}

// WithEffects returns a context whose writes note in the Effects what they do.
func WithEffects(ctx context.Context) (context.Context, *Effects) {
	e := &Effects{}
	return context.WithValue(ctx, effectsKey{}, e), e
}

func noteEffect(ctx context.Context, r *request, err error) {
	e, _ := ctx.Value(effectsKey{}).(*Effects)
	if e == nil {
		return
	}
	if errors.Is(err, ErrUnknownOutcome) || err == nil && r.tx != nil && len(r.tx.recorded) > 0 {
		e.changed.Store(true)
	}
}
