// Package cluster is what members do by themselves: they prove who they are to each other, the leader probes the
// others, autopilot decides who votes and the reconcile loop makes the Raft configuration agree with SQL.
package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"muster/cluster/autopilot"
	"muster/cluster/datadir"
	"muster/cluster/peering"
	"muster/cluster/transport"
	"muster/dialpolicy"
	"muster/netlimit"
	"muster/store"
)

const (
	roundEvery    = 500 * time.Millisecond
	roundRest     = 20 // times as long as observing and deciding took
	maxRoundRest  = 5 * time.Second
	assignTimeout = 10 * time.Second
	pruneEvery    = time.Minute
	upgradeAfter  = 5 * time.Second
	pruneRest     = 50 * time.Millisecond
)

// Config is what a member's own loops need to know.
type Config struct {
	Store     *store.Store
	Transport *transport.Transport
	Book      *datadir.Book
	Self      store.Announcement
	Hooks     *Hooks
	Dir       *datadir.Dir
	// ReloadHTTP makes the API listener use the certificate file that has been renewed.
	ReloadHTTP func() error
	// Incarnation is that of this process; Given is what the command line says of this member besides its addresses.
	Incarnation Incarnation
	Given       Given
	PeerPing    time.Duration // silence after which the other side of a peering is asked whether it is there; 0: peering.DefaultPing
	Logger      *slog.Logger

	DiskReserve datadir.Reserve // room that the member keeps on its disk

	Connections *netlimit.Limiter // of the listeners for clients; nil: nobody counts
}

// Cluster runs the loops of one member.
type Cluster struct {
	Config
	log   *slog.Logger
	state atomic.Pointer[autopilot.State]
	alive atomic.Pointer[map[uint64]string]
	input atomic.Pointer[autopilot.Input] // what the last round saw; nil where this member does not lead
	disk  atomic.Pointer[datadir.Disk]

	history   *history
	storage   *storage
	stepping  atomic.Bool               // leadership is being given away because this member cannot store
	stalledAt atomic.Pointer[time.Time] // when a leader last said that this replica stands still; nil when it does not
	stalled   atomic.Pointer[map[uint64]bool]

	kick  chan struct{} // wakes the leader's loop before its time
	peers *peering.Streams

	prober   atomic.Pointer[prober] // of this leadership; nil where this member does not lead
	due      chan struct{}          // wakes the renewal of certificates before its time
	expected atomic.Uint64          // revision of store.Trust that a leader has told of
	trusted  atomic.Uint64          // and the one that is in effect here
	tokenKey atomic.Pointer[string] // id of the key that signs node identities, as a leader has told

	starts   starts
	withheld withheld
	notice   atomic.Pointer[string]
	alone    struct{ since, said time.Time } // of the announcing loop: nobody has answered since, and when that was said
	nodeFile sync.Mutex                      // held while node.json is read and written
	unheard  atomic.Pointer[string]          // what the leader last said against this member's announcement
	twin     chan error                      // gets the *TwinError that ends this member

	troubles    troubles
	renewWarned time.Time // used by the renewal alone

	archives chan struct{} // bounds the backups that are made at once

	told    sync.Map // ids of removed members of whom the others were told
	once    sync.Once
	removed chan struct{}
	closing chan struct{}

	stop context.CancelFunc
	done sync.WaitGroup
}

// Start begins the loops; Close ends them.
func Start(cfg Config) *Cluster {
	ctx, cancel := context.WithCancel(context.Background())
	c := &Cluster{Config: cfg, log: cfg.Logger, kick: make(chan struct{}, 1), due: make(chan struct{}, 1), stop: cancel,
		archives: make(chan struct{}, 1), removed: make(chan struct{}), closing: make(chan struct{}),
		twin: make(chan error, 1), starts: starts{last: map[uint64]string{}}}
	c.forget()
	c.disk.Store(&datadir.Disk{})
	c.lookAtDisk()
	c.storage, c.history = newStorage(time.Now()), newHistory(time.Now())
	c.peers = peering.New(peering.Config{
		Store:     cfg.Store,
		Transport: cfg.Transport,
		Alive:     c.Alive,
		Ping:      cfg.PeerPing,
		Loopback:  dialpolicy.OnLoopback(cfg.Self.RaftAddress),
		Logger:    cfg.Logger,
	})
	for _, loop := range []func(context.Context){c.peers.Run, c.followEvents, c.renew, c.lead, c.expel, c.announce, c.watchStoring, c.ownerRequests, c.remember} {
		c.done.Go(func() { loop(ctx) })
	}
	return c
}

// Peerings are this member's streams to other clusters.
func (c *Cluster) Peerings() *peering.Streams { return c.peers }

// Close ends the loops and waits for them.
func (c *Cluster) Close() {
	c.stop()
	close(c.closing)
	c.done.Wait()
	c.Book.Save()
}

// Autopilot returns the state that the leader saw in its last round; it is empty on other members and in the
// first moments of a leadership.
func (c *Cluster) Autopilot() autopilot.State {
	s := *c.state.Load()
	if len(s.Servers) == 0 {
		return s
	}
	// Who votes may have changed since the last round; all endpoints say the same of it.
	roles := map[uint64]store.Role{}
	for _, v := range c.Store.Servers() {
		roles[v.NodeID] = v.Role
	}
	s.Servers, s.Voters = slices.Clone(s.Servers), []uint64{}
	healthy := 0
	for i := range s.Servers {
		v := &s.Servers[i]
		v.Role = string(roles[v.NodeID])
		v.HasVotingRights = roles[v.NodeID] == store.RoleVoter
		v.Electable = v.Electable && v.HasVotingRights
		if v.HasVotingRights {
			s.Voters = append(s.Voters, v.NodeID)
			if v.Healthy {
				healthy++
			}
		}
	}
	s.Healthy = healthy == len(s.Voters)
	s.FailureTolerance = autopilot.FailureTolerance(len(s.Voters), healthy)
	return s
}

// seen returns what the leader's last round has of a member; nil where this member does not lead.
func (c *Cluster) seen(nodeID uint64) *autopilot.Server {
	servers := c.state.Load().Servers
	i, found := slices.BinarySearchFunc(servers, nodeID, func(v autopilot.Server, id uint64) int { return cmp.Compare(v.NodeID, id) })
	if !found {
		return nil
	}
	return &servers[i]
}

// DiskLow tells whether a member has said that its disk is nearly full, as the leader's probes have it.
func (c *Cluster) DiskLow(nodeID uint64) bool {
	v := c.seen(nodeID)
	return v != nil && v.DiskLow
}

// CannotStore tells why a member does not store, as the leader's last round has it; empty when it does, or where this
// member does not lead.
func (c *Cluster) CannotStore(nodeID uint64) string {
	if v := c.seen(nodeID); v != nil {
		return v.CannotStore
	}
	return ""
}

// DownSince returns when a member that does not answer was last heard of, as the leader's last round has it; the zero time
// for one that answers, or where this member does not lead.
func (c *Cluster) DownSince(nodeID uint64) time.Time {
	if v := c.seen(nodeID); v != nil {
		return v.DownSince
	}
	return time.Time{}
}

// Alive returns "alive" or "left" as the leader's probes have it; "unknown" where this member does not lead, or has done
// so for too short a time to tell.
func (c *Cluster) Alive(nodeID uint64) string {
	if s, ok := (*c.alive.Load())[nodeID]; ok {
		return s
	}
	return "unknown"
}

func (c *Cluster) forget() {
	c.state.Store(&autopilot.State{Voters: []uint64{}, Servers: []autopilot.Server{}})
	c.alive.Store(&map[uint64]string{})
	c.stalled.Store(&map[uint64]bool{})
	c.input.Store(nil)
	c.prober.Store(nil)
}

// lead waits for this member to lead and runs the leader's loop for as long as it does.
func (c *Cluster) lead(ctx context.Context) {
	for ctx.Err() == nil {
		turned := c.Store.Leadership()
		if c.Store.Leading() {
			term, cancel := context.WithCancel(ctx)
			go func() {
				<-turned
				cancel()
			}()
			c.leadTerm(term)
			cancel()
			c.forget()
			continue
		}
		select {
		case <-turned:
		case <-ctx.Done():
		}
	}
}

// term is the state of one leadership.
type term struct {
	since    time.Time
	previous map[uint64]autopilot.Health
	prober   *prober
	hooks    hookWork
	pruned   time.Time
	checked  time.Time     // when it was last looked at what expires
	cost     time.Duration // of observing and deciding in the last round
	settled  bool          // a recovery that this member has been through is in the members table

	sightings map[uint64]*sighting
}

func (c *Cluster) leadTerm(ctx context.Context) {
	t := &term{since: time.Now(), pruned: time.Now(), prober: newProber(c.probe, c.wake),
		hooks: hookWork{busy: map[uint64]uint64{}, next: map[uint64]time.Time{}}, sightings: map[uint64]*sighting{}}
	t.prober.newest = c.Store.Revision
	c.prober.Store(t.prober)
	pruning := make(chan struct{})
	go func() { defer close(pruning); c.pruneAudit(ctx) }()
	defer func() { <-pruning }()
	defer t.hooks.done.Wait()
	defer t.prober.done.Wait()
	for {
		if err := c.round(ctx, t); err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrNotLeader) {
			c.log.Warn("autopilot", "err", err)
		}
		if time.Since(t.pruned) > pruneEvery {
			t.pruned = time.Now()
			for what, f := range map[string]func() error{
				"prune":  func() error { return c.Store.Prune(ctx, c.actor()) },
				"rotate": func() error { return c.rotateByAge(ctx) },
			} {
				if err := f(); err != nil && ctx.Err() == nil {
					c.log.Warn(what, "err", err)
				}
			}
		}
		// With many members observing takes its time: it gets a twentieth of the leader's, however often it is woken.
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(roundRest*t.cost, maxRoundRest)):
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(roundEvery):
		case <-c.kick:
		}
	}
}

// pruneAudit deletes old audit rows, in small steps with room for others between them, while this member leads.
func (c *Cluster) pruneAudit(ctx context.Context) {
	for wait := pruneEvery; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = pruneEvery
		more, err := c.Store.Audit.Prune(ctx, c.actor())
		switch {
		case err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrNotLeader):
			c.log.Warn("prune the audit", "err", err)
		case more:
			wait = pruneRest
		}
	}
}

// Wake lets the leader's loop run at once, after something it should look at has changed.
func (c *Cluster) Wake() { c.wake() }

func (c *Cluster) wake() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

func (c *Cluster) actor() store.Actor {
	return store.Actor{Name: "autopilot", NodeID: c.Store.NodeID()}
}

func (c *Cluster) probe(ctx context.Context, id uint64) (r Report, err error) {
	trust, key := c.announced(ctx)
	if id == c.Store.NodeID() {
		c.expect(trust, key)
		return c.report(), nil
	}
	err = c.Transport.Call(ctx, http.MethodGet, id, probePath(trust, key, (*c.stalled.Load())[id]), nil, &r)
	return r, err
}

func (c *Cluster) report() Report {
	return Report{Incarnation: c.Incarnation, NodeID: c.Store.NodeID(), Version: c.Self.BinaryVersion, Revision: c.Store.Mirror.Revision(), Leader: c.Store.LeaderID(),
		Trust: c.trusted.Load(), DiskFree: c.Disk().Free, DiskLow: c.Disk().Low, Fault: c.Storing().own()}
}

// Serve serves other members and other clusters at l, until the transport is closed: the requests of this package, and
// with clients what other members pass on for theirs.
func (c *Cluster) Serve(l net.Listener, clients http.Handler) {
	mux := c.internal()
	mux.Handle("/", clients)
	c.Transport.Serve(l, transport.Service{
		Replica:      c.Store,
		Handler:      mux,
		Confirm:      c.confirm,
		Alternatives: c.elsewhere,
		Peers:        c.peers.Serve,
	})
}

// internal serves the requests of this package.
func (c *Cluster) internal() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+transport.PathProbe, func(w http.ResponseWriter, r *http.Request) {
		c.hear(r.URL.Query())
		c.hearTwin(r.URL.Query())
		writeJSON(w, c.report())
	})
	mux.HandleFunc("POST "+pathHello, c.serveHello)
	mux.HandleFunc("POST "+transport.PathAnnounce, c.serveAnnounce)
	mux.HandleFunc("POST "+pathHooks, c.Hooks.serve)
	mux.HandleFunc("POST "+transport.PathCertificates, c.serveCertificates)
	mux.HandleFunc("GET "+transport.PathTrust, c.serveTrust)
	mux.HandleFunc("POST "+pathNodeToken, c.serveNodeToken)
	mux.HandleFunc("GET "+pathMember, c.serveMember)
	mux.HandleFunc("POST "+pathRemoved, c.serveRemoved)
	mux.HandleFunc("POST "+transport.PathNudge, func(http.ResponseWriter, *http.Request) { c.Store.Look() })
	mux.HandleFunc("POST "+datadir.PathOwnerToken, c.serveOwnerToken)
	mux.HandleFunc("POST "+pathRecoverToken, c.serveRecoverToken)
	mux.HandleFunc("GET "+datadir.PathOwnerBackup, c.serveOwnerBackup)
	mux.HandleFunc("GET "+pathBackup, c.serveBackup)
	mux.HandleFunc("POST "+pathTransferred, c.serveTransferred)
	mux.HandleFunc("GET "+pathMirror, c.serveMirror)
	mux.HandleFunc("GET "+pathEvents, c.serveEvents)
	mux.HandleFunc("GET "+pathFigures, func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, c.ownFigures()) })
	return mux
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
