package node

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster/certs"
	"muster/cluster"
	"muster/cluster/datadir"
	"muster/cluster/peering"
	"muster/cluster/workload"
	"muster/handlers"
	"muster/internal/netlimit"
	"muster/store"
)

// Config describes a member: its addresses, listeners and limits. Begin with Default and set Data and Logger.
type Config struct {
	Data string // data directory; created if it does not exist

	// Mark is a file outside of Data that says which member this machine is. With it, an empty Data founds no cluster.
	// Empty: no mark.
	Mark string

	API, Raft string // listeners, HOST:PORT; port 0 takes a free one
	PlainHTTP string // listener without TLS, HOST:PORT; empty: none
	// APIAddress and RaftAddress are what others dial, HOST:PORT; empty: the address of the listener.
	APIAddress, RaftAddress string

	Name string // empty: the host's name, or another one if the cluster has that name already
	Mode string // store.ModeFull or store.ModeReplicate; empty: full, or as in the members table

	// Zone is the zone of the member, see store.CheckZone; empty: as in the members table; store.NoZone: none.
	Zone string

	// Join is the token of a cluster to join. Empty: found a cluster in an empty directory. A member that has joined needs
	// none.
	Join    string
	JoinErr error // why the token cannot be read; ignored by a member that has joined
	Rejoin  bool  // get new certificates with the token

	// Members has present addresses of cluster listeners, for members that have moved.
	Members []datadir.Place

	Founding Founding

	NetworkLatency                      time.Duration // one-way, between members; elections take 15 to 30 times as long
	SnapshotThreshold, SnapshotTrailing uint64        // Raft log entries between two snapshots, and kept after one
	EventWindow                         int           // events in memory; 0: the store's default
	DiskReserve                         datadir.Reserve
	RestoreLimit                        int64         // bytes, unpacked; 0: the default of handlers
	PeerPing                            time.Duration // 0: peering.DefaultPing
	DrainHooks, ResumeHooks             []Hook
	SpiffeSocket                        string // absolute path of the SPIFFE Workload API; empty: none

	Limits             handlers.Limits // requests of clients
	Connections        netlimit.Limits // of clients
	ClusterConnections netlimit.Limits // to the cluster listener; zero values: transport.DefaultLimits

	Version, Commit string
	Logger          *slog.Logger
	Collectors      []prometheus.Collector // for /metrics, in addition to the member's own

	// Say prints a line, without a line break, for the person who starts the member; may be nil.
	Say func(format string, args ...any)
}

// Hook is a command that a member runs when it is drained or resumed.
type Hook = cluster.Hook

// ParseHook parses NAME=COMMAND.
func ParseHook(text string) (Hook, error) { return cluster.ParseHook(text) }

// Founding is fixed when a cluster is founded. Empty values mean the defaults. A member with other values than its
// cluster does not start.
type Founding struct {
	Datacenter   string // DNS label in lower case
	OverlayCIDR  string // addresses of the overlay network
	OverlaySlice int    // prefix length of each member's slice
	// CACert and CAKey are files with the operator's CA for the API, PEM. They may differ from the cluster's CA later.
	CACert, CAKey string
}

// DefaultFounding has the defaults of Founding.
var DefaultFounding = Founding{Datacenter: store.DefaultDatacenter, OverlayCIDR: "10.200.0.0/16", OverlaySlice: 28}

// Default returns the configuration of `muster serve` without flags.
func Default() Config {
	return Config{
		API:               "127.0.0.1:5000",
		Raft:              "127.0.0.1:7000",
		NetworkLatency:    24 * time.Millisecond,
		SnapshotThreshold: 256,
		SnapshotTrailing:  256,
		EventWindow:       2048,
		DiskReserve:       datadir.DefaultReserve,
		RestoreLimit:      16 << 30,
		PeerPing:          peering.DefaultPing,
		Limits:            handlers.DefaultLimits,
		Connections:       netlimit.Limits{All: 8192, PerAddress: 768, Bytes: 1_000_000},
	}
}

// MaxNetworkLatency is the maximum latency between members: an election takes up to 30 times as long.
const MaxNetworkLatency = 5 * time.Second

// Check rejects an invalid configuration, before any side effect. Its errors name the flags of `muster serve`.
func (c *Config) Check() error {
	if c.Mode != "" && c.Mode != store.ModeFull && c.Mode != store.ModeReplicate {
		return fmt.Errorf("--mode must be full or replicate, not %q", c.Mode)
	}
	if c.Zone != "" {
		if err := store.CheckZone(c.Zone); err != nil {
			return fmt.Errorf("--zone: %w", err)
		}
	}
	if c.Name != "" {
		if err := store.CheckMemberName(c.Name); err != nil {
			return fmt.Errorf("--name: %w", err)
		}
	}
	if c.SpiffeSocket != "" {
		if err := workload.CheckSocketPath(c.SpiffeSocket); err != nil {
			return err
		}
	}
	if c.Founding.Datacenter != "" && !certs.ValidDatacenter(c.Founding.Datacenter) {
		return fmt.Errorf("--datacenter must be a DNS label in lower case, not %q", c.Founding.Datacenter)
	}
	if min(c.ClusterConnections.All, c.ClusterConnections.Strangers, c.ClusterConnections.PerAddress) < 0 {
		return errors.New("--cluster-connections, --cluster-strangers and --cluster-strangers-per-address must not be " +
			"negative")
	}
	if c.NetworkLatency < 0 || c.NetworkLatency > MaxNetworkLatency {
		return fmt.Errorf("--network-latency must be between 1ms and %v, not %v", MaxNetworkLatency, c.NetworkLatency)
	}
	for _, x := range [][4]string{{"--api", c.API, "--raft", c.Raft}, {"--plain-http", c.PlainHTTP, "--api", c.API},
		{"--plain-http", c.PlainHTTP, "--raft", c.Raft}} {
		if x[1] == x[3] && x[1] != "" && !strings.HasSuffix(x[1], ":0") {
			return fmt.Errorf("%s and %s cannot share the address %s", x[0], x[2], x[1])
		}
	}
	if c.SnapshotThreshold == 0 || c.SnapshotTrailing < c.SnapshotThreshold {
		return errors.New("--snapshot-threshold must be at least 1, and --snapshot-trailing at least as much")
	}
	return nil
}

// orDefault returns f with the defaults for empty values.
func (f Founding) orDefault() Founding {
	if f.Datacenter == "" {
		f.Datacenter = DefaultFounding.Datacenter
	}
	if f.OverlayCIDR == "" {
		f.OverlayCIDR = DefaultFounding.OverlayCIDR
	}
	if f.OverlaySlice == 0 {
		f.OverlaySlice = DefaultFounding.OverlaySlice
	}
	return f
}

// clients limits the connections of the listeners for clients to half of the file descriptors. The other half is for
// the cluster listener, the database and its files.
func (c *Config) clients() *netlimit.Limiter {
	limits := c.Connections
	if files, err := netlimit.Descriptors(); err != nil {
		c.Logger.Warn("the limit of open files is not known", "err", err)
	} else if most := max(files/2, 1); most < limits.All {
		c.Logger.Warn("fewer connections than --max-connections are taken: raise the limit of open files (LimitNOFILE)",
			"connections", most, "files", files)
		limits.All = most
	}
	limits.PerAddress = min(limits.PerAddress, limits.All)
	return netlimit.New(limits)
}
