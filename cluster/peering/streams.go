// Package peering carries the streams to other clusters: it dials and accepts them, speaks their frames, exports this
// cluster's members and imports theirs, and keeps what one of them can make this cluster store within a budget.
//
// A peer is another cluster, never another member. What a peering is, and who may make one, is store's and the
// handlers'.
package peering

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"muster/cluster/transport"
	"muster/store"
)

const (
	// DefaultPing is the silence after which the other side of a peering is asked whether it is still there; a third
	// of that later it counts as gone.
	DefaultPing = 30 * time.Second

	establishingSeen = 1200 * time.Millisecond // a new peering shows ESTABLISHING for that long, as clients expect
	dialRest         = 8 * time.Second         // at most, between two rounds of tries: who is back is found that soon
	farewellRest     = 64 * time.Second
	comeBackWithin   = 10 * time.Second // after a change of leader here
	moveWithin       = 5 * time.Second  // after a change of leader there
	streamLasts      = 5 * time.Second  // then it was no mistake to try
	pruneTombstones  = time.Hour
	syncRest         = 20 * time.Millisecond // many changes in a row are looked at together
	peerConnections  = 1024                  // streams, and connections that are passed on
	// connections that other members pass on and that have not shown yet who they are
	relayedAtOnce = 256
)

var actor = store.Actor{Name: "peering", Peer: true}

// Config is what the streams of one member need to know.
type Config struct {
	Store     *store.Store
	Transport *transport.Transport
	Alive     func(nodeID uint64) string // "alive", "down", "left" or "unknown", as the leader's probes have it
	Ping      time.Duration              // silence after which the other side is asked whether it is there; 0: DefaultPing
	Loopback  bool                       // this member is on loopback itself, and may dial there
	Logger    *slog.Logger
}

// Streams are this member's dealings with other clusters. The leader owns all streams; others pass connections on to
// it.
type Streams struct {
	store *store.Store
	net   *transport.Transport
	ping  time.Duration
	log   *slog.Logger
	alive func(nodeID uint64) string
	slots chan struct{} // for clusters that have authenticated

	relayed   chan struct{} // for connections that have not authenticated
	strangers *transport.Strangers

	loopback bool

	mu      sync.Mutex
	term    *term         // nil while another member leads
	changed chan struct{} // closed and replaced when term changes
}

// New makes the streams of a member; Run keeps them up.
func New(cfg Config) *Streams {
	p := &Streams{
		store:     cfg.Store,
		net:       cfg.Transport,
		ping:      cfg.Ping,
		log:       cfg.Logger,
		alive:     cfg.Alive,
		slots:     make(chan struct{}, peerConnections),
		relayed:   make(chan struct{}, relayedAtOnce),
		strangers: cfg.Transport.Strangers(),
		loopback:  cfg.Loopback,
		changed:   make(chan struct{}),
	}
	if p.ping <= 0 {
		p.ping = DefaultPing
	}
	return p
}

// term is what a leader keeps of its peerings.
type term struct {
	*Streams
	ctx    context.Context
	since  time.Time
	export exporter
	wg     sync.WaitGroup

	mu       sync.Mutex
	ended    bool
	streams  map[string]*stream // that are up, by peering
	loops    map[string]*dialLoop
	statuses map[string]*streamStatus
	missing  map[string]time.Time // peerings whose stream should come back, and until when
	records  map[string]*record   // what is to be stored of peerings
	busy     map[string]bool      // cleaning up after a peering, or saying farewell
}

type dialLoop struct {
	key    string // what the stream depends on
	kick   chan struct{}
	why    string // why the last stream was not opened, as the log has it
	next   int    // the address that is tried next
	cancel context.CancelCauseFunc
}

// Run waits for this member to lead and takes care of the peerings for as long as it does.
func (p *Streams) Run(ctx context.Context) {
	for ctx.Err() == nil {
		turned := p.store.Leadership()
		if p.store.Leading() {
			p.lead(ctx)
			continue
		}
		select {
		case <-turned:
		case <-ctx.Done():
		}
	}
}

func (p *Streams) lead(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	t := &term{
		Streams:  p,
		ctx:      ctx,
		since:    time.Now(),
		export:   exporter{changed: make(chan struct{})},
		streams:  map[string]*stream{},
		loops:    map[string]*dialLoop{},
		statuses: map[string]*streamStatus{},
		missing:  map[string]time.Time{},
		records:  map[string]*record{},
		busy:     map[string]bool{},
	}
	t.wg.Go(func() {
		defer cancel()
		for turned := p.store.Leadership(); p.store.Leading(); turned = p.store.Leadership() {
			select {
			case <-turned:
			case <-ctx.Done():
				return
			}
		}
	})
	p.set(t)
	t.wg.Go(t.watch)
	tables := []string{store.TablePeerings, "peering_tombstones"}
	for first := true; ctx.Err() == nil; first = false {
		rev := p.store.ChangedAt(tables...)
		if err := t.sync(first); err != nil {
			if !errors.Is(err, store.ErrNotLeader) && ctx.Err() == nil {
				p.log.Warn("peerings", "err", err)
			}
			rest(ctx, 50*time.Millisecond)
			continue
		}
		p.store.AwaitChange(ctx, rev, tables...)
		rest(ctx, syncRest)
	}
	p.set(nil)
	cancel()
	t.mu.Lock() // what is noted from here on starts nothing any more
	t.ended = true
	t.mu.Unlock()
	t.wg.Wait()
}

func (p *Streams) set(t *term) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.term = t
	close(p.changed)
	p.changed = make(chan struct{})
}

// leading returns the term of this member's leadership, waiting for it for as long as ctx goes on.
func (p *Streams) leading(ctx context.Context) *term {
	for {
		p.mu.Lock()
		t, changed := p.term, p.changed
		p.mu.Unlock()
		if t != nil {
			return t
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// watch refreshes what is exported and notices streams that do not come back.
func (t *term) watch() {
	pruned := time.Time{}
	for rest(t.ctx, exportEvery) {
		t.mu.Lock()
		up := len(t.streams)
		t.mu.Unlock()
		if up > 0 {
			t.refresh()
		}
		now := time.Now()
		t.mu.Lock()
		var late []string
		for id, until := range t.missing {
			if t.streams[id] != nil {
				delete(t.missing, id)
			} else if now.After(until) {
				delete(t.missing, id)
				late = append(late, id)
			}
		}
		t.mu.Unlock()
		for _, id := range late {
			t.down(id, errors.New("the other side has not come back after a change of leader"))
		}
		if now.Sub(pruned) > pruneTombstones {
			pruned = now
			if err := t.store.Peerings.Prune(t.ctx, actor); err != nil && t.ctx.Err() == nil {
				t.log.Debug("prune peerings", "err", err)
			}
		}
	}
}

// sync makes what runs agree with the database.
func (t *term) sync(first bool) error {
	list, err := t.store.Peerings.List(t.ctx, store.AsLeader)
	if err != nil {
		return err
	}
	farewells, err := t.store.Peerings.Farewells(t.ctx, store.AsLeader)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	here := make(map[string]bool, len(list))
	for i := range list {
		p := &list[i]
		here[p.ID] = true
		if first && p.State == store.PeeringActive {
			t.missing[p.ID] = time.Now().Add(comeBackWithin)
		}
		switch {
		case p.Ended():
			t.endLocked(p.ID, p.State == store.PeeringDeleting)
			left, err := t.store.Peerings.Members(t.ctx, store.AsLeader, p.ID)
			if err != nil {
				return err
			}
			if len(left) > 0 || p.State == store.PeeringDeleting {
				t.onceLocked("clean/"+p.ID, func() { t.clean(p.ID) })
			}
		case p.Dialer:
			t.dialLocked(p)
		}
	}
	for id := range t.loops {
		if !here[id] {
			t.endLocked(id, true)
		}
	}
	for id := range t.statuses {
		if !here[id] {
			delete(t.statuses, id)
		}
	}
	for id, r := range t.records {
		if !here[id] && !r.running {
			delete(t.records, id)
		}
	}
	for _, k := range farewells {
		t.onceLocked("farewell/"+k.ID, func() { t.farewell(k) })
	}
	return nil
}

// onceLocked runs f unless it runs already.
func (t *term) onceLocked(key string, f func()) {
	if t.busy[key] {
		return
	}
	t.busy[key] = true
	t.wg.Go(func() {
		f()
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.busy, key)
	})
}

func (t *term) endLocked(id string, deleted bool) {
	why := errTerminated
	if deleted {
		why = errDeleted
	}
	if l := t.loops[id]; l != nil {
		l.cancel(why)
		delete(t.loops, id)
	}
	if s := t.streams[id]; s != nil {
		s.cancel(why)
	}
}

// dialLocked sees to it that somebody dials for the peering.
func (t *term) dialLocked(p *store.Peering) {
	key := p.PeerID + " " + p.ServerName
	if l := t.loops[p.ID]; l != nil {
		if l.key == key {
			if p.State == store.PeeringEstablishing { // with a new token: at once
				select {
				case l.kick <- struct{}{}:
				default:
				}
			}
			return
		}
		l.cancel(errReplaced) // it was established again, with another cluster
		if r := t.records[p.ID]; r != nil {
			r.news = store.PeerNews{}
		}
	}
	ctx, cancel := context.WithCancelCause(t.ctx)
	l := &dialLoop{key: key, kick: make(chan struct{}, 1), cancel: cancel}
	t.loops[p.ID] = l
	fresh := p.State == store.PeeringEstablishing
	t.wg.Go(func() {
		defer cancel(nil)
		if !fresh || rest(ctx, establishingSeen) {
			t.dial(ctx, l, p.ID)
		}
	})
}

// clean removes what a peering that has ended has left.
func (t *term) clean(id string) {
	for t.ctx.Err() == nil {
		done, err := t.store.Peerings.Clean(t.ctx, actor, id)
		if done {
			return
		}
		if err != nil && !rest(t.ctx, 200*time.Millisecond) {
			return
		}
	}
}
