package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"muster/cli/process"
	"muster/cluster/datadir"
	"muster/node"
	"muster/store"
)

// serveFlags is the command line of `muster serve`: a node.Config, and flags that need parsing first.
type serveFlags struct {
	node.Config
	file                    string // --config
	data, advertise, mode   string
	logLevel, logFormat     string
	drainHooks, resumeHooks hookFlag
	peers                   peerFlag
	given                   map[string]bool // flags set on the command line
	founding                node.Founding   // with the defaults
	diskReserve, restoreMax string
}

// hookFlag is a repeatable flag NAME=COMMAND.
type hookFlag struct{ list []node.Hook }

func (h *hookFlag) Set(s string) error {
	hook, err := node.ParseHook(s)
	h.list = append(h.list, hook)
	return err
}

func (h *hookFlag) String() string { return "" }
func (h *hookFlag) Type() string   { return "NAME=COMMAND" }

func newServeCommand(env *environment) *cobra.Command {
	f := serveFlags{Config: node.Default(), founding: node.DefaultFounding}
	cmd := &cobra.Command{
		Use:   "serve --data DIR [--join TOKEN]",
		Short: "Run a member: found a cluster, join one, or start again",
		Long: `Run a member of the cluster in the foreground.

With an empty data directory and no token it founds a cluster and writes DIR/admin.token and DIR/ca.crt.
With --join TOKEN it joins the cluster of the token. With the data directory of a member it starts that member again and
ignores the token, so the first and every later start use the same command.`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.read(cmd); err != nil {
				return err
			}
			return serve(cmd.Context(), env, f)
		},
	}
	f.register(cmd)
	return cmd
}

// register adds the flags of serve to a command.
func (f *serveFlags) register(cmd *cobra.Command) {
	configFlag(cmd, &f.file)
	f.registerMember(cmd.Flags())
	f.registerFounding(cmd.Flags())
	f.registerRaft(cmd.Flags())
	registerLimits(cmd.Flags(), &f.Config)
	complete(cmd, "mode", store.ModeFull, store.ModeReplicate)
	complete(cmd, "log-level", "debug", "info", "warn", "error")
}

// registerMember adds the flags that describe the member: its addresses, its name, its hooks, its log.
func (f *serveFlags) registerMember(flags *pflag.FlagSet) {
	flags.StringVar(&f.data, "data", "", "data directory")
	flags.StringVar(&f.Mark, "mark", "", "file outside of --data that records which member this machine is; with such "+
		"a record no cluster is founded in an empty data directory, as when its disk is not mounted")
	flags.StringVar(&f.Name, "name", "", "name of this member (default: the host name)")
	flags.StringVar(&f.API, "api", f.API, "address of the API listener")
	flags.StringVar(&f.Raft, "raft", f.Raft, "address of the cluster listener")
	flags.StringVar(&f.advertise, "advertise", "",
		"host or IP address at which others reach this member (default: that "+
			"of --api and --raft)")
	flags.StringVar(&f.Join, "join", "", "join token; @FILE reads it from a file (or MUSTER_JOIN_TOKEN)")
	flags.Var(&f.peers, "peer", "present address of another member's cluster listener, when members have moved; "+
		"repeatable (or MUSTER_PEERS, comma-separated)")
	flags.StringVar(&f.mode, "mode", store.ModeFull, "full, or replicate for a member that never votes")
	flags.StringVar(&f.Zone, "zone", "", "zone of this member: members of one zone may fail together; "+
		"votes are spread over zones; none removes it from its zone (default: unchanged)")
	flags.StringVar(&f.PlainHTTP, "plain-http", "",
		"also serve the join, status and metrics without TLS at this address")
	flags.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	flags.StringVar(&f.logFormat, "log-format", "text", "text or json")
	flags.Var(&f.drainHooks, "drain-hook", "command to run here when this member is drained; repeatable, 5 s each")
	flags.Var(&f.resumeHooks, "resume-hook", "command to run here when this member is resumed; repeatable, 5 s each")
	flags.BoolVar(&f.Rejoin, "rejoin", false, "get new certificates with the join token: for a member whose "+
		"certificates the cluster no longer trusts")
	flags.StringVar(&f.SpiffeSocket, "spiffe-socket", "", "also serve the SPIFFE Workload API at this Unix socket, an "+
		"absolute path")
}

// registerFounding adds the flags of the first start of a cluster.
func (f *serveFlags) registerFounding(flags *pflag.FlagSet) {
	flags.StringVar(&f.founding.OverlayCIDR, "overlay-cidr", f.founding.OverlayCIDR,
		"addresses of the overlay network, when founding")
	flags.IntVar(&f.founding.OverlaySlice, "overlay-slice", f.founding.OverlaySlice,
		"prefix length of each member's slice, when founding")
	flags.StringVar(&f.Founding.CACert, "http-ca-cert", "",
		"file with your own CA certificate for the API (PEM), when "+
			"founding")
	flags.StringVar(&f.Founding.CAKey, "http-ca-key", "",
		"file with its private key (PEM, not encrypted), when founding")
	flags.StringVar(&f.founding.Datacenter, "datacenter", f.founding.Datacenter,
		"name of the datacenter, as other clusters see it, when founding")
}

// registerRaft adds the flags of replication, storage and the cluster listener.
func (f *serveFlags) registerRaft(flags *pflag.FlagSet) {
	flags.DurationVar(&f.NetworkLatency, "network-latency", f.NetworkLatency,
		"one-way latency between members; elections take 15 to 30 times as long")
	flags.Uint64Var(&f.SnapshotThreshold, "snapshot-threshold", f.SnapshotThreshold,
		"Raft log entries between two snapshots")
	flags.Uint64Var(&f.SnapshotTrailing, "snapshot-trailing", f.SnapshotTrailing,
		"Raft log entries kept after a snapshot, at most the size of the snapshot")
	flags.IntVar(&f.EventWindow, "event-window", f.EventWindow,
		"newest events kept in memory for readers of the stream")
	flags.DurationVar(&f.PeerPing, "peer-ping", f.PeerPing, "silence after which the other side of a peering is asked "+
		"whether it is there")
	_ = flags.MarkHidden("peer-ping")
	flags.StringVar(&f.restoreMax, "restore-limit", "16GiB", "largest database, unpacked, that a restore through this "+
		"member takes while it leads")
	flags.IntVar(&f.ClusterConnections.All, "cluster-connections", 0,
		"concurrent connections of the cluster listener (default: half of the process's open-files limit)")
	flags.IntVar(&f.ClusterConnections.Strangers, "cluster-strangers", 0,
		"of these, without a credential yet; the oldest is closed for the next (default 1024)")
	flags.IntVar(&f.ClusterConnections.PerAddress, "cluster-strangers-per-address", 0,
		"of these, from one address, or one /64 with IPv6 (default 512)")
	flags.StringVar(&f.diskReserve, "disk-reserve", "", "free disk space below which this member gives leadership and "+
		"vote away: 256MiB, 5%, 0 for never (default: 256 MiB, or 5 % where that is less)")
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

// stopWithin bounds the stop of a member (leadership, requests, database), so that the process exits within 5 s.
const stopWithin = 4500 * time.Millisecond

// serve runs a member until ctx ends.
func serve(ctx context.Context, env *environment, f serveFlags) error {
	service := process.NewService(env.stderr)
	env.stderr = service.Lines() // Main closes it after the last line
	defer service.Close()
	cfg, err := f.config(env)
	if err != nil {
		return err
	}
	cfg.Collectors = []prometheus.Collector{service.Collector()}
	service.Logs(cfg.Logger)
	member, err := node.Start(ctx, cfg)
	switch {
	case err != nil && ctx.Err() != nil:
		cfg.Logger.Info("stopped before it served: the same command starts it again", "err", err)
		return nil
	case err != nil:
		return err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	managed := make(chan struct{})
	go func() {
		defer close(managed)
		service.Run(running, member.Reload, member.Sentence, member.Lively)
	}()
	failed := member.Wait(ctx)
	service.Notify(daemon.SdNotifyStopping + "\nSTATUS=stopping")
	failed = errors.Join(failed, process.Stop(member.Close, stopWithin, env.stderr))
	if errors.Is(failed, process.ErrNotStopped) {
		cfg.Logger.Error(process.ErrNotStopped.Error())
	}
	stop()
	<-managed
	return failed
}

// config returns the configuration of the member that the command line describes.
func (f *serveFlags) config(env *environment) (cfg node.Config, err error) {
	cfg = f.Config
	if cfg.APIAddress, cfg.RaftAddress, err = f.addresses(); err != nil {
		return cfg, err
	}
	if cfg.Logger, err = f.logger(env); err != nil {
		return cfg, err
	}
	if f.diskReserve != "" {
		if cfg.DiskReserve, err = datadir.ParseReserve(f.diskReserve); err != nil {
			return cfg, fmt.Errorf("--disk-reserve: %w", err)
		}
	}
	if cfg.RestoreLimit, err = datadir.ParseSize(f.restoreMax); err != nil {
		return cfg, fmt.Errorf("--restore-limit: %w", err)
	}
	if f.NetworkLatency < time.Millisecond { // in a Config, 0 means the default
		return cfg, fmt.Errorf("--network-latency must be between 1ms and %v, not %v",
			node.MaxNetworkLatency, f.NetworkLatency)
	}
	cfg.Data, cfg.Say = f.data, env.say
	cfg.Version, cfg.Commit = Version, Commit
	cfg.Members = f.peers.list
	cfg.DrainHooks, cfg.ResumeHooks = f.drainHooks.list, f.resumeHooks.list
	if f.given["mode"] {
		cfg.Mode = f.mode
	}
	if f.given["datacenter"] {
		cfg.Founding.Datacenter = f.founding.Datacenter
	}
	if f.given["overlay-cidr"] {
		cfg.Founding.OverlayCIDR = f.founding.OverlayCIDR
	}
	if f.given["overlay-slice"] {
		if cfg.Founding.OverlaySlice = f.founding.OverlaySlice; cfg.Founding.OverlaySlice == 0 { // 0 means the default
			return cfg, store.CheckOverlay(f.founding.OverlayCIDR, 0)
		}
	}
	return cfg, nil
}

// tokenText resolves @FILE. An empty file is a usage error, like an empty flag.
func tokenText(s string) (string, error) {
	if name, ok := strings.CutPrefix(s, "@"); ok {
		if blank(name) {
			return "", &usageError{"--join or MUSTER_JOIN_TOKEN is @ without the name of a file"}
		}
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
