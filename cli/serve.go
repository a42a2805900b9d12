package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"muster/certs"
	"muster/cluster"
	"muster/handlers"
	"muster/netlimit"
	"muster/store"
)

// serveFlags is the command line of `muster serve`.
type serveFlags struct {
	data, name, api, raft, advertise, join, mode string
	plainHTTP, logLevel, logFormat               string
	overlayCIDR                                  string
	overlaySlice                                 int
	latency                                      time.Duration
	snapThreshold, snapTrailing                  uint64
	drainHooks, resumeHooks                      hookFlag
	eventWindow                                  int
	clusterConns                                 netlimit.Limits
	httpCACert, httpCAKey                        string
	rejoin                                       bool
	peers                                        peerFlag
	given                                        map[string]bool // flags that the command line has
	joinErr                                      error           // why the file with the token cannot be read; a member of old does not need it

	datacenter   string
	peerPing     time.Duration
	diskReserve  string
	restoreMax   string
	restoreBytes int64 // restoreMax, read
	limits       limitFlags
}

// hookFlag is a repeatable flag NAME=COMMAND.
type hookFlag struct{ list []cluster.Hook }

func (h *hookFlag) Set(s string) error {
	hook, err := cluster.ParseHook(s)
	h.list = append(h.list, hook)
	return err
}

func (h *hookFlag) String() string { return "" }
func (h *hookFlag) Type() string   { return "NAME=COMMAND" }

func newServeCommand(env *environment) *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve --data DIR [--join TOKEN]",
		Short: "Run a member: found a cluster, join one, or start again",
		Long: `Run a member of the cluster in the foreground.

With an empty data directory and no token it founds a cluster and writes DIR/admin.token and DIR/ca.crt.
With --join TOKEN it joins the cluster that made the token. With the data directory of a member it starts that
member again; a token is then ignored, so the same command serves for the first start and for every other.`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.data == "" {
				return usagef(cmd, "--data is missing")
			}
			if f.eventWindow < 16 || f.eventWindow > 1_000_000 {
				return usagef(cmd, "--event-window must be between 16 and 1000000, not %d", f.eventWindow)
			}
			if err := f.limits.check(); err != nil {
				return usagef(cmd, "%s", err)
			}
			if err := f.read(cmd); err != nil {
				return err
			}
			if (f.httpCACert == "") != (f.httpCAKey == "") {
				return usagef(cmd, "--http-ca-cert and --http-ca-key must be given together")
			}
			if f.rejoin && f.join == "" {
				return usagef(cmd, "--rejoin needs a join token: --join TOKEN")
			}
			var usage *usageError
			if f.join, f.joinErr = tokenText(f.join); errors.As(f.joinErr, &usage) {
				return usagef(cmd, "%s", usage.text)
			}
			return serve(cmd.Context(), env, f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.data, "data", "", "data directory")
	flags.StringVar(&f.name, "name", "", "name of this member (default: the host name)")
	flags.StringVar(&f.api, "api", "127.0.0.1:5000", "address of the API listener")
	flags.StringVar(&f.raft, "raft", "127.0.0.1:7000", "address of the cluster listener")
	flags.StringVar(&f.advertise, "advertise", "", "host or IP address that others reach this member by (default: that of --api and --raft)")
	flags.StringVar(&f.join, "join", "", "join token; @FILE reads it from a file (or MUSTER_JOIN_TOKEN)")
	flags.Var(&f.peers, "peer", "where another member's cluster listener is now, for when members have moved; repeatable (or MUSTER_PEERS, comma-separated)")
	flags.StringVar(&f.mode, "mode", store.ModeFull, "full, or replicate for a member that never votes")
	flags.StringVar(&f.plainHTTP, "plain-http", "", "also serve the join, status and metrics without TLS at this address")
	flags.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	flags.StringVar(&f.logFormat, "log-format", "text", "text or json")
	flags.Var(&f.drainHooks, "drain-hook", "command to run here when this member is drained; repeatable, 5 s each")
	flags.Var(&f.resumeHooks, "resume-hook", "command to run here when this member is resumed; repeatable, 5 s each")
	flags.StringVar(&f.overlayCIDR, "overlay-cidr", "10.200.0.0/16", "addresses of the overlay network, when founding")
	flags.IntVar(&f.overlaySlice, "overlay-slice", 28, "prefix length of each member's slice, when founding")
	flags.DurationVar(&f.latency, "network-latency", 24*time.Millisecond, "one-way latency between members; elections take 15 to 30 times as long")
	flags.Uint64Var(&f.snapThreshold, "snapshot-threshold", 256, "Raft log entries between two snapshots")
	flags.Uint64Var(&f.snapTrailing, "snapshot-trailing", 256, "Raft log entries kept behind a snapshot, at most as much as the snapshot is large")
	flags.IntVar(&f.eventWindow, "event-window", 2048, "newest events that are kept in memory for the readers of the stream")
	flags.StringVar(&f.httpCACert, "http-ca-cert", "", "file with your own CA certificate for the API (PEM), when founding")
	flags.StringVar(&f.httpCAKey, "http-ca-key", "", "file with its private key (PEM, not encrypted), when founding")
	flags.BoolVar(&f.rejoin, "rejoin", false, "get new certificates with the join token: for a member whose certificates the cluster does not trust any more")
	flags.StringVar(&f.datacenter, "datacenter", store.DefaultDatacenter, "name of the datacenter, as other clusters see it, when founding")
	flags.DurationVar(&f.peerPing, "peer-ping", cluster.DefaultPeerPing, "silence after which the other side of a peering is asked whether it is there")
	_ = flags.MarkHidden("peer-ping")
	flags.StringVar(&f.restoreMax, "restore-limit", "16GiB", "largest database, unpacked, that a restore through this member takes while it leads")
	flags.IntVar(&f.clusterConns.All, "cluster-connections", 0, "connections that the cluster listener takes at once (default half of the files that this process may open)")
	flags.IntVar(&f.clusterConns.Strangers, "cluster-strangers", 0, "of these, without a credential yet; the oldest gives way to the next (default 1024)")
	flags.IntVar(&f.clusterConns.PerAddress, "cluster-strangers-per-address", 0, "of these, from one address, or one /64 with IPv6 (default 512)")
	flags.StringVar(&f.diskReserve, "disk-reserve", "", "free disk space below which this member gives leadership and vote away: 256MiB, 5%, 0 for never (default: 256 MiB, or 5 % where that is less)")
	f.limits.register(flags)
	complete(cmd, "mode", store.ModeFull, store.ModeReplicate)
	complete(cmd, "log-level", "debug", "info", "warn", "error")
	return cmd
}

func (f *serveFlags) logger(env *environment) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return nil, fmt.Errorf("--log-level must be debug, info, warn or error, not %q", f.logLevel)
	}
	opts := &slog.HandlerOptions{Level: level}
	switch f.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(env.stderr, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(env.stderr, opts)), nil
	}
	return nil, fmt.Errorf("--log-format must be text or json, not %q", f.logFormat)
}

// listen opens a listener and says in one sentence why it cannot.
func listen(flag, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("--%s %s is in use by another process", flag, addr)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("--%s %s is not an address of this machine", flag, addr)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("--%s %s needs more rights than this process has", flag, addr)
	case err != nil:
		return nil, fmt.Errorf("--%s %s cannot be listened on: %w", flag, addr, err)
	}
	return l, nil
}

// serve runs a member until ctx ends. The order matters: what can fail without leaving a trace comes first.
func serve(ctx context.Context, env *environment, f serveFlags) error {
	service := newService(env)
	defer service.close()
	apiAddr, raftAddr, err := f.addresses()
	if err != nil {
		return err
	}
	log, err := f.logger(env)
	if err != nil {
		return err
	}
	service.logs(log)
	if f.mode != store.ModeFull && f.mode != store.ModeReplicate {
		return fmt.Errorf("--mode must be full or replicate, not %q", f.mode)
	}
	if !certs.ValidDatacenter(f.datacenter) {
		return fmt.Errorf("--datacenter must be a DNS label in lower case, not %q", f.datacenter)
	}
	if min(f.clusterConns.All, f.clusterConns.Strangers, f.clusterConns.PerAddress) < 0 {
		return errors.New("--cluster-connections, --cluster-strangers and --cluster-strangers-per-address must not be negative")
	}
	if f.snapThreshold == 0 || f.snapTrailing < f.snapThreshold {
		return errors.New("--snapshot-threshold must be at least 1, and --snapshot-trailing at least as much")
	}
	reserve := cluster.DefaultReserve
	if f.diskReserve != "" {
		if reserve, err = cluster.ParseReserve(f.diskReserve); err != nil {
			return fmt.Errorf("--disk-reserve: %w", err)
		}
	}
	if f.restoreBytes, err = cluster.ParseSize(f.restoreMax); err != nil {
		return fmt.Errorf("--restore-limit: %w", err)
	}
	dir, err := cluster.OpenDir(f.data)
	if err != nil {
		return err
	}
	defer dir.Close()
	apiListener, err := listen("api", f.api)
	if err != nil {
		return err
	}
	defer apiListener.Close()
	raftListener, err := listen("raft", f.raft)
	if err != nil {
		return err
	}
	defer raftListener.Close()
	node, err := becomeMember(ctx, env, dir, f, apiAddr, raftAddr)
	if err != nil {
		return err
	}
	return runMember(ctx, log, service, dir, node, f, reserve, apiListener, raftListener)
}

// becomeMember returns who this member is, founding or joining a cluster first if it is nobody yet.
func becomeMember(ctx context.Context, env *environment, dir *cluster.Dir, f serveFlags, apiAddr, raftAddr string) (*cluster.Node, error) {
	node, err := dir.Node()
	if err != nil {
		return nil, err
	}
	name := f.name
	if name == "" {
		if name, err = os.Hostname(); err != nil {
			name = "muster"
		}
	}
	plan := cluster.Plan{Name: name, NameGiven: f.given["name"], Mode: f.mode, APIAddress: apiAddr, RaftAddress: raftAddr, Version: Version,
		OverlayCIDR: f.overlayCIDR, OverlaySlice: f.overlaySlice, Datacenter: f.datacenter}
	switch {
	case (node == nil || f.rejoin) && f.joinErr != nil:
		return nil, f.joinErr
	case node == nil && f.join == "" && len(f.peers.list) > 0:
		return nil, fmt.Errorf("--peer says where other members are and %s is not the data directory of a member: give --join TOKEN too, "+
			"or the right --data; without --peer a new cluster would be founded", f.data)
	case node == nil && f.join == "":
		if plan.HTTPCACert, plan.HTTPCAKey, err = f.ownCA(); err != nil {
			return nil, err
		}
		if node, err = cluster.Found(dir, plan, time.Now()); err != nil {
			return nil, err
		}
		env.say("founding cluster %s; the administrator's token is in %s", node.ClusterID, dir.AdminFile())
	case node == nil:
		if node, err = joinCluster(ctx, env, dir, plan, f.join, nil); err != nil {
			return nil, err
		}
	default:
		if err := dir.CheckRemoved(node); err != nil {
			return nil, err
		}
		if err := checkSameCluster(node, f.join); err != nil {
			return nil, err
		}
		former := node.RaftAddress
		if f.rejoin {
			if node, err = joinCluster(ctx, env, dir, plan, f.join, node); err != nil {
				return nil, err
			}
		}
		if err := f.checkFixed(dir); err != nil {
			return nil, err
		}
		f.warnCA(env, dir)
		node.APIAddress, node.RaftAddress, node.Former = apiAddr, raftAddr, former
	}
	return node, nil
}

// ownCA reads the CA that an operator brings to the founding.
func (f *serveFlags) ownCA() (cert, key []byte, err error) {
	if f.httpCACert == "" {
		return nil, nil, nil
	}
	if cert, err = os.ReadFile(f.httpCACert); err != nil {
		return nil, nil, fmt.Errorf("--http-ca-cert cannot be read: %w", err)
	}
	if key, err = os.ReadFile(f.httpCAKey); err != nil {
		return nil, nil, fmt.Errorf("--http-ca-key cannot be read: %w", err)
	}
	return cert, key, nil
}

// runMember starts the parts of a member and stops them in the opposite order.
func runMember(ctx context.Context, log *slog.Logger, service *service, dir *cluster.Dir, node *cluster.Node, f serveFlags, reserve cluster.Reserve, apiListener, raftListener net.Listener) error {
	identity, err := dir.OwnIdentity()
	if err != nil {
		return err
	}
	creds, err := dir.Credentials(node)
	if err != nil {
		return err
	}
	founding, err := dir.Founding()
	if err != nil {
		return err
	}
	certFile, keyFile := dir.HTTPFiles()
	var current atomic.Pointer[tls.Certificate]
	reload := func() error {
		leaf, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return fmt.Errorf("the API certificate cannot be used: %w", err)
		}
		current.Store(&leaf)
		return nil
	}
	if err := reload(); err != nil {
		return err
	}

	// Raft dials the others while the store is still being opened.
	var opened atomic.Pointer[store.Store]
	book := cluster.NewBook(dir, node, f.peers.list, log)
	fence := func(id uint64) error {
		lookup, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if st := opened.Load(); st != nil {
			return cluster.Fence(lookup, st, node.Peers, id)
		}
		return store.ErrNoLeader
	}
	creds.Known = func(id uint64) string {
		lookup, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if st := opened.Load(); st != nil {
			return st.CertKey(lookup, id)
		}
		return ""
	}
	transport := cluster.NewTransport(creds, nil, fence, log)
	transport.UseBook(book)
	transport.Limits = cluster.ListenerLimits(f.clusterConns)
	transport.DialBound = max(cluster.DefaultDialBound, 8*f.latency) // TCP and TLS take four ways, and machines are busy
	self := cluster.NewIncarnation()
	if founding == nil {
		if err := cluster.Introduce(ctx, transport, dir, node, self, node.Former); err != nil {
			transport.Close()
			log.Error(err.Error())
			return err
		}
		if err := dir.Moved(node); err != nil { // not before: a copy must not forget where it was copied from
			return err
		}
	}
	var loops *cluster.Cluster
	var running atomic.Bool // the store starts first and may want a mirror before the loops are there
	fetch := func(ctx context.Context, after uint64, path string) (bool, error) {
		if !running.Load() {
			return false, nil
		}
		return loops.FetchMirror(ctx, after, path)
	}
	st, err := store.Open(store.Config{Dir: dir.Path, NodeID: node.NodeID, Identity: identity, Founding: founding, Logger: log,
		Dial: transport.DialRaft, Ask: transport.Ask, Nudge: transport.Nudge, Fetch: fetch, NetworkLatency: f.latency,
		SnapshotThreshold: f.snapThreshold, SnapshotTrailing: f.snapTrailing, EventWindow: f.eventWindow})
	if err != nil {
		return startFailure(err, dir.Path)
	}
	opened.Store(st)
	book.UseTable(st.RaftAddress)
	hooks := &cluster.Hooks{Drain: f.drainHooks.list, Resume: f.resumeHooks.list, Node: *node, Log: log}
	limiter := f.limits.limiter(log)
	loops = cluster.Start(cluster.Config{Connections: limiter, Store: st, Transport: transport, Logger: log, Hooks: hooks, Dir: dir, Incarnation: self, Given: f.differing(), ReloadHTTP: reload, PeerPing: f.peerPing,
		DiskReserve: reserve,
		Self:        store.Announcement{RaftAddress: node.RaftAddress, APIAddress: node.APIAddress, BinaryVersion: Version, MaxSchema: store.LatestSchema()}})
	running.Store(true)
	api := handlers.New(handlers.Config{Limits: f.limits.Limits, Connections: limiter, Store: st, Peers: transport, ClusterID: node.ClusterID, Name: node.Name, Version: Version, Commit: Commit, PlainHTTP: f.plainHTTP,
		Autopilot: func() any { return loops.Autopilot() }, Alive: loops.Alive, Wake: loops.Wake, Logger: log,
		PrepareRemoval: loops.PrepareRemoval, NewJoinKeys: cluster.NewJoinKeys,
		Installed: loops.Installed,
		CanRemove: loops.CanRemove, Reachable: loops.Reachable, CanLead: loops.CanLead, Transferred: loops.Transferred,
		Notices: loops.Notices,
		Disk:    func() any { return loops.Disk() }, DiskLow: loops.DiskLow, CannotStore: loops.CannotStore,
		Storing:        func() (string, any) { s := loops.Storing(); return s.Fault, s },
		MergeAutopilot: loops.MergeSettings,
		Schema:         func(ctx context.Context) (any, error) { return loops.Schema(ctx) },
		RestoreLimit:   f.restoreBytes, DiskRoom: func() int64 { return loops.Disk().Room() },
		MigrateSchema: func(ctx context.Context, actor store.Actor, exclude []uint64) (any, error) {
			return loops.Migrate(ctx, actor, exclude)
		},
		Diff:             func(ctx context.Context) (any, error) { return loops.Diff(ctx) },
		AutopilotConfig:  func(ctx context.Context, c store.Consistency) (any, uint64, error) { return loops.SettingsAt(ctx, c) },
		ReplaceAutopilot: loops.ReplaceSettings,
		Chain:            func() [][]byte { return current.Load().Certificate }, Collectors: []prometheus.Collector{loops, service.collector()},
		ExchangePeeringSecret: loops.ExchangePeeringSecret, MayDialPeer: loops.MayDialPeer,
		PeerStream: func(id string) handlers.PeerStream { return handlers.PeerStream(loops.PeerStatus(id)) },
		Leaf:       func() []byte { return current.Load().Certificate[0] }})
	internal := http.NewServeMux()
	loops.Internal(internal)
	internal.Handle("/", api.Internal())
	transport.Serve(raftListener, st, internal)

	if founding != nil {
		if err := awaitFounded(ctx, st, dir); err != nil {
			loops.Close()
			transport.Close()
			return errors.Join(err, closeStore(st))
		}
	}
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	refusals := make(chan struct{})
	go func() { defer close(refusals); api.KeepRefusals(serving) }()
	served := make(chan error, 2)
	tlsListener := tls.NewListener(limiter.Listener(apiListener), &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return current.Load(), nil }})
	go func() { served <- handlers.Serve(serving, tlsListener, api.API(), f.limits.Streams, log) }()
	if f.plainHTTP != "" {
		plain, err := listen("plain-http", f.plainHTTP)
		if err != nil {
			return err
		}
		log.Warn("serving the join WITHOUT TLS: tokens and keys pass in clear text", "address", f.plainHTTP)
		go func() { served <- handlers.Serve(serving, limiter.Listener(plain), api.Plain(), f.limits.Streams, log) }()
	}
	log.Info("serving", "node", node.NodeID, "name", node.Name, "cluster", node.ClusterID, "api", node.APIAddress, "raft", node.RaftAddress)

	managed := make(chan struct{})
	go func() {
		defer close(managed)
		service.run(serving, reload, loops.Sentence, loops.Lively)
	}()

	var failed error
	broken := false // the API listener has ended by itself
	select {
	case <-ctx.Done():
	case failed = <-served:
		broken = true
	case failed = <-f.fixed(serving, st, dir):
	case failed = <-loops.Twin():
		log.Error(failed.Error())
	case <-loops.Removed():
		failed = cluster.ErrRemoved
		log.Error(failed.Error())
	}
	log.Info("stopping")
	service.notify(daemon.SdNotifyStopping + "\nSTATUS=stopping")
	// Leadership goes first, while this member still answers and passes requests on.
	loops.Close()
	handover, cancel := context.WithTimeout(context.WithoutCancel(ctx), 1500*time.Millisecond)
	st.HandOver(handover)
	cancel()
	api.EndStreams()
	stopServing()
	<-refusals
	<-managed
	if !broken {
		<-served
	}
	failed = errors.Join(failed, closeStore(st))
	transport.Close()
	log.Info("stopped")
	return failed
}

func closeStore(st *store.Store) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return st.Close(ctx)
}

// awaitFounded waits for the first transaction and forgets the record of it.
func awaitFounded(ctx context.Context, st *store.Store, dir *cluster.Dir) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute) // a backup may be large
	defer cancel()
	if _, err := st.AwaitLeader(ctx); err != nil {
		return fmt.Errorf("the cluster was not founded in time: %w", err)
	}
	for changed := st.MirrorChanged(); st.ReplicaRevision() == 0; changed = st.MirrorChanged() {
		select {
		case <-changed:
		case <-ctx.Done():
			return errors.New("the mirror was not made in time")
		}
	}
	return dir.Founded()
}

// tokenText resolves @FILE. A file that holds nothing is a usage error, like a flag that is given but empty.
func tokenText(s string) (string, error) {
	if name, ok := strings.CutPrefix(s, "@"); ok {
		data, err := os.ReadFile(name)
		if err != nil {
			return "", fmt.Errorf("--join: the token file cannot be read: %w", err)
		}
		if s = string(data); blank(s) {
			return "", &usageError{"the join token cannot be read: the file that --join or MUSTER_JOIN_TOKEN names is empty"}
		}
	}
	return strings.TrimSpace(s), nil
}
