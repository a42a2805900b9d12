package peering

import (
	"errors"
	"time"

	"muster/internal/timing"
	"muster/store"
)

const recordRest = 200 * time.Millisecond // after a failed write

// record holds the news of a peering that are not stored yet; newer values replace older ones. The term's mu guards its
// fields but the budget.
type record struct {
	budget  *budget
	news    store.PeerNews
	dirty   bool
	running bool
}

// recordLocked returns the record of a peering.
func (t *term) recordLocked(id string) *record {
	r := t.records[id]
	if r == nil {
		r = &record{budget: newBudget(time.Now())}
		t.records[id] = r
	}
	return r
}

func (t *term) budgetOf(id string) *budget {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.recordLocked(id).budget
}

// note changes the news of a peering. It does not block: a goroutine of the peering stores them as soon as its budget
// allows.
func (t *term) note(id string, change func(*store.PeerNews)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return
	}
	r := t.recordLocked(id)
	change(&r.news)
	r.dirty = true
	if !r.running {
		r.running = true
		t.wg.Go(func() { t.keep(id, r) })
	}
}

// keep stores news until there are no more.
func (t *term) keep(id string, r *record) {
	for r.budget.await(t.ctx, false) {
		t.mu.Lock()
		if !r.dirty {
			r.running = false
			t.mu.Unlock()
			return
		}
		news := r.news
		r.dirty, r.news = false, store.PeerNews{}                       // stored once: a later writer may own the state
		if news.State == store.PeeringFailing && t.streams[id] != nil { // another stream is up
			news.State, news.Reason = store.PeeringActive, ""
		}
		t.mu.Unlock()
		stored, err := t.store.Peerings.StoreNews(t.ctx, actor, id, news)
		if stored > 0 {
			r.budget.charge(time.Now(), stored)
		}
		if err == nil || t.ctx.Err() != nil || errors.Is(err, store.ErrNotLeader) {
			continue
		}
		r.budget.charge(time.Now(), 0) // an attempt costs, too
		t.log.Warn("the state of a peering could not be recorded", "err", err)
		t.mu.Lock()
		r.dirty, r.news = true, after(news, r.news)
		t.mu.Unlock()
		timing.Rest(t.ctx, recordRest)
	}
}

// down records why a peering has no stream.
func (t *term) down(id string, why error) {
	t.note(id, func(n *store.PeerNews) { n.State, n.Reason = store.PeeringFailing, reasonOf(why) })
}

// after merges news: values of newer replace those of older.
func after(older, newer store.PeerNews) store.PeerNews {
	if newer.State != "" {
		older.State, older.Reason = newer.State, newer.Reason
	}
	if newer.Roots != nil {
		older.Roots = newer.Roots
	}
	if newer.Addresses != nil {
		older.Addresses = newer.Addresses
	}
	if newer.Bundle != nil {
		older.Bundle = newer.Bundle
	}
	return older
}
