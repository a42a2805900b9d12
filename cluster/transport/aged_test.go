package transport

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"muster/certs"
)

const agedCluster = "11111111-2222-4333-8444-555555555555"

// agedNode is one end of a connection in TestAged.
type agedNode struct {
	id    uint64
	creds *Credentials
	key   string // of its leaf
}

// newAgedNode makes a node whose leaf ends at a time, issued by an authority; it trusts roots.
func newAgedNode(t *testing.T, id uint64, ca certs.CA, ends time.Time, roots certs.CA) *agedNode {
	t.Helper()
	key, err := certs.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return newAgedNodeOf(t, id, key, ca, ends, roots)
}

func newAgedNodeOf(t *testing.T, id uint64, key *ecdsa.PrivateKey, ca certs.CA, ends time.Time,
	roots certs.CA) *agedNode {
	t.Helper()
	der, err := ca.Sign(key.Public(), certs.Leaf{
		Kind:      certs.Transport,
		ClusterID: agedCluster,
		NodeID:    id,
		Name:      "n",
		NotBefore: ends.Add(-time.Hour),
		NotAfter:  ends,
	})
	if err != nil {
		t.Fatal(err)
	}
	pem, err := certs.EncodeKey(key)
	if err != nil {
		t.Fatal(err)
	}
	n := &agedNode{id: id}
	if n.creds, err = NewCredentials(agedCluster, id, certs.EncodeCert(der), pem,
		certs.EncodeCert(roots.Cert.Raw)); err != nil {
		t.Fatal(err)
	}
	if n.key, err = certs.KeyHash(key.Public()); err != nil {
		t.Fatal(err)
	}
	return n
}

// serveAged runs the cluster listener of a node and returns its address.
func serveAged(t *testing.T, n *agedNode) string {
	t.Helper()
	return serveAgedAt(t, n, "127.0.0.1:0")
}

func serveAgedAt(t *testing.T, n *agedNode, address string) string {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	tr := New(n.creds, nil, func(uint64) error { return nil }, slog.New(slog.DiscardHandler))
	tr.Serve(l, Service{Replica: agedReplica{}, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_,
			_ = io.WriteString(w, "{}")
	})})
	t.Cleanup(tr.Close)
	return l.Addr().String()
}

type agedReplica struct{}

// DialOwn gives Raft streams an echo.
func (agedReplica) DialOwn(context.Context, uint64) (net.Conn, error) {
	ours, theirs := net.Pipe()
	go func() { defer ours.Close(); _, _ = io.Copy(ours, ours) }()
	return theirs, nil
}

func (agedReplica) FollowsNow(context.Context) (uint64, error) { return 7, nil }

func (agedReplica) Epoch() uint64 { return 7 }

func (agedReplica) Revision() uint64 { return 70 }

// Everything that the cluster listener serves is tried with leaves that are good, have expired, or are wrong: an
// expired one opens Raft, the question of who leads and the requests of renewal, to members whose key is known, and
// nothing else.
func TestAged(t *testing.T) {
	now := time.Now()
	ca, err := certs.NewCA(certs.Transport, agedCluster, now.Add(-100*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	other, err := certs.NewCA(certs.Transport, agedCluster, now.Add(-100*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	good, past, later := now.Add(30*time.Minute), now.Add(-time.Minute), now.Add(25*time.Hour)
	known := func(n *agedNode) func(uint64) string {
		return func(id uint64) string {
			if id == n.id {
				return n.key
			}
			return ""
		}
	}
	type reach struct{ raft, renewal, all bool }
	everything, little, nothing := reach{true, true, true}, reach{true, true, false}, reach{}
	for name, x := range map[string]struct {
		client, server  func() *agedNode
		unknown, forged bool // to each other; the key that is known is another's
		want            reach
	}{
		"both good": {client: mk(t, 1, ca, good, ca), server: mk(t, 2, ca, good, ca), want: everything},
		"both good, keys not known": {client: mk(t, 1, ca, good, ca), server: mk(t, 2, ca, good, ca), unknown: true,
			want: everything},
		"the client's has expired": {client: mk(t, 1, ca, past, ca), server: mk(t, 2, ca, good, ca), want: little},
		"the server's has expired": {client: mk(t, 1, ca, good, ca), server: mk(t, 2, ca, past, ca), want: little},
		"both have expired":        {client: mk(t, 1, ca, past, ca), server: mk(t, 2, ca, past, ca), want: little},
		"expired and key not known": {client: mk(t, 1, ca, past, ca), server: mk(t, 2, ca, good, ca), unknown: true,
			want: nothing},
		"expired and another's key": {client: mk(t, 1, ca, past, ca), server: mk(t, 2, ca, good, ca), forged: true,
			want: nothing},
		"the client's begins later": {client: mk(t, 1, ca, later, ca), server: mk(t, 2, ca, good, ca), want: little},
		"the server's begins later": {client: mk(t, 1, ca, good, ca), server: mk(t, 2, ca, later, ca), want: little},
		"both begin later":          {client: mk(t, 1, ca, later, ca), server: mk(t, 2, ca, later, ca), want: little},
		"begins later and key not known": {client: mk(t, 1, ca, later, ca), server: mk(t, 2, ca, good, ca), unknown: true,
			want: nothing},
		"begins later, of another CA":   {client: mk(t, 1, other, later, ca), server: mk(t, 2, ca, good, ca), want: nothing},
		"expired, of another CA":        {client: mk(t, 1, other, past, ca), server: mk(t, 2, ca, good, ca), want: nothing},
		"of another CA":                 {client: mk(t, 1, other, good, ca), server: mk(t, 2, ca, good, ca), want: nothing},
		"the server's is of another CA": {client: mk(t, 1, ca, good, ca), server: mk(t, 2, other, past, ca), want: nothing},
	} {
		t.Run(name, func(t *testing.T) {
			client, server := x.client(), x.server()
			if !x.unknown {
				client.creds.Known, server.creds.Known = known(server), known(client)
			}
			if x.forged {
				stranger := newAgedNode(t, client.id, ca, good, ca)
				server.creds.Known = known(stranger)
			}
			addr := serveAged(t, server)
			tr := New(client.creds, Table(func(uint64) (string, bool) { return addr, true }), nil, slog.New(slog.DiscardHandler))
			defer tr.Close()
			if got := raftEcho(tr, server.id); got != x.want.raft {
				t.Errorf("Raft: %v, want %v", got, x.want.raft)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			if got := tr.askers.of(server.id).follows(ctx, tr.askers.dial, server.id, 7); got != x.want.raft {
				t.Errorf("the question who leads: %v, want %v", got, x.want.raft)
			}
			for _, path := range renewalPaths {
				if err := tr.Call(ctx, http.MethodGet, server.id, path+"?x=1", nil, nil); (err == nil) != x.want.renewal {
					t.Errorf("%s: %v, want %v", path, err, x.want.renewal)
				}
			}
			for _, path := range []string{"/internal/mirror", "/internal/events", "/internal/hooks", PathNudge,
				"/internal/node-token",
				"/internal/owner/token", "/internal/recover-token", "/internal/owner/backup", "/internal/backup",
				"/internal/transferred", "/v1/operator/raft/configuration", "/api/v1/status", PathProbe + "/../events"} {
				if err := tr.Call(ctx, http.MethodGet, server.id, path, nil, nil); (err == nil) != x.want.all {
					t.Errorf("%s: %v, want %v", path, err, x.want.all)
				}
			}
			if !x.want.all && x.want.renewal { // and a client that does not keep to it gets nothing either
				r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+HostOf(server.id)+":1/internal/mirror", nil)
				if err != nil {
					t.Fatal(err)
				}
				if client.creds.current.Load().leaf.Leaf.NotAfter.Before(now) {
					resp, err := tr.renewal.RoundTrip(r)
					if err != nil || resp.StatusCode != http.StatusForbidden {
						t.Errorf("the mirror for an expired leaf: %v, %v", resp, err)
					} else {
						resp.Body.Close()
					}
				}
				resp, err := tr.Forward(r, server.id)
				var unsent interface{ NotSent() bool }
				if err == nil || !errors.As(err, &unsent) || !unsent.NotSent() {
					t.Errorf("a forwarded request: %v, %v; want an error that says that it was not sent", resp, err)
				}
			}
		})
	}
}

func mk(t *testing.T, id uint64, ca certs.CA, ends time.Time, roots certs.CA) func() *agedNode {
	return func() *agedNode { return newAgedNode(t, id, ca, ends, roots) }
}

// raftEcho reports whether a Raft stream to a node carries bytes both ways.
func raftEcho(tr *Transport, id uint64) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	conn, err := tr.DialRaft(ctx, id)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Write([]byte("raft")); err != nil {
		return false
	}
	var got strings.Builder
	_, err = io.CopyN(&got, conn, 4)
	return err == nil && got.String() == "raft"
}
