package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/google/uuid"

	"muster/certs"
	"muster/store/engine/enginetest"
)

// testCluster is a set of real dqlite nodes in one process, joined by plain sockets that a test can cut.
type testCluster struct {
	t     testing.TB
	net   *enginetest.Net
	mu    sync.Mutex
	nodes map[uint64]*Store
	dirs  map[uint64]string
	ids   map[uint64]*age.X25519Identity
	found *Founding
}

func newTestCluster(t testing.TB, n int) *testCluster {
	t.Helper()
	c := &testCluster{t: t, net: enginetest.New(), nodes: map[uint64]*Store{}, dirs: map[uint64]string{}, ids: map[uint64]*age.X25519Identity{}}
	base := t.TempDir()
	for id := uint64(1); id <= uint64(n); id++ {
		c.dirs[id] = filepath.Join(base, fmt.Sprint(id))
		if err := os.MkdirAll(c.dirs[id], 0o700); err != nil {
			t.Fatal(err)
		}
		identity, err := certs.NewIdentity()
		if err != nil {
			t.Fatal(err)
		}
		c.ids[id] = identity
	}
	c.found = testFounding(t, c.ids[1])
	t.Cleanup(c.close)
	for id := uint64(1); id <= uint64(n); id++ {
		c.start(id)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := c.nodes[1].AwaitLeader(ctx); err != nil {
		t.Fatal("founder does not lead:", err)
	}
	for id := uint64(2); id <= uint64(n); id++ {
		c.join(ctx, id)
	}
	return c
}

func testFounding(t testing.TB, id *age.X25519Identity) *Founding {
	t.Helper()
	dek := certs.NewDEK()
	wrap, err := certs.Wrap(dek[:], id.Recipient().String())
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	f := &Founding{ClusterID: uuid.NewString(), CreatedAt: now, Wrap: wrap, AdminTokenID: "admin", AdminHash: certs.HashSecret("secret"),
		OverlayCIDR: "10.200.0.0/16", OverlaySlices: 28,
		Member: Member{NodeID: 1, ID: uuid.NewString(), Name: "one", Mode: ModeFull, Role: RoleVoter, Recipient: id.Recipient().String(),
			RaftAddress: "127.0.0.1:7001", APIAddress: "127.0.0.1:5001", AdvertiseAddr: "127.0.0.1"}}
	key, err := dek.Seal(KeySecret(KeyJoinHMAC, 1), 1, []byte("0123456789abcdef0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	f.Keys = []SealedKey{{Purpose: KeyJoinHMAC, KID: "test", Sealed: key}}
	return f
}

func (c *testCluster) start(id uint64) *Store {
	c.t.Helper()
	cfg := Config{Dir: c.dirs[id], NodeID: id, Identity: c.ids[id], Logger: slog.New(slog.DiscardHandler),
		Dial: func(ctx context.Context, to uint64) (net.Conn, error) { return c.net.Dial(ctx, id, to) },
		Ask:  func(ctx context.Context, ids []uint64, need int) bool { return c.net.Ask(ctx, id, ids, need) },
	}
	if testing.Verbose() {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("node", id)
	}
	if id == 1 {
		cfg.Founding = c.found
	}
	s, err := Open(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	c.net.Set(id, s)
	c.mu.Lock()
	c.nodes[id] = s
	c.mu.Unlock()
	return s
}

func (c *testCluster) node(id uint64) *Store {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[id]
}

func (c *testCluster) join(ctx context.Context, id uint64) {
	c.t.Helper()
	l := c.leader()
	token, err := l.JoinTokens.Create(ctx, Actor{Name: "test"}, JoinToken{ID: NewID(), Format: FormatMuster, KeyEpoch: 1, NodeID: id, MaxUses: 1, ExpiresAt: time.Now().Add(time.Hour)})
	if err != nil {
		c.t.Fatal(err)
	}
	dek, generation, err := l.Keys.ActiveDEK()
	if err != nil {
		c.t.Fatal(err)
	}
	recipient := c.ids[id].Recipient().String()
	wrap, err := certs.Wrap(dek[:], recipient)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := l.Members.Join(ctx, Actor{Name: "test"}, Joiner{TokenID: token.ID, Wrap: wrap, DEKGeneration: generation,
		Member: Member{Mode: ModeFull, Recipient: recipient, RaftAddress: fmt.Sprintf("127.0.0.1:700%d", id)}}); err != nil {
		c.t.Fatal(err)
	}
	if err := l.Assign(ctx, id, RoleVoter); err != nil {
		c.t.Fatal(err)
	}
}

// leader waits for the node that accepts writes.
func (c *testCluster) leader() *Store {
	c.t.Helper()
	var found *Store
	c.eventually("a leader", func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		for id, s := range c.nodes {
			if !c.net.Isolated(id) && s.Leading() {
				found = s
				return nil
			}
		}
		return errors.New("none leads")
	})
	return found
}

func (c *testCluster) eventually(what string, f func() error) {
	c.t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (c *testCluster) stop(id uint64) {
	c.mu.Lock()
	s := c.nodes[id]
	delete(c.nodes, id)
	c.mu.Unlock()
	c.net.Set(id, nil)
	if s != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			c.t.Error(err)
		}
	}
}

func (c *testCluster) close() {
	for id := range c.dirs {
		c.stop(id)
	}
}
