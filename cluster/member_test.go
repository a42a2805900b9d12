package cluster

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"muster/cluster/datadir"
	"muster/cluster/transport"
	"muster/store"
)

// testMember is a cluster of one member in this process, without its API.
type testMember struct {
	*Cluster
	node    *datadir.Node
	address string
	log     *lockedBuffer
}

// lockedBuffer keeps what is logged.
type lockedBuffer struct {
	mu   sync.Mutex
	data bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.String()
}

func startMember(t *testing.T) *testMember {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	dir, err := datadir.Open(filepath.Join(t.TempDir(), "data"))
	must(err)
	address := l.Addr().String()
	node, err := datadir.Found(dir, datadir.Plan{Name: "one", Mode: store.ModeFull, APIAddress: "127.0.0.1:1",
		RaftAddress: address, Version: "test",
		OverlayCIDR: "10.200.0.0/16", OverlaySlice: 28}, time.Now())
	must(err)
	identity, err := dir.OwnIdentity()
	must(err)
	creds, err := dir.Credentials(node)
	must(err)
	founding, err := dir.Founding()
	must(err)
	log := &lockedBuffer{}
	logger := slog.New(slog.NewTextHandler(log, nil))
	var st *store.Store
	opened := make(chan struct{})
	book := datadir.NewBook(nil, node, []datadir.Place{{NodeID: node.NodeID, RaftAddress: address}}, logger)
	conns := transport.New(creds, book, func(id uint64) error {
		<-opened
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		return Fence(ctx, st, nil, id)
	}, logger)
	st, err = store.Open(store.Config{Dir: dir.Path, NodeID: node.NodeID, Identity: identity, Founding: founding,
		Logger: slog.New(slog.DiscardHandler),
		Dial:   conns.DialRaft, Ask: conns.Ask, Nudge: conns.Nudge, Prepare: conns.Prepare})
	must(err)
	close(opened)
	loops := Start(Config{Store: st, Transport: conns, Book: book, Logger: logger, Hooks: &Hooks{Node: *node, Log: logger},
		Dir: dir, ReloadHTTP: func() error { return nil },
		Self: store.Announcement{RaftAddress: address, APIAddress: node.APIAddress, BinaryVersion: "test",
			MaxSchema: store.LatestSchema()}})
	loops.Serve(l, http.NotFoundHandler())
	t.Cleanup(func() {
		loops.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = st.Close(ctx)
		conns.Close()
		dir.Close()
	})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, err = st.AwaitLeader(ctx); err == nil && !st.Leading(); {
		if !rest(ctx, 10*time.Millisecond) {
			t.Fatal("the member does not lead")
		}
	}
	must(err)
	m := &testMember{Cluster: loops, node: node, address: address, log: log}
	return m
}

func isGone(err error) bool { return errors.Is(err, store.ErrNotMember) }
