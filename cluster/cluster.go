// Package cluster runs the background loops of a member: the leader probes the others, autopilot decides who votes, the
// reconcile loop applies the members table to the Raft configuration, and each member maintains its certificates, its
// disk and its addresses.
//
// It serves other members only. Package handlers serves clients, package store has the tables, and the packages below
// have connections, files, peerings, backups and workloads; DESIGN.md explains the design.
package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"muster/api"
	"muster/cluster/backup"
	"muster/cluster/datadir"
	"muster/cluster/peering"
	"muster/cluster/transport"
	"muster/cluster/workload"
	"muster/internal/addr"
	"muster/internal/netlimit"
	"muster/store"
)

const (
	roundEvery    = 500 * time.Millisecond
	roundRest     = 20 // a round may take 1/20 of the time
	maxRoundRest  = 5 * time.Second
	assignTimeout = 10 * time.Second
	pruneEvery    = time.Minute
	upgradeAfter  = 5 * time.Second
	pruneRest     = 50 * time.Millisecond
)

// Config holds the dependencies of the loops.
type Config struct {
	Store     *store.Store
	Transport *transport.Transport
	Book      *datadir.Book
	Self      store.Announcement
	Hooks     *Hooks
	Dir       *datadir.Dir
	// ReloadHTTP makes the API listener use the renewed certificate file.
	ReloadHTTP func() error
	// Incarnation identifies this process. Given has this member's attributes from the command line.
	Incarnation Incarnation
	Given       Given
	// silence after which the other cluster of a peering is pinged; 0: peering.DefaultPing
	PeerPing time.Duration
	Logger   *slog.Logger

	DiskReserve datadir.Reserve // disk space that the member keeps free

	Connections *netlimit.Limiter // of the listeners for clients; nil: no limit

	Workloads *workload.Listener // socket of the SPIFFE Workload API; nil: none
}

// member is the state that all loops share.
type member struct {
	Config
	log      *slog.Logger
	settings Settings
	kick     chan struct{} // wakes the leader's loop
}

// Cluster runs the loops of one member. The leader's loop is in term.
type Cluster struct {
	*member
	*view
	*keeper
	membership *membership
	gate       *gate
	twins      *twins
	issuer     *issuer
	announcer  *announcer
	renewal    *renewal
	owner      *owner
	events     *events
	historian  *historian
	peers      *peering.Streams
	backups    *backup.Maker
	signer     *workload.Signer
	workloads  *workload.API // nil: there is no socket

	told sync.Map // removed members that were announced to the others
	stop context.CancelFunc
	done sync.WaitGroup
}

// Start starts the loops; Close ends them.
func Start(cfg Config) *Cluster {
	m := &member{Config: cfg, log: cfg.Logger, settings: Settings{cfg.Store}, kick: make(chan struct{}, 1)}
	c := &Cluster{member: m, view: newView(m)}
	c.twins = newTwins(m)
	c.keeper = newKeeper(m, c.view, c.twins.kept)
	c.membership = &membership{member: m, twins: c.twins, gone: make(chan struct{})}
	c.gate = &gate{m}
	c.issuer = &issuer{m}
	c.announcer = &announcer{
		member:     m,
		view:       c.view,
		membership: c.membership,
		twins:      c.twins,
		issuer:     c.issuer,
	}
	c.renewal = &renewal{member: m, issuer: c.issuer, announcer: c.announcer, due: make(chan struct{}, 1)}
	c.owner = &owner{member: m, archives: make(chan struct{}, 1)}
	c.signer = &workload.Signer{Store: cfg.Store, ClusterID: cfg.Transport.ClusterID()}
	c.historian = &historian{m, c.view, newHistory(time.Now())}
	c.events = &events{member: m, closing: make(chan struct{})}
	c.peers = peering.New(peering.Config{
		Store:     cfg.Store,
		Transport: cfg.Transport,
		Alive:     c.Alive,
		Ping:      cfg.PeerPing,
		Loopback:  addr.OnLoopback(cfg.Self.RaftAddress),
		Logger:    cfg.Logger,
	})
	c.backups = backup.NewMaker(c.backupConfig())
	ctx, cancel := context.WithCancel(context.Background())
	c.stop = cancel
	c.serveWorkloads(ctx)
	for _, loop := range []func(context.Context){
		c.peers.Run,
		c.events.follow,
		c.renewal.run,
		c.lead,
		c.membership.run,
		c.announcer.run,
		c.keeper.run,
		c.owner.run,
		c.historian.run,
	} {
		c.done.Go(func() { loop(ctx) })
	}
	return c
}

// serveWorkloads serves the SPIFFE Workload API, if there is a socket.
func (c *Cluster) serveWorkloads(ctx context.Context) {
	if c.Workloads == nil {
		return
	}
	remote := &workload.Member{Store: c.Store, Transport: c.Transport, Signer: c.signer}
	w, err := workload.New(workload.Config{
		Listener:  c.Workloads,
		ClusterID: c.Transport.ClusterID(),
		NodeID:    c.Store.NodeID(),
		Registry:  remote,
		Leader:    remote,
		Kept:      c.Dir.WorkloadsFile(),
		Logger:    c.log,
	})
	if err != nil { // an invalid cluster id
		c.log.Error("the SPIFFE Workload API cannot be served", "err", err)
		return
	}
	c.workloads, c.renewal.workloads = w, w
	c.done.Go(func() { w.Run(ctx) })
}

// Peerings returns this member's streams to other clusters.
func (c *Cluster) Peerings() *peering.Streams { return c.peers }

// Backups returns the maker of this member's backup files.
func (c *Cluster) Backups() *backup.Maker { return c.backups }

// Close ends the loops and waits for them.
func (c *Cluster) Close() {
	c.stop()
	close(c.events.closing)
	c.backups.Close()
	c.done.Wait()
	c.Book.Save()
}

// Wake makes the leader's loop run at once, after a change that concerns it.
func (m *member) Wake() {
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

func (m *member) otherVoters() bool {
	for _, v := range m.Store.Servers() {
		if v.Role == store.RoleVoter && v.NodeID != m.Store.NodeID() {
			return true
		}
	}
	return false
}

func (m *member) actor() store.Actor {
	return store.Actor{Name: "autopilot", NodeID: m.Store.NodeID()}
}

// Serve serves other members and other clusters at l until the transport is closed: this package's requests, and with
// clients the requests that other members forward.
func (c *Cluster) Serve(l net.Listener, clients http.Handler) {
	mux := c.internal()
	mux.Handle("/", clients)
	c.Transport.Serve(l, transport.Service{
		Replica:      c.Store,
		Handler:      mux,
		Confirm:      c.gate.confirm,
		Recovered:    c.recoveredSince,
		Alternatives: c.gate.elsewhere,
		Peers:        c.peers.Serve,
	})
}

// internal serves the requests of this package.
func (c *Cluster) internal() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+transport.PathProbe, func(w http.ResponseWriter, r *http.Request) {
		c.hear(r.URL.Query())
		c.twins.hearTwin(r.URL.Query())
		writeJSON(w, c.report())
	})
	mux.HandleFunc("POST "+pathHello, c.twins.serveHello)
	mux.HandleFunc("POST "+transport.PathAnnounce, c.announcer.serveAnnounce)
	mux.HandleFunc("POST "+pathGoodbye, c.announcer.serveGoodbye)
	mux.HandleFunc("POST "+pathHooks, c.Hooks.serve)
	mux.HandleFunc("POST "+transport.PathCertificates, c.issuer.serveCertificates)
	mux.HandleFunc("GET "+transport.PathTrust, c.issuer.serveTrust)
	mux.HandleFunc("POST "+pathNodeToken, c.issuer.serveNodeToken)
	c.signer.Handle(mux, c.log)
	mux.HandleFunc("GET "+pathMember, c.gate.serveMember)
	mux.HandleFunc("POST "+pathRemoved, c.gate.serveRemoved)
	mux.HandleFunc("POST "+transport.PathNudge, func(http.ResponseWriter, *http.Request) { c.Store.Look() })
	mux.HandleFunc("POST "+datadir.PathOwnerToken, c.owner.serveOwnerToken)
	mux.HandleFunc("POST "+pathRecoverToken, c.owner.serveRecoverToken)
	mux.HandleFunc("GET "+datadir.PathOwnerBackup, c.owner.serveOwnerBackup)
	mux.HandleFunc("GET "+pathBackup, c.owner.serveBackup)
	mux.HandleFunc("POST "+pathTransferred, c.serveTransferred)
	mux.HandleFunc("POST "+transport.PathPrepare, c.servePrepare)
	mux.HandleFunc("GET "+pathMirror, c.serveMirror)
	mux.HandleFunc("GET "+pathEvents, c.events.serve)
	mux.HandleFunc("GET "+pathFigures, c.historian.serve)
	c.backups.Register(mux)
	return mux
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// Twin receives a *TwinError when this process must end because another one has its identity.
func (c *Cluster) Twin() <-chan error { return c.twins.twin }

// Removed is closed when this member has been removed from the cluster.
func (c *Cluster) Removed() <-chan struct{} { return c.membership.gone }

// Outlived returns the channel on which this member learns that it must end, because a recovery has left it out, or the
// same cluster was recovered on another machine before.
func (c *Cluster) Outlived() <-chan error { return c.strays.outlived }

// History returns the last hour as this member recorded it.
func (c *Cluster) History() api.History { return c.historian.History() }

// Notices returns what this member's operator should do now, a sentence each: the problem, a semicolon, the remedy. It
// returns nil when there is nothing to do.
func (c *Cluster) Notices() []string {
	list := append(c.announcer.notices(), c.clocks.notices(time.Now())...)
	list = append(list, c.strays.notices()...)
	if d := c.Disk(); d.Low {
		list = append(list, fmt.Sprintf("this member is low on disk space: %d MiB are free, the reserve is %d MiB; "+
			"make room, but delete "+
			"nothing in the data directory", d.Free>>20, d.Reserve>>20))
	}
	return list
}
