package engine

import (
	"context"
	"time"
)

// resolvePause is how long resolve waits before its first look, and a tenth of the longest pause between two looks:
// each dumps the replica.
const resolvePause = 10 * time.Millisecond

// resolve finds out what became of a batch whose commit failed. Once the local replica shows a later epoch,
// every entry of the old one is decided: the batch's first request has left its mark or never will.
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
