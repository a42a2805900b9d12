package node

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster/cluster"
	"muster/handlers"
	"muster/handlers/consul"
	"muster/handlers/elastic"
	"muster/handlers/ella"
	"muster/handlers/native"
	"muster/handlers/native/ui"
	"muster/handlers/nomad"
	"muster/handlers/zlayer"
	"muster/store"
)

// newAPI puts the tables of all families together.
func newAPI(n *Node, loops *cluster.Cluster) *handlers.Server {
	return handlers.New(handlers.Config{
		Store:       n.store,
		Peers:       n.transport,
		ClusterID:   n.self.ClusterID,
		Version:     n.cfg.Version,
		Commit:      n.cfg.Commit,
		Now:         time.Now,
		Logger:      n.log,
		Limits:      n.cfg.Limits,
		Connections: n.clients,
		Collectors:  append([]prometheus.Collector{loops}, n.cfg.Collectors...),
	}, families(n, view{loops}, cluster.Settings{Store: n.store})...)
}

func families(n *Node, loops view, settings cluster.Settings) []*handlers.Family {
	id, name, version, commit := n.self.ClusterID, n.self.Name, n.cfg.Version, n.cfg.Commit
	tokens := &store.JoinTokenMint{
		Store:     n.store,
		ClusterID: id,
		PlainHTTP: n.cfg.PlainHTTP,
		Leaf:      func() []byte { return n.leaf.Load().Certificate[0] },
		Now:       time.Now,
	}
	return []*handlers.Family{
		native.New(native.Config{
			Store:     n.store,
			Cluster:   loops,
			Settings:  settings,
			Tokens:    tokens,
			ClusterID: id,
			Chain:     func() [][]byte { return n.leaf.Load().Certificate },
			Now:       time.Now,
		}),
		ella.New(ella.Config{
			Store:     n.store,
			Cluster:   loops,
			Tokens:    tokens,
			ClusterID: id,
			Name:      name,
			Version:   version,
			Commit:    commit,
			Now:       time.Now,
		}),
		zlayer.New(zlayer.Config{Store: n.store, Cluster: loops, ClusterID: id, Now: time.Now}),
		elastic.New(elastic.Config{
			Store:     n.store,
			Cluster:   loops,
			ClusterID: id,
			Name:      name,
			Version:   version,
			Commit:    commit,
			Now:       time.Now,
		}),
		consul.New(consul.Config{Store: n.store, Peers: peers{loops.Peerings()}, ClusterID: id, Now: time.Now}),
		nomad.New(nomad.Config{
			Store:        n.store,
			Cluster:      loops,
			Settings:     settings,
			Name:         name,
			Version:      version,
			Commit:       commit,
			RestoreLimit: n.cfg.RestoreLimit,
			Now:          time.Now,
			Logger:       n.log,
		}),
		ui.New(),
	}
}
