package peering

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster/certs"
	"muster/cluster/clustertest"
	"muster/cluster/datadir"
	"muster/cluster/transport"
	"muster/internal/await"
	"muster/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testMember is a cluster of one member in this process that does nothing but its peerings.
type testMember struct {
	*Streams
	node    *datadir.Node
	address string
	logged  *clustertest.Log
}

func startMember(t *testing.T) *testMember {
	t.Helper()
	s := clustertest.Found(t)
	conns := transport.New(s.Credentials, transport.Table(func(uint64) (string, bool) { return s.Address, true }),
		func(uint64) error { return nil }, s.Logger)
	s.Open(t, conns)
	m := &testMember{node: s.Node, address: s.Address, logged: s.Log}
	m.Streams = New(Config{
		Store:     s.Store,
		Transport: conns,
		Alive:     func(uint64) string { return "alive" },
		Loopback:  true,
		Logger:    s.Logger,
	})
	running, stop := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { m.Run(running) })
	conns.Serve(s.Listener, transport.Service{Replica: s.Store, Handler: http.NotFoundHandler(), Peers: m.Serve})
	t.Cleanup(func() {
		stop()
		done.Wait()
	})
	ctx, cancel := context.WithTimeout(context.Background(), await.Limit)
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
func (m *testMember) ask(t *testing.T, f frame) (c *peerConn, answer *frame) {
	t.Helper()
	await.True(t, "an answer that is none to ask again", func() bool {
		var err error
		if c, err = m.stranger(t); err != nil {
			t.Fatal(err)
		}
		if err := c.write(f, 10*time.Second); err != nil {
			t.Fatal(err)
		}
		if answer, err = c.read(); err != nil {
			t.Fatal(err)
		}
		r := answer.Refused
		return r == nil || r.Code != refusedNotLeader && r.Code != refusedBusy
	})
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
