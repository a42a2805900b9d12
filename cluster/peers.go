package cluster

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"muster/certs"
	"muster/cluster/transport"
	"muster/dialpolicy"
	"muster/store"
)

const (
	// DefaultPeerPing is the silence after which the other side of a peering is asked whether it is still there; a third
	// of that later it counts as gone.
	DefaultPeerPing = 30 * time.Second

	establishingSeen = 1200 * time.Millisecond // a new peering shows ESTABLISHING for that long, as clients expect
	dialRest         = 8 * time.Second         // at most, between two rounds of tries: who is back is found that soon
	farewellRest     = 64 * time.Second
	comeBackWithin   = 10 * time.Second // after a change of leader here
	moveWithin       = 5 * time.Second  // after a change of leader there
	streamLasts      = 5 * time.Second  // then it was no mistake to try
	pruneTombstones  = time.Hour
	syncRest         = 20 * time.Millisecond // many changes in a row are looked at together
	peerConnections  = 1024                  // streams, and connections that are passed on
	relayedAtOnce    = 256                   // connections that other members pass on and that have not shown yet who they are
)

var peerActor = store.Actor{Name: "peering", Peer: true}

// peers are this member's dealings with other clusters. The leader owns all streams; others pass connections on to it.
type peers struct {
	store *store.Store
	net   *transport.Transport
	ping  time.Duration
	log   *slog.Logger
	alive func(nodeID uint64) string
	slots chan struct{} // of those that have shown who they are

	relayed   chan struct{} // places of those that have not
	strangers *transport.Strangers

	loopback bool // this member is on loopback itself

	mu      sync.Mutex
	term    *peerTerm     // nil while another member leads
	changed chan struct{} // closed and replaced when term changes
}

func newPeers(cfg Config, alive func(uint64) string) *peers {
	ping := cfg.PeerPing
	if ping <= 0 {
		ping = DefaultPeerPing
	}
	return &peers{store: cfg.Store, net: cfg.Transport, ping: ping, log: cfg.Logger, alive: alive,
		slots: make(chan struct{}, peerConnections), relayed: make(chan struct{}, relayedAtOnce), strangers: cfg.Transport.Strangers(), loopback: dialpolicy.OnLoopback(cfg.Self.RaftAddress), changed: make(chan struct{})}
}

// peerTerm is what a leader keeps of its peerings.
type peerTerm struct {
	*peers
	ctx    context.Context
	since  time.Time
	export exporter
	wg     sync.WaitGroup

	mu       sync.Mutex
	ended    bool
	streams  map[string]*stream // that are up, by peering
	loops    map[string]*dialLoop
	statuses map[string]*peerStatus
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

// run waits for this member to lead and takes care of the peerings for as long as it does.
func (p *peers) run(ctx context.Context) {
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

func (p *peers) lead(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	t := &peerTerm{peers: p, ctx: ctx, since: time.Now(), export: exporter{changed: make(chan struct{})}, streams: map[string]*stream{}, loops: map[string]*dialLoop{},
		statuses: map[string]*peerStatus{}, missing: map[string]time.Time{}, records: map[string]*record{}, busy: map[string]bool{}}
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

func (p *peers) set(t *peerTerm) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.term = t
	close(p.changed)
	p.changed = make(chan struct{})
}

// leading returns the term of this member's leadership, waiting for it for as long as ctx goes on.
func (p *peers) leading(ctx context.Context) *peerTerm {
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
func (t *peerTerm) watch() {
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
			if err := t.store.Peerings.Prune(t.ctx, peerActor); err != nil && t.ctx.Err() == nil {
				t.log.Debug("prune peerings", "err", err)
			}
		}
	}
}

// sync makes what runs agree with the database.
func (t *peerTerm) sync(first bool) error {
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
func (t *peerTerm) onceLocked(key string, f func()) {
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

func (t *peerTerm) endLocked(id string, deleted bool) {
	why := errPeerTerminated
	if deleted {
		why = errPeerDeleted
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
func (t *peerTerm) dialLocked(p *store.Peering) {
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
		l.cancel(errPeerReplaced) // it was established anew, with somebody else
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
func (t *peerTerm) clean(id string) {
	for t.ctx.Err() == nil {
		done, err := t.store.Peerings.Clean(t.ctx, peerActor, id)
		if done {
			return
		}
		if err != nil && !rest(t.ctx, 200*time.Millisecond) {
			return
		}
	}
}

// carry runs a stream; a newer one of the same peering takes its place.
func (t *peerTerm) carry(ctx context.Context, p *store.Peering, conn *peerConn) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := &stream{peerTerm: t, id: p.ID, name: p.Name, meta: p.Meta, dialer: p.Dialer, conn: conn, status: t.status(p.ID), cancel: cancel}
	t.mu.Lock()
	if old := t.streams[p.ID]; old != nil {
		old.cancel(errPeerReplaced)
	}
	t.streams[p.ID] = s
	delete(t.missing, p.ID)
	t.mu.Unlock()
	t.note(p.ID, func(n *store.PeerNews) { n.State, n.Reason = store.PeeringActive, "" })
	if now, err := t.store.Peerings.ByID(ctx, store.AsLeader, p.ID); err == nil && (now == nil || now.Ended()) { // before it could be seen here
		cancel(errPeerDeleted)
	}
	t.refresh()
	t.log.Info("a peering is up", "peering", p.Name, "remote", conn.RemoteAddr())
	err := s.run(ctx)
	t.mu.Lock()
	if t.streams[p.ID] == s {
		delete(t.streams, p.ID)
	} else {
		err = errPeerReplaced
	}
	if err == errPeerMoved {
		t.missing[p.ID] = time.Now().Add(moveWithin)
	}
	t.mu.Unlock()
	t.log.Info("a peering's stream has ended", "peering", p.Name, "why", err)
	return err
}

// failure tells ends of a stream of which the peering's state must tell.
func failure(err error) bool {
	return err != errPeerMoved && err != errPeerTerminated && err != errPeerDeleted && err != errPeerReplaced && !errors.Is(err, context.Canceled)
}

// peeringName is the name under which other clusters ask for this one, "" while the datacenter is not known.
func (c *Cluster) peeringName() string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	datacenter, err := c.Store.Settings.Datacenter(ctx)
	if err != nil {
		return ""
	}
	return certs.PeeringName(datacenter, c.Transport.ClusterID())
}
