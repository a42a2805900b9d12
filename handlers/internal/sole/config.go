package sole

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"

	"muster/api"
	"muster/cluster/autopilot"
	"muster/handlers"
	"muster/handlers/consul"
	"muster/handlers/elastic"
	"muster/handlers/ella"
	"muster/handlers/native"
	"muster/handlers/native/ui"
	"muster/handlers/nomad"
	"muster/handlers/signin"
	"muster/handlers/zlayer"
	"muster/internal/addr"
	"muster/store"
)

// Config is the configuration of a test's member. The zero values of its own fields mean a cluster of one.
type Config struct {
	handlers.Config
	Store        *store.Store
	Name         string
	Leaf         []byte // DER of the API listener's certificate
	RestoreLimit int64
	Cluster      *Cluster
	Autopilot    AutopilotSettings // as cluster.Settings; by default a fake that keeps nothing
}

// AutopilotSettings has the configuration of autopilot.
type AutopilotSettings interface {
	Get(context.Context, store.Consistency) (autopilot.Config, uint64, error)
	Merge(context.Context, []byte) (json.RawMessage, error)
	Replace(context.Context, func(*autopilot.Config)) (json.RawMessage, error)
}

// NewConfig returns the configuration of a member with a store.
func NewConfig(st *store.Store, clusterID, name string) *Config {
	return &Config{
		Config: handlers.Config{
			Replica:   st,
			Mirror:    st.Mirror,
			APIKeys:   st.APIKeys,
			APITokens: st.APITokens,
			Audit:     st.Audit,
			Events:    st.Events,
			Keys:      st.Keys,
			Members:   st.Members,
			Peers:     nobody{},
			ClusterID: clusterID,
			Version:   "test",
			Commit:    "test",
			Now:       time.Now,
			Logger:    slog.New(slog.DiscardHandler),
		},
		Store:     st,
		Name:      name,
		Cluster:   &Cluster{Store: st},
		Autopilot: settings{},
	}
}

// Serve returns a server with the routes of all families, as node does.
func Serve(c *Config) *handlers.Server {
	st, id, now := c.Store, c.ClusterID, c.Now
	tokens := &store.JoinTokenMint{Store: st, ClusterID: id, Leaf: func() []byte { return c.Leaf }, Now: now}
	families := []*handlers.Family{
		native.New(native.Config{
			Replica:      st,
			APIKeys:      st.APIKeys,
			APITokens:    st.APITokens,
			Audit:        st.Audit,
			Authorities:  st.Authorities,
			Backups:      st.Backups,
			Certificates: st.Certificates,
			Enrollments:  st.Enrollments,
			JoinTokens:   st.JoinTokens,
			Keys:         st.Keys,
			Leases:       st.Leases,
			Members:      st.Members,
			Peerings:     st.Peerings,
			Secrets:      st.Secrets,
			Workloads:    st.Workloads,
			Settings:     st.Settings,
			NodeTokens:   &store.NodeTokens{Store: st, ClusterID: id, Now: now},
			Cluster:      c.Cluster,
			Autopilot:    c.Autopilot,
			Tokens:       tokens,
			People:       signin.New(now, slog.New(slog.DiscardHandler), addr.DialPolicy{Any: true, Loopback: true}),
			ClusterID:    id,
			Chain:        func() [][]byte { return nil },
			Now:          now,
		}),
		ella.New(ella.Config{
			Replica:   st,
			Mirror:    st.Mirror,
			Members:   st.Members,
			Cluster:   c.Cluster,
			Tokens:    tokens,
			ClusterID: id,
			Name:      c.Name,
			Version:   c.Version,
			Commit:    c.Commit,
			Now:       now,
		}),
	}
	return handlers.New(c.Config, append(append(families, foreign(c)...), ui.New())...)
}

// foreign returns the foreign APIs except Ella's.
func foreign(c *Config) []*handlers.Family {
	st, id, now := c.Store, c.ClusterID, c.Now
	return []*handlers.Family{
		zlayer.New(zlayer.Config{
			Admissions: &store.Admissions{Store: st, ClusterID: id, Now: now},
			Keys:       st.Keys,
			Cluster:    c.Cluster,
			ClusterID:  id,
			Now:        now,
		}),
		elastic.New(elastic.Config{
			Replica:   st,
			APIKeys:   st.APIKeys,
			Members:   st.Members,
			Settings:  st.Settings,
			Enroller:  &store.Enroller{Store: st, ClusterID: id, Now: now},
			Cluster:   c.Cluster,
			ClusterID: id,
			Name:      c.Name,
			Version:   c.Version,
			Commit:    c.Commit,
			Now:       now,
		}),
		consul.New(consul.Config{
			Replica:     st,
			Authorities: st.Authorities,
			Members:     st.Members,
			Peerings:    st.Peerings,
			Settings:    st.Settings,
			Peers:       noClusters{},
			ClusterID:   id,
			Now:         now,
		}),
		nomad.New(nomad.Config{
			Replica:      st,
			Mirror:       st.Mirror,
			Archives:     st.Archives,
			Audit:        st.Audit,
			Members:      st.Members,
			Settings:     st.Settings,
			Cluster:      c.Cluster,
			Autopilot:    c.Autopilot,
			Name:         c.Name,
			Version:      c.Version,
			Commit:       c.Commit,
			RestoreLimit: c.RestoreLimit,
			Now:          now,
			Logger:       c.Logger,
		}),
	}
}

// Cluster is a fake of the loops of a healthy cluster of one. A test may set its fields.
type Cluster struct {
	Store *store.Store
	Room  func() int64                    // bytes that may be written; nil: no limit
	Life  func(nodeID uint64) string      // "alive" or "down"; nil: all are alive
	Leads func() (nodeID uint64, _ error) // who leads after a transfer; nil: member 1
}

// The methods that the families need.

func (c *Cluster) Alive(nodeID uint64) string {
	if c.Life == nil {
		return "alive"
	}
	return c.Life(nodeID)
}
func (c *Cluster) Status(m *store.Member) string { return c.Alive(m.NodeID) }
func (c *Cluster) DownSince(uint64) time.Time {
	return time.Time{}
}
func (c *Cluster) Remembered(context.Context) (autopilot.State, error) {
	return c.Autopilot(), nil
}
func (c *Cluster) History() api.History                    { return api.History{} }
func (c *Cluster) CanRemove(context.Context, uint64) error { return nil }
func (c *Cluster) Reachable(context.Context, uint64) error { return nil }
func (c *Cluster) CanLead(context.Context, uint64) error   { return nil }
func (c *Cluster) Notices() []string                       { return nil }
func (c *Cluster) StorageFault() string                    { return "" }
func (c *Cluster) DiskStuck() bool                         { return false }
func (c *Cluster) ZoneCost(uint64) string                  { return "" }
func (c *Cluster) CannotStore(uint64) string               { return "" }
func (c *Cluster) DiskLow(uint64) bool                     { return false }
func (c *Cluster) Disk() api.Disk                          { return api.Disk{} }
func (c *Cluster) Storing() api.Storing                    { return api.Storing{OK: true} }
func (c *Cluster) Autopilot() autopilot.State              { return autopilot.State{} }

// Wake finishes resumptions at once: a member in process has no hooks.
func (c *Cluster) Wake() {
	ctx := context.Background()
	members, err := c.Store.Members.List(ctx, store.AsLeader)
	for i := range members {
		if m := &members[i]; err == nil && m.HooksPending == store.HookResume {
			err = c.Store.Members.HooksDone(ctx, store.Actor{Name: "test"}, m.NodeID, m.DrainGen, m.HooksPending, nil)
		}
	}
}

func (c *Cluster) PrepareRemoval(ctx context.Context, nodeID uint64) (*store.DEKRotation, error) {
	return c.Store.Keys.PrepareDEKRotation(ctx, nodeID, nil)
}

func (c *Cluster) DiskRoom() int64 {
	if c.Room == nil {
		return 1 << 50
	}
	return c.Room()
}

func (c *Cluster) Transferred(context.Context, store.Actor, uint64, uint64) (uint64, error) {
	if c.Leads == nil {
		return 1, nil
	}
	return c.Leads()
}

func (c *Cluster) Diff(context.Context, store.Consistency) ([]api.Difference, error) {
	return []api.Difference{}, nil
}
func (c *Cluster) Schema(context.Context, store.Consistency) (api.Schema, error) {
	return api.Schema{}, nil
}
func (c *Cluster) Upgrade(context.Context, store.Consistency, string) (autopilot.Upgrade, error) {
	return autopilot.Upgrade{Wait: []string{}, Members: []autopilot.UpgradeMember{}}, nil
}

func (c *Cluster) Migrate(context.Context, store.Actor, []uint64) (api.Schema, error) {
	return api.Schema{}, nil
}

// settings is a fake of autopilot's settings.
type settings struct{}

func (settings) Get(context.Context, store.Consistency) (autopilot.Config, uint64, error) {
	return autopilot.DefaultConfig(), 0, nil
}

func (settings) Merge(_ context.Context, patch []byte) (json.RawMessage, error) {
	return patch, nil
}

func (settings) Replace(_ context.Context, set func(*autopilot.Config)) (json.RawMessage, error) {
	cfg := autopilot.DefaultConfig()
	set(&cfg)
	return json.Marshal(cfg)
}

func (c *Cluster) BackupState(ctx context.Context, from store.Consistency) (out native.BackupState, err error) {
	out.Settings, err = c.Store.Backups.Settings(ctx, from)
	return out, err
}

func (c *Cluster) VerifyBackup(context.Context, *store.Backup) (string, bool) { return "", false }

func (c *Cluster) OpenBackup(context.Context, *store.Backup) (io.ReadCloser, int64, error) {
	return nil, 0, errors.New("there are no files")
}

func (c *Cluster) Installed(context.Context) (store.Installed, map[uint64]string, error) {
	return store.Installed{}, nil, nil
}

// nobody is a transport without other members.
type nobody struct{}

func (nobody) Forward(*http.Request, uint64) (*http.Response, error) {
	return nil, errors.New("there is nobody else")
}

// noClusters is a fake of peering without other clusters.
type noClusters struct{}

func (noClusters) ExchangeSecret(context.Context, []string, string, []string, string, string) (string, error) {
	return "", errors.New("the other cluster cannot be reached")
}

func (noClusters) MayDial(context.Context, string) (why, err error) { return nil, nil }

func (noClusters) Stream(string) consul.Stream { return consul.Stream{} }
