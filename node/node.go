// Package node is one member of a cluster as a value: Start opens its parts in order and Close closes them in reverse.
// `muster serve`, and tests with members in their own process, start the same value.
//
// It does not read a command line, catch signals or speak to a service manager: package cli does. It only connects the
// parts: cluster has the loops, handlers the answers, store the state.
package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"filippo.io/age"

	"muster/certs"
	"muster/cluster"
	"muster/cluster/datadir"
	"muster/cluster/transport"
	"muster/handlers"
	"muster/internal/netlimit"
	"muster/store"
)

const (
	foundWithin    = time.Minute             // the backup of a founding may be large
	handOverWithin = 1500 * time.Millisecond // to hand leadership over at the end
	closeWithin    = time.Second             // of the database
	lookupWithin   = time.Second             // a query of the members table, for a waiting connection
)

// Node is a running member.
type Node struct {
	cfg Config
	log *slog.Logger

	dir       *datadir.Dir
	self      *datadir.Node // content of node.json
	leftOut   []uint64      // members, by a recovery that is not in the members table yet
	listeners listeners
	transport *transport.Transport
	book      *datadir.Book
	clients   *netlimit.Limiter
	leaf      atomic.Pointer[tls.Certificate] // of the API listener

	opened atomic.Pointer[store.Store] // Raft dials the others while the store is still being opened
	loops  atomic.Pointer[cluster.Cluster]
	store  *store.Store
	api    *handlers.Server

	serving context.Context // ends with the service of clients
	servers sync.WaitGroup
	failed  chan error            // why this member must end
	ended   atomic.Pointer[error] // why Wait has ended; nil before that and after an orderly end

	ready   bool
	closers []func() error // in the order of the parts
}

// Start opens the listeners, founds or joins a cluster if the data directory is not that of a member yet, and serves
// clients and other members until Close. It blocks until the member serves; ctx bounds only that. Errors are sentences
// for the operator. A failed start leaves an empty directory as it was.
func Start(ctx context.Context, cfg Config) (*Node, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if cfg.Say == nil {
		cfg.Say = func(string, ...any) {}
	}
	n := &Node{cfg: cfg, log: cfg.Logger, failed: make(chan error, 2)}
	if err := n.start(ctx); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// start opens the parts. Their order matters: steps that can fail without a trace come first.
func (n *Node) start(ctx context.Context) (err error) {
	if err := readLimits().check(); err != nil {
		return err
	}
	if n.dir, err = datadir.Open(n.cfg.Data); err != nil {
		return err
	}
	n.closing(n.dir.Close)
	if n.listeners, err = openListeners(&n.cfg); err != nil {
		return err
	}
	n.closing(n.listeners.close)
	if n.self, err = n.become(ctx); err != nil {
		return err
	}
	n.leftOut = n.leftOutNow()
	identity, err := n.dir.OwnIdentity()
	if err != nil {
		return err
	}
	if err := n.openTransport(); err != nil {
		return err
	}
	founding, err := n.dir.Founding()
	if err != nil {
		return err
	}
	if err := n.firstLeaf(); err != nil {
		return err
	}
	self := cluster.NewIncarnation(n.dir)
	if founding == nil {
		if err := n.introduce(ctx, self); err != nil {
			return err
		}
		self.Begin(n.dir)
	}
	if err := n.openStore(identity, founding); err != nil {
		return err
	}
	n.startLoops(ctx, self)
	n.serveMembers()
	if founding != nil {
		if err := n.awaitFounded(ctx); err != nil {
			return err
		}
	}
	n.serveClients()
	n.ready = true
	n.log.Info("serving", "node", n.self.NodeID, "name", n.self.Name, "cluster", n.self.ClusterID,
		"api", n.self.APIAddress, "raft", n.self.RaftAddress)
	return nil
}

// closing makes Close call f before all functions that were registered earlier.
func (n *Node) closing(f func() error) { n.closers = append(n.closers, f) }

// Close hands leadership over, ends all requests and stops the member. It blocks for a few seconds at most.
func (n *Node) Close() error {
	if n.ready {
		n.log.Info("stopping")
	}
	var failed error
	for len(n.closers) > 0 {
		last := len(n.closers) - 1
		failed = errors.Join(failed, n.closers[last]())
		n.closers = n.closers[:last]
	}
	if n.ready {
		n.log.Info("stopped")
	}
	return failed
}

func (n *Node) openStore(identity *age.X25519Identity, founding *store.Founding) (err error) {
	n.store, err = store.Open(store.Config{
		Dir:               n.dir.Path,
		NodeID:            n.self.NodeID,
		Identity:          identity,
		Founding:          founding,
		Logger:            n.log,
		Dial:              n.transport.DialRaft,
		Ask:               n.transport.Ask,
		Nudge:             n.transport.Nudge,
		Prepare:           n.transport.Prepare,
		Fetch:             n.fetchMirror,
		NetworkLatency:    n.cfg.NetworkLatency,
		SnapshotThreshold: n.cfg.SnapshotThreshold,
		SnapshotTrailing:  n.cfg.SnapshotTrailing,
		EventWindow:       n.cfg.EventWindow,
	})
	if err != nil {
		return startFailure(err, n.dir.Path)
	}
	n.closing(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
		defer cancel()
		return n.store.Close(ctx)
	})
	n.opened.Store(n.store)
	n.book.UseTable(n.store.Members.RaftAddress)
	return nil
}

// fetchMirror fetches the mirror of another member. The store may need one before the loops run.
func (n *Node) fetchMirror(ctx context.Context, after uint64, path string) (bool, error) {
	loops := n.loops.Load()
	if loops == nil {
		return false, nil
	}
	return loops.FetchMirror(ctx, after, path)
}

// startLoops starts the member's own loops. At the end, leadership is handed over first, while clients are still served
// and requests forwarded.
func (n *Node) startLoops(ctx context.Context, self cluster.Incarnation) {
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	n.serving = serving
	n.closing(func() error {
		n.api.EndStreams()
		stop()
		n.servers.Wait()
		return nil
	})
	n.closing(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), handOverWithin)
		defer cancel()
		n.store.HandOver(ctx)
		if n.ready && n.ended.Load() == nil {
			n.loops.Load().Goodbye()
		}
		return nil
	})
	n.clients = n.cfg.clients()
	loops := cluster.Start(cluster.Config{
		Connections: n.clients,
		Workloads:   n.listeners.spiffe,
		Store:       n.store,
		Transport:   n.transport,
		Book:        n.book,
		Logger:      n.log,
		Hooks:       &cluster.Hooks{Drain: n.cfg.DrainHooks, Resume: n.cfg.ResumeHooks, Node: *n.self, Log: n.log},
		Dir:         n.dir,
		Incarnation: self,
		Given:       cluster.Given{Name: n.cfg.Name, Mode: n.cfg.Mode, Zone: n.cfg.Zone},
		ReloadHTTP:  n.Reload,
		PeerPing:    n.cfg.PeerPing,
		DiskReserve: n.cfg.DiskReserve,
		Self: store.Announcement{
			RaftAddress:   n.self.RaftAddress,
			APIAddress:    n.self.APIAddress,
			BinaryVersion: n.cfg.Version,
			MaxSchema:     store.LatestSchema(),
		},
	})
	n.closing(func() error { loops.Close(); return nil })
	n.loops.Store(loops)
	n.api = newAPI(n, loops)
}

// serveMembers serves other members: requests of loops, and requests that other members forward.
func (n *Node) serveMembers() {
	n.loops.Load().Serve(n.listeners.raft, n.api.Internal())
}

// serveClients serves clients until serving ends.
func (n *Node) serveClients() {
	n.servers.Go(func() { n.api.KeepRefusals(n.serving) })
	secure := tls.NewListener(n.clients.Listener(n.listeners.api), &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return n.leaf.Load(), nil },
	})
	n.servers.Go(func() { n.failed <- n.api.Serve(n.serving, secure, n.api.API()) })
	if plain := n.listeners.plain; plain != nil {
		n.log.Warn("serving the join WITHOUT TLS: tokens and keys pass in clear text", "address", n.cfg.PlainHTTP)
		n.servers.Go(func() {
			n.failed <- n.api.Serve(n.serving, n.clients.Listener(plain), n.api.Plain())
		})
	}
}

// awaitFounded waits for the first transaction and deletes its record.
func (n *Node) awaitFounded(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, foundWithin)
	defer cancel()
	if _, err := n.store.AwaitLeader(ctx); err != nil {
		return fmt.Errorf("the cluster is not founded yet: %w", err)
	}
	for changed := n.store.Mirror.Changed(); n.store.Mirror.Revision() == 0; changed = n.store.Mirror.Changed() {
		select {
		case <-changed:
		case <-ctx.Done():
			return errors.New("the mirror was not made in time")
		}
	}
	return n.dir.Founded()
}

// Wait blocks until ctx ends and then returns nil, or until the member must stop and then returns the reason:
// datadir.ErrRemoved, a *cluster.TwinError, a listener that has ended, or a different founding. The caller must still
// call Close.
func (n *Node) Wait(ctx context.Context) error {
	err := n.wait(ctx)
	if err != nil {
		n.ended.Store(&err)
	}
	return err
}

func (n *Node) wait(ctx context.Context) error {
	loops := n.loops.Load()
	differs, stop := context.WithCancel(n.serving)
	defer stop()
	select {
	case <-ctx.Done():
		return nil
	case err := <-n.failed:
		return err
	case err := <-n.differs(differs):
		return err
	case err := <-loops.Twin():
		n.log.Error(err.Error())
		return err
	case err := <-loops.Outlived():
		n.log.Error(err.Error())
		return err
	case <-loops.Removed():
		n.log.Error(datadir.ErrRemoved.Error())
		return datadir.ErrRemoved
	}
}

// firstLeaf makes the API listener use the certificate in the data directory. While that is damaged, clients are shown
// one that they do not trust: the member serves the others, and a leader issues another certificate.
func (n *Node) firstLeaf() error {
	err := n.Reload()
	if err == nil || !n.dir.HTTPDamaged() {
		return err
	}
	n.log.Warn("clients cannot trust this member's API until a leader has issued another certificate", "err", err)
	own, err := certs.NewCA(certs.HTTP, n.self.ClusterID, time.Now())
	if err != nil {
		return err
	}
	n.leaf.Store(&tls.Certificate{Certificate: [][]byte{own.Cert.Raw}, PrivateKey: own.Key})
	return nil
}

// Reload makes the API listener use the certificate in the data directory. After an error it keeps the present one.
func (n *Node) Reload() error {
	leaf, err := tls.LoadX509KeyPair(n.dir.HTTPFiles())
	if err != nil {
		return fmt.Errorf("the API certificate cannot be used: %w", err)
	}
	n.leaf.Store(&leaf)
	return nil
}

// Sentence describes the state of this member in a few words.
func (n *Node) Sentence() string { return n.loops.Load().Sentence() }

// Lively reports, for a watchdog, whether the loops of this member run.
func (n *Node) Lively() bool { return n.loops.Load().Lively() }

// startFailure adds the known causes of an error with which the Raft server does not start.
func startFailure(err error, dir string) error {
	if what, known := store.Diagnose(err); known {
		return fmt.Errorf("%w\n%s; %s\nmuster doctor --data %s looks at the whole directory", err, what.What, what.Next, dir)
	}
	return fmt.Errorf("%w\nmuster doctor --data %s looks for the cause", err, dir)
}
