package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// A leader needs a working copy before it can write, and copying takes longer the larger the database is. A member that
// will receive leadership copies in advance, while the old leader still writes: it copies its replica and then receives
// the texts of the batches committed since. The last texts come when the old leader has stopped writing. If dqlite does
// not end with the same batch, the new leader copies again.

const (
	groomAtMost = time.Second            // for the copy; the leader still serves meanwhile
	bringUpTime = 200 * time.Millisecond // for the last texts; all writes wait meanwhile
	heirLasts   = 3 * time.Second        // after that an unused copy is dropped
	recentBytes = 2 << 20                // of texts that a leader keeps
)

// Preparation is what a leader sends to the voter that will receive leadership.
type Preparation struct {
	After uint64   `json:"after"` // the revision before those of the texts
	Texts []string `json:"texts"` // of batches, in order; without any the receiver makes its copy
	Last  bool     `json:"last"`  // the leader has stopped writing
}

// recent keeps the texts of the newest batches.
type recent struct {
	mu    sync.Mutex
	after uint64
	texts []string
	bytes int
}

func (r *recent) add(rev uint64, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rev != r.after+uint64(len(r.texts))+1 {
		r.after, r.texts, r.bytes = rev-1, nil, 0
	}
	r.texts, r.bytes = append(r.texts, text), r.bytes+len(text)
	for r.bytes > recentBytes {
		r.bytes -= len(r.texts[0])
		r.texts[0] = ""
		r.texts = r.texts[1:]
		r.after++
	}
}

// since returns the texts after a revision; known is false when they are no longer kept.
func (r *recent) since(rev uint64) (texts []string, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rev < r.after {
		return nil, false
	}
	return slices.Clone(r.texts[min(rev-r.after, uint64(len(r.texts))):]), true
}

// groom makes another voter copy the database while this member leads. The caller calls the returned function after the
// writer has stopped; it brings the copy up to date. A voter without a copy takes longer to lead.
func (e *Engine) groom(ctx context.Context, id uint64) (bringUp func()) {
	l := e.current()
	if l == nil || e.cfg.Prepare == nil {
		return func() {}
	}
	within := groomAtMost
	if deadline, ok := ctx.Deadline(); ok {
		within = min(within, time.Until(deadline)/2)
	}
	gctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	have, err := e.cfg.Prepare(gctx, id, Preparation{After: e.Revision()})
	if err == nil {
		have, err = l.sendRecent(gctx, id, have, false)
	}
	if err != nil {
		e.log.Info("the next leader is not prepared", "node", id, "err", err)
		return func() {}
	}
	return func() {
		ctx, cancel := context.WithTimeout(ctx, bringUpTime)
		defer cancel()
		if _, err := l.sendRecent(ctx, id, have, true); err != nil {
			e.log.Info("the next leader is not prepared", "node", id, "err", err)
		}
	}
}

func (l *leadership) sendRecent(ctx context.Context, id, have uint64, last bool) (uint64, error) {
	texts, known := l.recent.since(have)
	switch {
	case !known:
		return 0, fmt.Errorf("its copy ends with revision %d, and the next texts are no longer kept", have)
	case len(texts) == 0 && !last:
		return have, nil
	}
	return l.engine.cfg.Prepare(ctx, id, Preparation{After: have, Texts: texts, Last: last})
}

// heir is the working copy of a member that is about to lead.
type heir struct {
	mu    sync.Mutex // held while the copy is made or changes
	work  *working
	timer *time.Timer
}

// PrepareToLead carries out a Preparation of the leader, node from, and returns the revision of this member's copy. It
// rejects other nodes. It blocks until the copy is made, ctx ends, or the files of this member's last leadership are
// still in use after endingWait.
func (e *Engine) PrepareToLead(ctx context.Context, from uint64, p Preparation) (revision uint64, err error) {
	h := &e.heir
	h.mu.Lock()
	defer h.mu.Unlock()
	if from != e.LeaderID() || from == e.cfg.NodeID || e.closing.Load() {
		return 0, Refuse(Conflict, "node %d does not lead", from)
	}
	if len(p.Texts) == 0 && !p.Last {
		err = e.makeHeir(ctx)
	} else {
		err = h.apply(p)
	}
	var at position
	if err == nil {
		at, err = (&View{s: h.work.writer}).position()
	}
	if err != nil {
		h.close()
		return 0, err
	}
	h.timer.Reset(heirLasts)
	if p.Last {
		e.expectElection(heirLasts)
	}
	return at.Revision, nil
}

func (e *Engine) makeHeir(ctx context.Context) (err error) {
	h := &e.heir
	h.close()
	if ending := e.ended(); ending != nil {
		select {
		case <-ending:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	h.work, err = openWorking(e.cfg.Dir, e.cfg.Schema.Latest, func(path string) error {
		_, err := e.copyReplica(ctx, path)
		return err
	})
	if err != nil {
		return err
	}
	h.timer = time.AfterFunc(heirLasts, h.drop)
	return h.work.warm()
}

// apply runs the texts that the copy lacks. Each raises the revision, which fails when one is missing.
func (h *heir) apply(p Preparation) error {
	if h.work == nil {
		return errors.New("no copy was made")
	}
	at, err := (&View{s: h.work.writer}).position()
	if err != nil {
		return err
	}
	for i, text := range p.Texts {
		if p.After+uint64(i) < at.Revision {
			continue
		}
		if _, err := h.work.writer.conn.ExecContext(context.Background(), text); err != nil {
			return fmt.Errorf("revision %d: %w", p.After+uint64(i)+1, err)
		}
	}
	return nil
}

// take returns the copy if it is the state at a position, with a schema version, else nil. In both cases the heir no
// longer has it.
func (h *heir) take(at position, schema int64) *working {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.work == nil {
		return nil
	}
	v := &View{s: h.work.writer}
	have, err := v.position()
	version, errSchema := v.SchemaVersion()
	if cmp.Or(err, errSchema) != nil || have != at || version != schema {
		h.close()
		return nil
	}
	w := h.work
	h.work = nil
	h.timer.Stop()
	return w
}

func (h *heir) drop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.close()
}

// close is called with the lock held.
func (h *heir) close() {
	if h.work != nil {
		h.timer.Stop()
		h.work.close()
		h.work = nil
	}
}
