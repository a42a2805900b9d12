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
	"muster/handlers/signin"
	"muster/handlers/zlayer"
	"muster/store"
)

// newAPI combines the tables of all families.
func newAPI(n *Node, loops *cluster.Cluster) *handlers.Server {
	return handlers.New(handlers.Config{
		Replica:     n.store,
		Mirror:      n.store.Mirror,
		APIKeys:     n.store.APIKeys,
		APITokens:   n.store.APITokens,
		Audit:       n.store.Audit,
		Events:      n.store.Events,
		Keys:        n.store.Keys,
		Members:     n.store.Members,
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

// families returns all families, the page last.
func families(n *Node, loops view, settings cluster.Settings) []*handlers.Family {
	list := append(ownFamilies(n, loops, settings), foreignFamilies(n, loops, settings)...)
	return append(list, ui.New())
}

// ownFamilies returns the families that issue muster's own join tokens.
func ownFamilies(n *Node, loops view, settings cluster.Settings) []*handlers.Family {
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
			Replica:      n.store,
			APIKeys:      n.store.APIKeys,
			APITokens:    n.store.APITokens,
			Audit:        n.store.Audit,
			Authorities:  n.store.Authorities,
			Backups:      n.store.Backups,
			Certificates: n.store.Certificates,
			Enrollments:  n.store.Enrollments,
			JoinTokens:   n.store.JoinTokens,
			Keys:         n.store.Keys,
			Leases:       n.store.Leases,
			Members:      n.store.Members,
			Peerings:     n.store.Peerings,
			Secrets:      n.store.Secrets,
			Workloads:    n.store.Workloads,
			Settings:     n.store.Settings,
			NodeTokens:   &store.NodeTokens{Store: n.store, ClusterID: id, Now: time.Now},
			Cluster:      loops,
			Autopilot:    settings,
			Tokens:       tokens,
			People:       signin.New(time.Now, n.log, n.transport.Dials),
			ClusterID:    id,
			Chain:        func() [][]byte { return n.leaf.Load().Certificate },
			Now:          time.Now,
		}),
		ella.New(ella.Config{
			Replica:   n.store,
			Mirror:    n.store.Mirror,
			Members:   n.store.Members,
			Cluster:   loops,
			Tokens:    tokens,
			ClusterID: id,
			Name:      name,
			Version:   version,
			Commit:    commit,
			Now:       time.Now,
		}),
	}
}

// foreignFamilies returns the other documented APIs.
func foreignFamilies(n *Node, loops view, settings cluster.Settings) []*handlers.Family {
	id, name, version, commit := n.self.ClusterID, n.self.Name, n.cfg.Version, n.cfg.Commit
	return []*handlers.Family{
		zlayer.New(zlayer.Config{
			Admissions: &store.Admissions{Store: n.store, ClusterID: id, Now: time.Now},
			Keys:       n.store.Keys,
			Cluster:    loops,
			ClusterID:  id,
			Now:        time.Now,
		}),
		elastic.New(elastic.Config{
			Replica:   n.store,
			APIKeys:   n.store.APIKeys,
			Members:   n.store.Members,
			Settings:  n.store.Settings,
			Enroller:  &store.Enroller{Store: n.store, ClusterID: id, Now: time.Now},
			Cluster:   loops,
			ClusterID: id,
			Name:      name,
			Version:   version,
			Commit:    commit,
			Now:       time.Now,
		}),
		consul.New(consul.Config{
			Replica:     n.store,
			Authorities: n.store.Authorities,
			Members:     n.store.Members,
			Peerings:    n.store.Peerings,
			Settings:    n.store.Settings,
			Peers:       peers{loops.Peerings()},
			ClusterID:   id,
			Now:         time.Now,
		}),
		nomad.New(nomad.Config{
			Replica:      n.store,
			Mirror:       n.store.Mirror,
			Archives:     n.store.Archives,
			Audit:        n.store.Audit,
			Members:      n.store.Members,
			Settings:     n.store.Settings,
			Cluster:      loops,
			Autopilot:    settings,
			Name:         name,
			Version:      version,
			Commit:       commit,
			RestoreLimit: n.cfg.RestoreLimit,
			Now:          time.Now,
			Logger:       n.log,
		}),
	}
}
