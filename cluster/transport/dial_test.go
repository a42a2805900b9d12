package transport

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"muster/certs"
	"muster/internal/silent"
	"muster/store"
)

var discard = slog.New(slog.DiscardHandler)

// listed is a Book of one member.
type listed struct {
	places []string
	mu     sync.Mutex
	last   map[uint64]string
}

func (b *listed) Candidates(uint64) []string { return b.places }

func (b *listed) Met(nodeID uint64, address string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last = map[uint64]string{nodeID: address}
}

func (b *listed) met(nodeID uint64) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.last[nodeID]
}

// TestDialFindsWhoMoved: wherever the book has a member, only the place counts where it shows who it is, and that is
// kept.
func TestDialFindsWhoMoved(t *testing.T) {
	ca, err := certs.NewCA(certs.Transport, agedCluster, time.Now().Add(-2*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	ends := time.Now().Add(time.Hour)
	one, two, three := newAgedNode(t, 1, ca, ends, ca), newAgedNode(t, 2, ca, ends, ca), newAgedNode(t, 3, ca, ends, ca)
	at, other := serveAged(t, two), serveAged(t, three)
	_, port, err := net.SplitHostPort(at)
	if err != nil {
		t.Fatal(err)
	}
	named := net.JoinHostPort("localhost", port)
	for _, x := range []struct {
		name                     string
		given, table, kept, want string
	}{
		{"where it is given", at, silent.Gone(t), silent.Gone(t), at},
		{"where the table has it", silent.Gone(t), at, other, at},
		{"where it was met", other, silent.Gone(t), at, at},
		{"behind one that is deaf", silent.Deaf(t), other, at, at},
		{"by its host name", silent.Gone(t), "no-such-host.invalid:1", named, named},
		{"nowhere", silent.Gone(t), other, silent.Gone(t), ""},
	} {
		t.Run(x.name, func(t *testing.T) {
			b := &listed{places: []string{x.given, x.table, x.kept}}
			tr := New(one.creds, b, func(uint64) error { return nil }, discard)
			defer tr.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			conn, err := tr.dial(ctx, 2, protoHTTP, false)
			if err == nil {
				conn.Close()
			}
			if met := b.met(2); (err == nil) != (x.want != "") || met != x.want {
				t.Errorf("it was met at %q, %v, want %q", met, err, x.want)
			}
		})
	}
}

// A request that can go to another member does not wait long for a connection, and may be sent again; one that cannot
// waits for as long as a slow member may take.
func TestForwardingDialsAreBounded(t *testing.T) {
	ca, err := certs.NewCA(certs.Transport, agedCluster, time.Now().Add(-2*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	one, silent := newAgedNode(t, 1, ca, time.Now().Add(time.Hour), ca), silent.Deaf(t)
	tr := New(one.creds, Table(func(uint64) (string, bool) { return silent, true }), nil, discard)
	defer tr.Close()
	for _, other := range []bool{true, false} {
		tr.service.Alternatives = func(uint64) bool { return other }
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		_, err = tr.Forward(r, 2)
		took := time.Since(begin)
		cancel()
		var unsent interface{ NotSent() bool }
		if !errors.As(err, &unsent) || !unsent.NotSent() {
			t.Errorf("another member %t: %v", other, err)
		}
		if (took >= handshakeTimeout) == other {
			t.Errorf("another member %t: the dial took %v", other, took)
		}
	}
}

// TestDialPolicy: no way to reach a member leads to an address that this one must not dial, whatever its name resolves
// to.
func TestDialPolicy(t *testing.T) {
	ca, err := certs.NewCA(certs.Transport, agedCluster, time.Now().Add(-2*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	one := newAgedNode(t, 1, ca, time.Now().Add(time.Hour), ca)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var taken atomic.Int64
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			taken.Add(1)
			conn.Close()
		}
	}()
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"127.0.0.1", "localhost", "::ffff:127.0.0.1", "169.254.169.254", "100.100.100.200",
		"fe80::1"} {
		address := net.JoinHostPort(host, port)
		tr := New(one.creds, Table(func(uint64) (string, bool) { return address, true }), nil, discard)
		tr.Dials.Loopback = false
		tr.DialBound = time.Second
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		request := func(ctx context.Context) *http.Request {
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		for way, dial := range map[string]func() error{
			"raft":    func() error { _, err := tr.DialRaft(ctx, 2); return err },
			"relay":   func() error { _, err := tr.DialRelay(ctx, 2); return err },
			"prove":   func() error { return tr.Prove(ctx, 2, address) },
			"call":    func() error { return tr.Call(ctx, http.MethodGet, 2, PathProbe, nil, nil) },
			"call at": func() error { return tr.CallAt(ctx, http.MethodGet, 2, address, PathProbe, nil, nil) },
			"get":     func() error { _, err := tr.Get(ctx, 2, PathProbe); return err },
			"forward": func() error { _, err := tr.Forward(request(ctx), 2); return err },
			"attempt": func() error { _, err := tr.Forward(request(store.WithAttempt(ctx, &store.Attempt{})), 2); return err },
			"ask": func() error {
				if tr.Ask(ctx, []uint64{2}, 1) {
					return nil
				}
				return errors.New("no")
			},
		} {
			if err := dial(); err == nil {
				t.Errorf("%s of %s: no error", way, host)
			}
		}
		cancel()
		tr.Close()
	}
	if n := taken.Load(); n > 0 {
		t.Errorf("%d connections were made", n)
	}
}

// TestNameOfManyAddresses: of the addresses that a host name has, one says nothing, one is another member's and one
// refuses connections: the one that is the member's is found behind them, within the time of a forwarded request.
func TestNameOfManyAddresses(t *testing.T) {
	ca, err := certs.NewCA(certs.Transport, agedCluster, time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Hour)
	one, two, three := newAgedNode(t, 1, ca, later, ca), newAgedNode(t, 2, ca, later, ca), newAgedNode(t, 3, ca, later, ca)
	at := serveAged(t, two)
	_, port, err := net.SplitHostPort(at)
	if err != nil {
		t.Fatal(err)
	}
	silent, err := net.Listen("tcp", "127.0.0.2:"+port)
	if err != nil {
		t.Skip(err)
	}
	defer silent.Close()
	serveAgedAt(t, three, "127.0.0.3:"+port)
	name := "members.example:" + port
	for what, list := range map[string][]string{
		"the last one":   {"127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.1"},
		"the first one":  {"127.0.0.1", "127.0.0.2"},
		"as IPv6 has it": {"127.0.0.4", "::ffff:127.0.0.1"},
	} {
		tr := New(one.creds, Table(func(uint64) (string, bool) { return name, true }), nil, discard)
		tr.lookup = func(context.Context, string, string) (ips []netip.Addr, err error) {
			for _, ip := range list {
				ips = append(ips, netip.MustParseAddr(ip))
			}
			return ips, nil
		}
		if !raftEcho(tr, 2) {
			t.Errorf("%s: not found", what)
		}
		if raftEcho(tr, 9) {
			t.Errorf("%s: a member that is at none of them is found", what)
		}
		tr.Close()
	}
	tr := New(one.creds, Table(func(uint64) (string, bool) { return name, true }), nil, discard)
	defer tr.Close()
	tr.lookup = func(context.Context, string, string) ([]netip.Addr, error) {
		return nil, &net.DNSError{Err: "no such host", Name: "members.example", IsNotFound: true}
	}
	if _, err := tr.DialRaft(t.Context(), 2); err == nil ||
		!strings.Contains(err.Error(), "lookup members.example: no such host") {
		t.Errorf("a name that is not known: %v", err)
	}
}
