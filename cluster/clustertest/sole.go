// Package clustertest founds clusters of one member in this process, without their API, for tests of the packages below
// cluster.
package clustertest

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"muster/cluster/datadir"
	"muster/cluster/transport"
	"muster/internal/await"
	"muster/store"
)

// Sole is a member that has founded a cluster. Its state is not open until Open has been called.
type Sole struct {
	Dir         *datadir.Dir
	Node        *datadir.Node
	Credentials *transport.Credentials
	Listener    net.Listener // of the cluster; Address is what the others would be told
	Address     string
	Log         *Log
	Logger      *slog.Logger // into Log
	Store       *store.Store // what Open has opened
}

// Found makes the directory of a member and opens its listener. The member is called "one".
func Found(t testing.TB) *Sole {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	s := &Sole{Listener: l, Address: l.Addr().String(), Log: &Log{}}
	s.Logger = slog.New(slog.NewTextHandler(s.Log, nil))
	s.Dir, err = datadir.Open(filepath.Join(t.TempDir(), "data"))
	must(t, err)
	t.Cleanup(func() { s.Dir.Close(); l.Close() })
	s.Node, err = datadir.Found(s.Dir, datadir.Plan{
		Name:         "one",
		Mode:         store.ModeFull,
		APIAddress:   "127.0.0.1:1",
		RaftAddress:  s.Address,
		Version:      "test",
		OverlayCIDR:  "10.200.0.0/16",
		OverlaySlice: 28,
	}, time.Now())
	must(t, err)
	s.Credentials, err = s.Dir.Credentials(s.Node)
	must(t, err)
	return s
}

// Open opens the member's state, which reaches others through conns unless that is nil. change adjusts the
// configuration. Both are closed at the end of the test.
func (s *Sole) Open(t testing.TB, conns *transport.Transport, change ...func(*store.Config)) {
	t.Helper()
	identity, err := s.Dir.OwnIdentity()
	must(t, err)
	founding, err := s.Dir.Founding()
	must(t, err)
	cfg := store.Config{
		Dir:      s.Dir.Path,
		NodeID:   s.Node.NodeID,
		Identity: identity,
		Founding: founding,
		Logger:   slog.New(slog.DiscardHandler),
	}
	if conns != nil {
		cfg.Dial, cfg.Ask, cfg.Nudge, cfg.Prepare = conns.DialRaft, conns.Ask, conns.Nudge, conns.Prepare
	}
	for _, c := range change {
		c(&cfg)
	}
	s.Store, err = store.Open(cfg)
	must(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = s.Store.Close(ctx)
		if conns != nil {
			conns.Close()
		}
	})
}

// AwaitLeading waits until the member accepts writes.
func (s *Sole) AwaitLeading(t testing.TB) {
	t.Helper()
	await.True(t, "the member leads", s.Store.Leading)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Log keeps what is logged.
type Log struct {
	mu   sync.Mutex
	data bytes.Buffer
}

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.data.Write(p)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.data.String()
}
