package store

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/google/uuid"

	"muster/certs"
	"muster/internal/await"
	"muster/store/engine/enginetest"
)

// testCluster is a set of stores in one process, joined by plain sockets that a test can cut.
type testCluster struct {
	*enginetest.Cluster[*Store]
	ids   map[uint64]*age.X25519Identity
	found *Founding
}

func newTestCluster(t testing.TB, n int) *testCluster {
	t.Helper()
	c := &testCluster{Cluster: enginetest.NewCluster[*Store](t, n), ids: map[uint64]*age.X25519Identity{}}
	for id := range c.Dirs {
		identity, err := certs.NewIdentity()
		if err != nil {
			t.Fatal(err)
		}
		c.ids[id] = identity
	}
	c.found = testFounding(t, c.ids[1])
	for id := uint64(1); id <= uint64(n); id++ {
		c.start(id)
	}
	c.Founded()
	ctx, cancel := context.WithTimeout(context.Background(), await.Limit)
	defer cancel()
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
	f := &Founding{
		ClusterID:     uuid.NewString(),
		CreatedAt:     now,
		Wrap:          wrap,
		AdminTokenID:  "admin",
		AdminHash:     certs.HashSecret("secret"),
		OverlayCIDR:   "10.200.0.0/16",
		OverlaySlices: 28,
		Member: Member{
			NodeID:        1,
			ID:            uuid.NewString(),
			Name:          "one",
			Mode:          ModeFull,
			Role:          RoleVoter,
			Recipient:     id.Recipient().String(),
			RaftAddress:   "127.0.0.1:7001",
			APIAddress:    "127.0.0.1:5001",
			AdvertiseAddr: "127.0.0.1",
		},
	}
	key, err := dek.Seal(KeySecret(KeyJoinHMAC, 1), 1, []byte("0123456789abcdef0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	f.Keys = []SealedKey{{Purpose: KeyJoinHMAC, KID: "test", Sealed: key}}
	return f
}

func (c *testCluster) start(id uint64) *Store {
	c.T.Helper()
	cfg := Config{
		Dir:      c.Dirs[id],
		NodeID:   id,
		Identity: c.ids[id],
		Logger:   slog.New(slog.DiscardHandler),
		Dial:     func(ctx context.Context, to uint64) (net.Conn, error) { return c.Net.Dial(ctx, id, to) },
		Ask:      func(ctx context.Context, ids []uint64, need int) bool { return c.Net.Ask(ctx, id, ids, need) },
	}
	if testing.Verbose() {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("node", id)
	}
	if id == 1 {
		cfg.Founding = c.found
	}
	s, err := Open(cfg)
	if err != nil {
		c.T.Fatal(err)
	}
	c.Set(id, s)
	return s
}

func (c *testCluster) node(id uint64) *Store { return c.Node(id) }
func (c *testCluster) leader() *Store        { c.T.Helper(); return c.Leader() }
func (c *testCluster) stop(id uint64)        { c.Stop(id) }

func (c *testCluster) eventually(what string, f func() error) {
	c.T.Helper()
	await.NoError(c.T, what, f)
}

func (c *testCluster) join(ctx context.Context, id uint64) {
	c.T.Helper()
	l := c.leader()
	token, err := l.JoinTokens.Create(ctx, Actor{Name: "test"}, JoinToken{
		ID:        NewID(),
		Format:    FormatMuster,
		KeyEpoch:  1,
		NodeID:    id,
		MaxUses:   1,
		ExpiresAt: time.Now().Add(time.Hour),
	})
	if err != nil {
		c.T.Fatal(err)
	}
	dek, generation, err := l.Keys.ActiveDEK()
	if err != nil {
		c.T.Fatal(err)
	}
	recipient := c.ids[id].Recipient().String()
	wrap, err := certs.Wrap(dek[:], recipient)
	if err != nil {
		c.T.Fatal(err)
	}
	if _, err := l.Members.Join(ctx, Actor{Name: "test"}, Joiner{TokenID: token.ID, Wrap: wrap, DEKGeneration: generation,
		Member: Member{Mode: ModeFull, Recipient: recipient, RaftAddress: fmt.Sprintf("127.0.0.1:700%d", id)}}); err != nil {
		c.T.Fatal(err)
	}
	if err := l.Assign(ctx, id, RoleVoter); err != nil {
		c.T.Fatal(err)
	}
}
