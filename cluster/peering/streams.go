// Package peering carries the streams to other clusters: it dials and accepts them, exchanges messages, exports this
// cluster's members and imports theirs, and limits how much another cluster can make this one store.
//
// A peer is another cluster, never another member. Packages store and handlers decide what a peering is and who may
// create one.
package peering

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"muster/cluster/transport"
	"muster/internal/timing"
	"muster/store"
)

const (
	// DefaultPing is the silence after which the other side of a peering is pinged. After another third of it without an
	// answer the stream ends.
	DefaultPing = 30 * time.Second

	establishingSeen = 1200 * time.Millisecond // a new peering shows ESTABLISHING for that long, which clients expect
	dialRest         = 8 * time.Second         // at most, between two rounds of attempts
	farewellRest     = 64 * time.Second
	comeBackWithin   = 10 * time.Second // after a change of leader here
	moveWithin       = 5 * time.Second  // after a change of leader there
	streamLasts      = 5 * time.Second  // a stream that lasted so long was a success
	pruneTombstones  = time.Hour
	syncRest         = 20 * time.Millisecond // several changes are handled together
	peerConnections  = 1024                  // streams and relayed connections
	// relayed connections that have not authenticated
	relayedAtOnce = 256
)

var actor = store.Actor{Name: "peering", Peer: true}

// Config is the configuration of the streams of one member.
type Config struct {
	Store     *store.Store
	Transport *transport.Transport
	Alive     func(nodeID uint64) string // "alive", "down", "left" or "unknown", by the leader's probes
	Ping      time.Duration              // silence after which the other side is pinged; 0: DefaultPing
	Loopback  bool                       // this member is on loopback itself, and may dial there
	Logger    *slog.Logger
}

// Streams are this member's connections to other clusters. The leader owns all streams; other members relay connections
// to it.
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

// New returns the streams of a member. Run keeps them up.
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

// term is the state of the peerings during one leadership of this member.
type term struct {
	*Streams
	ctx    context.Context
	since  time.Time
	export exporter
	wg     sync.WaitGroup

	mu       sync.Mutex
	ended    bool
	streams  map[string]*stream // streams that are up, by peering
	loops    map[string]*dialLoop
	statuses map[string]*streamStatus
	missing  map[string]time.Time // peerings whose stream should come back, and until when
	records  map[string]*record   // news to be stored, by peering
	busy     map[string]bool      // running clean-ups and farewells
}

type dialLoop struct {
	key    string // what the stream depends on
	kick   chan struct{}
	why    string // why the last stream was not opened, as logged
	next   int    // index of the next address to try
	cancel context.CancelCauseFunc
}

// Run carries the peerings whenever this member leads. It blocks until ctx ends.
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
			timing.Rest(ctx, 50*time.Millisecond)
			continue
		}
		p.store.AwaitChange(ctx, rev, tables...)
		timing.Rest(ctx, syncRest)
	}
	p.set(nil)
	cancel()
	t.mu.Lock() // later news start no goroutine
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

// leading blocks until this member leads and returns its term; nil when ctx ends first.
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

// watch refreshes the exported state and notices streams that do not come back.
func (t *term) watch() {
	pruned := time.Time{}
	for timing.Rest(t.ctx, exportEvery) {
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

// sync starts and ends streams to match the database.
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

// dialLocked starts the dial loop of a peering if it does not run. The caller holds the lock.
func (t *term) dialLocked(p *store.Peering) {
	key := p.PeerID + " " + p.ServerName
	if l := t.loops[p.ID]; l != nil {
		if l.key == key {
			if p.State == store.PeeringEstablishing { // a new token: dial at once
				select {
				case l.kick <- struct{}{}:
				default:
				}
			}
			return
		}
		l.cancel(errReplaced) // established again, with another cluster
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
		if !fresh || timing.Rest(ctx, establishingSeen) {
			t.dial(ctx, l, p.ID)
		}
	})
}

// clean removes the remains of a peering that has ended.
func (t *term) clean(id string) {
	for t.ctx.Err() == nil {
		done, err := t.store.Peerings.Clean(t.ctx, actor, id)
		if done {
			return
		}
		if err != nil && !timing.Rest(t.ctx, 200*time.Millisecond) {
			return
		}
	}
}
