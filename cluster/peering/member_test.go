package peering

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster/certs"
	"muster/cluster/datadir"
	"muster/cluster/transport"
	"muster/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testMember is a cluster of one member in this process that does nothing but its peerings.
type testMember struct {
	*Streams
	node    *datadir.Node
	address string
	logged  *lockedBuffer
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
	m := &testMember{address: l.Addr().String(), logged: &lockedBuffer{}}
	m.node, err = datadir.Found(dir, datadir.Plan{Name: "one", Mode: store.ModeFull, APIAddress: "127.0.0.1:1",
		RaftAddress: m.address,
		Version:     "test", OverlayCIDR: "10.200.0.0/16", OverlaySlice: 28}, time.Now())
	must(err)
	identity, err := dir.OwnIdentity()
	must(err)
	creds, err := dir.Credentials(m.node)
	must(err)
	founding, err := dir.Founding()
	must(err)
	logger := slog.New(slog.NewTextHandler(m.logged, nil))
	conns := transport.New(creds, transport.Table(func(uint64) (string, bool) { return m.address, true }),
		func(uint64) error { return nil }, logger)
	st, err := store.Open(store.Config{Dir: dir.Path, NodeID: m.node.NodeID, Identity: identity, Founding: founding,
		Logger: discard,
		Dial:   conns.DialRaft, Ask: conns.Ask, Nudge: conns.Nudge})
	must(err)
	m.Streams = New(Config{Store: st, Transport: conns, Alive: func(uint64) string { return "alive" }, Loopback: true,
		Logger: logger})
	running, stop := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { m.Run(running) })
	conns.Serve(l, transport.Service{Replica: st, Handler: http.NotFoundHandler(), Peers: m.Serve})
	t.Cleanup(func() {
		stop()
		done.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = st.Close(ctx)
		conns.Close()
		dir.Close()
	})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if m.leading(ctx) == nil {
		t.Fatal("nobody takes care of peerings")
	}
	return m
}

// token makes one for a peering; it returns the peering's ID and the secret.
func (m *testMember) token(t *testing.T, name string) (id, secret string) {
	t.Helper()
	k := store.PeeringToken{Name: name, ID: certs.NewUUID(), Secret: certs.NewUUID()}
	minted, err := m.store.Peerings.MintToken(context.Background(), store.Actor{Name: "test"}, k,
		certs.HashSecret(k.Secret))
	if err != nil {
		t.Fatal(err)
	}
	return minted.Peering.ID, minted.Secret
}

// stranger connects as another cluster would; the error is that of the handshake.
func (m *testMember) stranger(t *testing.T) (*peerConn, error) {
	t.Helper()
	roots, err := m.store.Authorities.Bundle(context.Background(), certs.Transport)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	for _, text := range roots {
		pool.AppendCertsFromPEM([]byte(text))
	}
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second},
		Config: &tls.Config{RootCAs: pool, NextProtos: []string{transport.ProtoPeer}, MinVersion: tls.VersionTLS13,
			ServerName: certs.PeeringName(store.DefaultDatacenter, m.node.ClusterID)}}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := d.DialContext(ctx, "tcp", m.address)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	return &peerConn{Conn: conn, known: true}, nil
}

// ask sends a first message and returns the answer to it.
func (m *testMember) ask(t *testing.T, f frame) (*peerConn, *frame) {
	t.Helper()
	c, err := m.stranger(t)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.write(f, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	answer, err := c.read()
	if err != nil {
		t.Fatal(err)
	}
	return c, answer
}

// revision is the newest in the database.
func (m *testMember) revision(t *testing.T) (rev uint64) {
	t.Helper()
	rows, err := m.store.Audit.List(context.Background(), store.Linearisable,
		store.AuditFilter{Descending: true, Limit: 1})
	if err != nil || len(rows) == 0 {
		t.Fatal(rows, err)
	}
	return rows[0].Revision
}

// audits counts rows of peerings.
func (m *testMember) audits(t *testing.T) int {
	t.Helper()
	rows, err := m.store.Audit.List(context.Background(), store.Linearisable,
		store.AuditFilter{Action: "peering.", Limit: 100_000})
	if err != nil {
		t.Fatal(err)
	}
	return len(rows)
}

var discard = slog.New(slog.DiscardHandler)
