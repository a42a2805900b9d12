package node

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"muster/cluster"
	"muster/handlers"
	"muster/store"
)

// newAPI puts what clients are answered from together.
func newAPI(n *Node, loops *cluster.Cluster) *handlers.Server {
	settings := cluster.Settings{Store: n.store}
	return handlers.New(handlers.Config{
		Store:       n.store,
		Peers:       n.transport,
		ClusterID:   n.self.ClusterID,
		Name:        n.self.Name,
		Version:     n.cfg.Version,
		Commit:      n.cfg.Commit,
		PlainHTTP:   n.cfg.PlainHTTP,
		Logger:      n.log,
		Limits:      n.cfg.Limits,
		Connections: n.clients,
		Collectors:  append([]prometheus.Collector{loops}, n.cfg.Collectors...),

		Chain: func() [][]byte { return n.leaf.Load().Certificate },
		Leaf:  func() []byte { return n.leaf.Load().Certificate[0] },

		Autopilot:        func() any { return loops.Autopilot() },
		AutopilotConfig:  func(ctx context.Context, c store.Consistency) (any, uint64, error) { return settings.Get(ctx, c) },
		ReplaceAutopilot: settings.Replace,
		MergeAutopilot:   settings.Merge,

		Alive:          loops.Alive,
		DownSince:      loops.DownSince,
		Wake:           loops.Wake,
		Installed:      loops.Installed,
		CanRemove:      loops.CanRemove,
		PrepareRemoval: loops.PrepareRemoval,
		NewJoinKeys:    cluster.NewJoinKeys,
		Reachable:      loops.Reachable,
		CanLead:        loops.CanLead,
		Transferred:    loops.Transferred,
		Diff:           func(ctx context.Context) (any, error) { return loops.Diff(ctx) },

		Notices:      loops.Notices,
		Disk:         func() any { return loops.Disk() },
		History:      func() any { return loops.History() },
		DiskLow:      loops.DiskLow,
		DiskRoom:     func() int64 { return loops.Disk().Room() },
		CannotStore:  loops.CannotStore,
		Storing:      func() (string, any) { s := loops.Storing(); return s.Fault, s },
		RestoreLimit: n.cfg.RestoreLimit,

		Schema: func(ctx context.Context) (any, error) { return loops.Schema(ctx) },
		MigrateSchema: func(ctx context.Context, actor store.Actor, exclude []uint64) (any, error) {
			return loops.Migrate(ctx, actor, exclude)
		},

		ExchangePeeringSecret: loops.Peerings().ExchangeSecret,
		MayDialPeer:           loops.Peerings().MayDial,
		PeerStream:            func(id string) handlers.PeerStream { return handlers.PeerStream(loops.Peerings().Status(id)) },
	})
}
