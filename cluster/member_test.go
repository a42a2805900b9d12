package cluster

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"muster/cluster/clustertest"
	"muster/cluster/datadir"
	"muster/cluster/transport"
	"muster/store"
)

// testMember is a cluster of one member in this process, without its API.
type testMember struct {
	*Cluster
	node    *datadir.Node
	address string
	log     *clustertest.Log
}

// startMember founds one; change, if there is one, adjusts how it runs.
func startMember(t *testing.T, change ...func(*Config)) *testMember {
	t.Helper()
	s := clustertest.Found(t)
	opened := make(chan struct{})
	book := datadir.NewBook(nil, s.Node, []datadir.Place{{NodeID: s.Node.NodeID, RaftAddress: s.Address}}, s.Logger)
	conns := transport.New(s.Credentials, book, func(id uint64) error {
		<-opened
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		return Fence(ctx, s.Store, nil, id)
	}, s.Logger)
	s.Open(t, conns)
	close(opened)
	cfg := Config{
		Store:      s.Store,
		Transport:  conns,
		Book:       book,
		Logger:     s.Logger,
		Hooks:      &Hooks{Node: *s.Node, Log: s.Logger},
		Dir:        s.Dir,
		ReloadHTTP: func() error { return nil },
		Self: store.Announcement{
			RaftAddress:   s.Address,
			APIAddress:    s.Node.APIAddress,
			BinaryVersion: "test",
			MaxSchema:     store.LatestSchema(),
		},
	}
	for _, c := range change {
		c(&cfg)
	}
	loops := Start(cfg)
	loops.Serve(s.Listener, http.NotFoundHandler())
	t.Cleanup(loops.Close)
	s.AwaitLeading(t)
	return &testMember{Cluster: loops, node: s.Node, address: s.Address, log: s.Log}
}

func isGone(err error) bool { return errors.Is(err, store.ErrNotMember) }
