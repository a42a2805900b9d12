package engine

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/canonical/go-dqlite/v3/driver"
	"github.com/google/uuid"
)

const (
	// batchLimit bounds how many requests share a transaction, and so how long one commit can take.
	batchLimit = 256
	// gatherPause is the least silence, and gatherAtMost the least time, after which a batch is no longer waited for.
	// Where commits take long, a larger batch is worth more: the silence is an eighth and the time a half of the last
	// commit, but of no more than gatherWorth, so that one stuck commit does not delay the next ones.
	gatherPause  = time.Millisecond
	gatherAtMost = 5 * time.Millisecond
	gatherWorth  = 50 * time.Millisecond
)

// Write runs fn in a transaction on the leader. It blocks until a majority has committed it or it is certain that
// nothing happened. fn must not block, and may run again after a change of leader. id identifies the request for
// Hooks.Happened. Write returns ErrNotLeader on other members, ErrUnknownOutcome when leadership is lost or ctx ends
// during the commit, and any error of fn, whose statements then have no effect.
func (e *Engine) Write(ctx context.Context, id string, fn func(*Tx) error) error {
	l := e.current()
	if l == nil {
		return ErrNotLeader
	}
	if ctx.Err() != nil { // a select between two ready channels may take either
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

// write is the single writer: it takes all waiting requests, commits them as one transaction and answers them.
func (l *leadership) write() {
	defer close(l.done)
	for {
		batch := l.collect()
		if len(batch) == 0 {
			return
		}
		if err := l.commit(batch); err != nil {
			l.engine.log.Warn("a commit failed; leadership begins again", "requests", len(batch), "err", err)
			go l.engine.descend(ErrNotLeader)
			<-l.ctx.Done()
			return
		}
		l.expected = len(batch) + len(l.queue)
	}
}

// collect waits for a request and returns it with all others that wait. A commit costs the same whatever is in it, and
// most callers come back as soon as they are answered: collect waits a moment for as many requests as the last batch
// had, while they keep arriving. It returns nil when the leadership ends; await then answers the callers whose requests
// were not taken.
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
	silence := max(gatherPause, l.took/8)
	deadline := time.Now().Add(max(gatherAtMost, l.took/2))
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
		pause := time.NewTimer(silence)
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

// batch is the content of one transaction.
type batch struct {
	all       []*request
	changed   []*request // in the order in which they ran
	unchanged []*request
	// A refusal may depend on an earlier request of the batch, which is not certain before the commit.
	refused map[*request]error
	rev     uint64
	work    script
}

// answer tells all callers how the commit has ended. Those that were refused get the reason only if it succeeded.
func (b *batch) answer(err error) {
	for _, r := range append(b.changed, b.unchanged...) {
		r.done <- err
	}
	for r, own := range b.refused {
		if err == nil {
			r.done <- own
		} else {
			r.done <- err
		}
	}
}

// commit tries the requests on the working copy, each in a savepoint of one transaction, sends their changes to dqlite
// as one text, and answers. An error means that the working copy can no longer be trusted; all requests are answered
// then, too.
func (l *leadership) commit(list []*request) error {
	if _, err := l.work.writer.exec("BEGIN IMMEDIATE"); err != nil {
		return answerAll(list, fmt.Errorf("begin: %w", err))
	}
	b := l.tryAll(list)
	if len(b.changed) == 0 {
		return l.nothingChanged(b)
	}
	text, err := l.text(b)
	if err != nil {
		b.answer(err)
		return err
	}
	begin := time.Now()
	err = l.db.within(commitTimeout+time.Duration(len(text)>>20)*commitPerMiB, func(c *sql.Conn) error {
		_, err := c.ExecContext(context.Background(), text)
		return err
	})
	if refused, retry := rejected(err); refused && !retry {
		return l.oneByOne(b, err)
	} else if err != nil {
		return l.failed(b, refused, err)
	}
	l.recent.add(b.rev, text)
	return l.committed(b, begin)
}

// tryAll runs the requests one after the other.
func (l *leadership) tryAll(list []*request) *batch {
	b := &batch{all: list, refused: map[*request]error{}, rev: l.engine.changes.revision() + 1}
	now, next := l.engine.cfg.Now().UTC(), uint64(1)
	for _, r := range list {
		tx, err := l.try(r, now, b.rev, next)
		switch {
		case err != nil:
			b.refused[r] = err
		case len(tx.recorded) == 0:
			b.unchanged = append(b.unchanged, r)
		default:
			next = tx.next
			b.changed = append(b.changed, r)
			for _, st := range tx.recorded {
				b.work.add(st)
			}
		}
	}
	return b
}

// nothingChanged answers a batch without changes. No commit proves that this leader's state is the newest, so it asks
// the voters.
func (l *leadership) nothingChanged(b *batch) error {
	if _, err := l.work.writer.exec("ROLLBACK"); err != nil {
		b.answer(err)
		return err
	}
	go func() {
		ctx, cancel := context.WithTimeout(l.ctx, askTimeout)
		defer cancel()
		if l.reads.confirm(ctx) != nil {
			b.answer(ErrNotLeader)
			return
		}
		b.answer(nil)
	}()
	return nil
}

// text raises the revision and returns the whole transaction. The revision comes first: if another leadership has
// written in between, its trigger is to fail, not the key of a row that both have written.
func (l *leadership) text(b *batch) (string, error) {
	if b.rev > 1 { // the founding transaction inserts the row
		id := uuid.NewString()
		if _, err := l.work.writer.exec(raiseRevision, int64(b.rev), id); err != nil {
			return "", err
		}
		b.work.lead(Statement{Query: raiseRevision, Args: []any{int64(b.rev), id}})
	}
	return b.work.text()
}

// failed handles a batch that dqlite did not commit, or whose outcome is unknown.
func (l *leadership) failed(b *batch, refused bool, err error) error {
	e := l.engine
	_, _ = l.work.writer.exec("ROLLBACK")
	e.metrics.failed.Inc()
	e.losesNow() // from now on the replica may lack entries that are not decided yet
	l.db.cut()   // which ends dqlite's transaction
	if refused {
		b.answer(ErrNotLeader)
	} else {
		go e.resolve(l.epoch, b.rev, b.changed[0], b.answer)
	}
	return fmt.Errorf("commit: %w", err)
}

// committed handles a batch that a majority has committed.
func (l *leadership) committed(b *batch, begin time.Time) error {
	for _, r := range b.changed {
		for _, f := range r.tx.committed {
			f()
		}
	}
	if _, err := l.work.writer.exec("COMMIT"); err != nil {
		b.answer(nil) // the cluster has committed it; only the working copy is behind
		return fmt.Errorf("commit to the working copy: %w", err)
	}
	e := l.engine
	took := time.Since(begin)
	l.took = min(took, gatherWorth)
	e.metrics.committed(took)
	e.metrics.batch.Observe(float64(len(b.changed)))
	e.metrics.refused.Add(float64(len(b.refused)))
	e.changes.advance(b.rev, b.work.tables)
	b.answer(nil)
	e.hooks.Committed()
	return nil
}

// oneByOne handles a batch in which dqlite rejects a statement that the working copy has accepted; for example,
// deferred foreign keys are checked only at COMMIT. Nothing was replicated. Each request gets a transaction of its own,
// so that only the one that caused the error fails.
func (l *leadership) oneByOne(b *batch, cause error) error {
	err := l.db.within(commitTimeout, func(c *sql.Conn) error {
		_, err := c.ExecContext(context.Background(), "ROLLBACK")
		return err
	})
	if err == nil || strings.Contains(err.Error(), "no transaction is active") {
		_, err = l.work.writer.exec("ROLLBACK")
	}
	if err != nil {
		b.answer(ErrNotLeader)
		return err
	}
	if len(b.all) == 1 {
		b.answer(fmt.Errorf("commit: %w", cause))
		return nil
	}
	for i, r := range b.all {
		if err := l.commit([]*request{r}); err != nil {
			_ = answerAll(b.all[i+1:], ErrNotLeader)
			return err
		}
	}
	return nil
}

// rejected reports whether SQLite itself rejected a statement of the batch, so that nothing was committed; other errors
// leave the outcome open. retry is true after one rejection only, that of the trigger on the revision: another leader
// has written in between.
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

// try runs one request in its savepoint. A refusal or a panic undoes that request alone.
func (l *leadership) try(r *request, now time.Time, rev, next uint64) (tx *Tx, err error) {
	w := l.work.writer
	if _, err := w.exec("SAVEPOINT request"); err != nil {
		return nil, err
	}
	tx = &Tx{
		View:  View{s: w, Now: now},
		Rev:   rev,
		Epoch: l.epoch,
		next:  next,
		check: l.engine.hooks.Check,
	}
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

func answerAll(batch []*request, err error) error {
	for _, r := range batch {
		r.done <- err
	}
	return err
}
