package engine

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// request is one write that waits for the writer or is being committed.
type request struct {
	id    string
	fn    func(*Tx) error
	taken atomic.Bool // by the writer, or by its caller, which no longer waits
	tx    *Tx
	done  chan error

	mu   sync.Mutex // held while fn runs
	left bool       // the caller no longer waits: fn must not run
	ran  bool       // fn has changed something, which may be committed
}

// leave ends the wait of a caller whose request the writer has taken. It reports whether the changes of fn may still be
// committed.
func (r *request) leave() (mayHappen bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left = true
	return r.ran
}

var errLeft = errors.New("engine: the caller of this request has gone")

// commitGrace is how long a caller whose context has ended waits for a commit in progress.
const commitGrace = 100 * time.Millisecond

// await waits for the writer's answer until ctx ends.
func (r *request) await(ctx context.Context, l *leadership) error {
	select {
	case err := <-r.done:
		return err
	case <-l.ctx.Done():
		if !r.taken.Swap(true) {
			return ErrNotLeader
		}
	case <-ctx.Done():
		if !r.taken.Swap(true) {
			return ErrNoLeader
		}
	}
	select { // the writer has taken it and will answer
	case err := <-r.done:
		return err
	case <-ctx.Done():
	}
	grace := time.NewTimer(commitGrace)
	defer grace.Stop()
	select {
	case err := <-r.done:
		return err
	case <-grace.C:
	}
	if r.leave() {
		return ErrUnknownOutcome
	}
	return ErrNoLeader
}

// run runs fn, unless the caller has gone.
func (r *request) run(tx *Tx) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.left {
		return errLeft
	}
	err := r.fn(tx)
	r.ran = r.ran || err == nil && len(tx.recorded) > 0
	return err
}

// Effects records whether the writes of one request have changed anything. An error that promises no change is about
// one write only, not about those before it.
type Effects struct{ changed atomic.Bool }

// Changed reports whether a write has changed something or may have.
func (e *Effects) Changed() bool { return e.changed.Load() }

type effectsKey struct{}

// WithEffects returns a context whose writes are recorded in the Effects.
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

// resolvePause is how long resolve waits before its first look, and a tenth of the longest pause between two looks.
// Each look dumps the replica.
const resolvePause = 10 * time.Millisecond

// resolve finds out whether a batch whose commit failed was committed. Once the local replica shows a later epoch,
// every entry of the old one is decided: the batch's first request is in the database or never will be.
func (e *Engine) resolve(epoch, rev uint64, r *request, answer func(error)) {
	deadline := time.Now().Add(resolveTimeout)
	for wait := resolvePause; time.Now().Before(deadline) && !e.closing.Load(); wait = min(2*wait, 10*resolvePause) {
		time.Sleep(wait)
		ctx, cancel := context.WithDeadline(context.Background(), deadline)
		committed, later, err := e.outcome(ctx, epoch, rev, r.id)
		cancel()
		switch {
		case err != nil:
		case committed:
			answer(nil)
			return
		case later:
			answer(ErrNotLeader)
			return
		}
	}
	answer(ErrUnknownOutcome)
}

// outcome looks for the batch in the replica, or in the working copy when this member leads again.
func (e *Engine) outcome(ctx context.Context, epoch, rev uint64, id string) (committed, later bool, err error) {
	find := func(v *View) error {
		if committed, err = e.hooks.Happened(v, rev, id); err != nil {
			return err
		}
		var now uint64
		_, err = v.Get("SELECT epoch FROM cluster", nil, &now)
		later = now > epoch
		return err
	}
	if l := e.current(); l != nil && l.epoch > epoch {
		err = l.work.withReader(ctx, func(r *session) error { return find(&View{s: r, Now: e.cfg.Now()}) })
	} else if err = e.decided(ctx); err == nil {
		err = e.ReadReplica(ctx, find)
	}
	return committed, later, err
}
