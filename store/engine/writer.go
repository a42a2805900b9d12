package engine

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/canonical/go-dqlite/v3/driver"
	"github.com/google/uuid"
)

const (
	// batchLimit bounds how many requests share a transaction, and so how long one commit can take.
	batchLimit = 256
	// gatherPause is the silence, and gatherAtMost the time, after which a batch is no longer waited for.
	gatherPause  = time.Millisecond
	gatherAtMost = 5 * time.Millisecond
)

type request struct {
	id    string
	fn    func(*Tx) error
	taken atomic.Bool // by the writer, or by a caller that no longer waits
	tx    *Tx
	done  chan error

	mu   sync.Mutex // held while fn runs
	left bool       // the caller has gone: fn must not run any more
	ran  bool       // fn has changed something, which is committed or not
}

// leave ends the wait of a caller whose request the writer has taken. It reports whether what fn has done may be
// committed: if not, it never will be.
func (r *request) leave() (mayHappen bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left = true
	return r.ran
}

var errLeft = errors.New("engine: nobody waits for this request")

// commitGrace is how long a caller whose time is up waits for a commit that is under way.
const commitGrace = 100 * time.Millisecond

// Write runs fn in a transaction on the leader and returns when a majority has committed it, or when it is
// certain that nothing happened. fn must not block, and may run again after a change of leader. id names the request:
// Hooks.Happened may be asked for it later. Write returns ErrNotLeader on other members, ErrUnknownOutcome when
// leadership was lost in the middle or ctx has ended while a majority was being waited for, and whatever fn returns, in
// which case fn's statements have no effect.
func (e *Engine) Write(ctx context.Context, id string, fn func(*Tx) error) error {
	l := e.current()
	if l == nil {
		return ErrNotLeader
	}
	if ctx.Err() != nil { // a select between two ready channels takes either
		return ErrNoLeader
	}
	r := &request{id: id, fn: fn, done: make(chan error, 1)}
	select {
	case l.queue <- r:
	case <-l.ctx.Done():
		return ErrNotLeader
	case <-ctx.Done():
		return ErrNoLeader
	}
	err := r.await(ctx, l)
	noteEffect(ctx, r, err)
	return err
}

// await waits for the writer's answer, for as long as ctx lets it.
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
	select { // the writer has it and will answer
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

// write is the single writer: it takes what waits, commits it as one transaction and answers all.
func (l *leadership) write() {
	defer close(l.done)
	for {
		batch := l.collect()
		if len(batch) == 0 {
			return
		}
		if err := l.commit(batch); err != nil {
			l.engine.log.Warn("a commit failed; leadership starts afresh", "requests", len(batch), "err", err)
			go l.engine.descend(ErrNotLeader)
			<-l.ctx.Done()
			return
		}
		l.expected = len(batch) + len(l.queue)
	}
}

// collect waits for a request and returns it with all others that wait. A commit costs the same whatever is in it, and
// most callers come back as soon as they are answered: collect waits a moment for as many requests as the last batch
// had, while they keep arriving. It returns nothing when the leadership ends; callers of requests that were not taken
// get their answer from await.
func (l *leadership) collect() []*request {
	var batch []*request
	take := func(r *request) {
		if !r.taken.Swap(true) {
			batch = append(batch, r)
		}
	}
	for len(batch) == 0 {
		select {
		case r := <-l.queue:
			take(r)
		case <-l.ctx.Done():
			return nil
		}
	}
	expected := min(l.expected, batchLimit)
	deadline := time.Now().Add(gatherAtMost)
	for len(batch) < batchLimit {
		select {
		case r := <-l.queue:
			take(r)
			continue
		default:
		}
		if len(batch) >= expected || time.Now().After(deadline) {
			return batch
		}
		pause := time.NewTimer(gatherPause)
		select {
		case r := <-l.queue:
			take(r)
			pause.Stop()
		case <-pause.C:
			return batch
		}
	}
	return batch
}

// commit tries the requests out on the working copy, each in a savepoint of one transaction, sends what they
// changed to dqlite as one text, and answers. An error means that the working copy can no longer be trusted;
// all requests have been answered then, too.
func (l *leadership) commit(batch []*request) error {
	e := l.engine
	now := e.cfg.Now().UTC()
	w := l.work.writer
	if _, err := w.exec("BEGIN IMMEDIATE"); err != nil {
		return answerAll(batch, fmt.Errorf("begin: %w", err))
	}
	first := uint64(1)
	rev := e.changes.revision() + 1
	var changed, unchanged []*request
	var work script
	refused := map[*request]error{}
	for _, r := range batch {
		tx, err := l.try(r, now, rev, first)
		switch {
		case err != nil:
			// It may have been refused for what an earlier request of the batch has done, which is not certain yet.
			refused[r] = err
		case len(tx.recorded) == 0:
			unchanged = append(unchanged, r)
		default:
			first = tx.next
			changed = append(changed, r)
			for _, st := range tx.recorded {
				work.add(st)
			}
		}
	}
	answer := func(err error) {
		for _, r := range append(changed, unchanged...) {
			r.done <- err
		}
		for r, own := range refused {
			if err == nil {
				r.done <- own
			} else {
				r.done <- err
			}
		}
	}
	if len(changed) == 0 {
		if _, err := w.exec("ROLLBACK"); err != nil {
			answer(err)
			return err
		}
		// No commit proves that this leader's state is the newest; the voters do.
		go func() {
			ctx, cancel := context.WithTimeout(l.ctx, time.Second)
			defer cancel()
			if l.reads.confirm(ctx) != nil {
				answer(ErrNotLeader)
				return
			}
			answer(nil)
		}()
		return nil
	}
	if rev > 1 { // the founding transaction inserts the row
		batchID := uuid.NewString()
		if _, err := w.exec(raiseRevision, int64(rev), batchID); err != nil {
			answer(err)
			return err
		}
		work.add(Statement{Query: raiseRevision, Args: []any{int64(rev), batchID}, key: "revision"})
	}
	text, err := work.text()
	if err != nil {
		answer(err)
		return err
	}

	begin := time.Now()
	err = l.db.within(commitTimeout+time.Duration(len(text)>>20)*commitPerMiB, func(c *sql.Conn) error {
		_, err := c.ExecContext(context.Background(), text)
		return err
	})
	if refused, retry := rejected(err); refused && !retry {
		return l.oneByOne(batch, answer, err)
	} else if err != nil {
		_, _ = w.exec("ROLLBACK")
		e.metrics.failed.Inc()
		e.lost.Store(time.Now().UnixNano()) // what the replica shows from now on may lack what is not decided yet
		l.db.cut()                          // whatever dqlite still holds open for this connection goes with it
		if refused {
			answer(ErrNotLeader)
		} else {
			go e.resolve(l.epoch, rev, changed[0], answer)
		}
		return fmt.Errorf("commit: %w", err)
	}
	for _, r := range changed {
		for _, f := range r.tx.committed {
			f()
		}
	}
	if _, err := w.exec("COMMIT"); err != nil {
		answer(nil) // the cluster has it; only the working copy is behind
		return fmt.Errorf("commit to the working copy: %w", err)
	}
	e.metrics.committed(time.Since(begin))
	e.metrics.batch.Observe(float64(len(changed)))
	e.metrics.refused.Add(float64(len(refused)))
	e.changes.advance(rev, work.tables)
	answer(nil)
	e.hooks.Committed()
	return nil
}

// oneByOne is for a batch of which SQLite has refused a statement at dqlite that the working copy had accepted, as a
// deferred foreign key is checked at COMMIT only. Nothing was replicated. Each request gets a transaction of its own, so
// that the error stays with the one that caused it.
func (l *leadership) oneByOne(batch []*request, answer func(error), cause error) error {
	err := l.db.within(commitTimeout, func(c *sql.Conn) error {
		_, err := c.ExecContext(context.Background(), "ROLLBACK")
		return err
	})
	if err == nil || strings.Contains(err.Error(), "no transaction is active") {
		_, err = l.work.writer.exec("ROLLBACK")
	}
	if err != nil {
		answer(ErrNotLeader)
		return err
	}
	if len(batch) == 1 {
		answer(fmt.Errorf("commit: %w", cause))
		return nil
	}
	for i, r := range batch {
		if err := l.commit([]*request{r}); err != nil {
			_ = answerAll(batch[i+1:], ErrNotLeader)
			return err
		}
	}
	return nil
}

// rejected reports whether SQLite itself refused a statement of the batch, so that nothing was committed; other errors
// leave the outcome open. A repetition may succeed after one refusal only, that of the trigger on the revision: another
// leader has written in between.
func rejected(err error) (refused, retry bool) {
	var e driver.Error
	if !errors.As(err, &e) {
		return false, false
	}
	switch e.Code & 0xff {
	case 1, 18, 19, 20: // SQLITE_ERROR, TOOBIG, CONSTRAINT, MISMATCH
		return true, e.Code == constraintTrigger
	}
	return false, false
}

const constraintTrigger = 1811 // SQLITE_CONSTRAINT_TRIGGER

const raiseRevision = "UPDATE cluster SET revision = ?, batch_id = ?"

// try runs one request in its savepoint. A refusal or a panic takes back that request alone.
func (l *leadership) try(r *request, now time.Time, rev, next uint64) (tx *Tx, err error) {
	w := l.work.writer
	if _, err := w.exec("SAVEPOINT request"); err != nil {
		return nil, err
	}
	tx = &Tx{View: View{s: w, Now: now}, Rev: rev, next: next, check: l.engine.hooks.Check}
	defer func() {
		if p := recover(); p != nil {
			l.engine.log.Error("panic in a transaction", "panic", p, "stack", string(debug.Stack()))
			err = errors.New("engine: panic in a transaction")
		}
		if err != nil {
			if _, e := w.exec("ROLLBACK TO request"); e != nil {
				err = errors.Join(err, e)
			}
		}
		if _, e := w.exec("RELEASE request"); e != nil {
			err = errors.Join(err, e)
		}
	}()
	if err := r.run(tx); err != nil {
		return nil, err
	}
	r.tx = tx
	return tx, nil
}

// run runs fn, unless nobody waits for it any more.
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

func answerAll(batch []*request, err error) error {
	for _, r := range batch {
		r.done <- err
	}
	return err
}

// resolve finds out what became of a batch whose commit failed. Once the local replica shows a later epoch,
// every entry of the old one is decided: the batch's first request has left its mark or never will.
func (e *Engine) resolve(epoch, rev uint64, r *request, answer func(error)) {
	deadline := time.Now().Add(resolveTimeout)
	for wait := 10 * time.Millisecond; time.Now().Before(deadline) && !e.closing.Load(); wait = min(2*wait, 100*time.Millisecond) {
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
