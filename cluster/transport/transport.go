// Package transport is the cluster listener and its dialer: how members authenticate to each other and which protocols
// they speak. Raft, questions about leadership, internal HTTP and the streams of other clusters share one port and are
// selected by ALPN.
//
// It knows identities, not purposes: a fence decides who is a member, a Book knows the addresses, and handlers give the
// requests their meaning.
package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"muster/internal/addr"
	"muster/internal/netlimit"
	"muster/store"
)

const (
	handshakeTimeout = 3 * time.Second
	// userTimeout is how long sent data may stay unacknowledged before the kernel closes a connection. Without it a member
	// that vanishes is noticed after a quarter of an hour.
	userTimeout = 3 * time.Second
	// PeerSilence is userTimeout for connections with other clusters, which may be far away.
	PeerSilence = 10 * time.Second
)

// Replica is the part of the store that the transport needs.
type Replica interface {
	// DialOwn connects a member's Raft server to this one's.
	DialOwn(ctx context.Context, from uint64) (net.Conn, error)
	FollowsNow(ctx context.Context) (uint64, error)
	Epoch() uint64    // of this member's leadership; 0 while it does not lead
	Revision() uint64 // committed by this member as leader
}

// Book knows the addresses of members.
type Book interface {
	// Candidates lists possible addresses of a member, the likeliest first.
	Candidates(nodeID uint64) []string
	// Met records an address at which a member has authenticated.
	Met(nodeID uint64, address string)
}

// Table is a read-only Book.
type Table func(nodeID uint64) (address string, known bool)

// Candidates returns the known address of a member, if any.
func (f Table) Candidates(nodeID uint64) []string {
	if address, known := f(nodeID); known {
		return []string{address}
	}
	return nil
}

// Met does nothing.
func (f Table) Met(uint64, string) {}

// Transport is the cluster listener and its dialer. All methods are safe for concurrent use.
type Transport struct {
	creds *Credentials
	book  Book
	fence func(nodeID uint64) error
	log   *slog.Logger

	// DialBound is how long a connection may take when the request can go to another member. Set before Serve.
	DialBound time.Duration
	// Dials is the policy for addresses of members. New allows all but those that are never dialled. Set before Serve.
	Dials addr.DialPolicy
	// Limits bound the connections to the listener. Set before Serve; the zero value means DefaultLimits.
	Limits netlimit.Limits

	service Service
	http    *http.Server
	httpIn  *handedListener
	agedIn  *handedListener // connections of members whose leaf has expired
	aged    *http.Server    // serves requests of renewal on them
	client  *http.Transport
	renewal *http.Transport // for requests of renewal, where a leaf has expired
	askers  askers
	lines   lines

	lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)

	gone      sync.Map // ids of members that are known to be removed
	strangers *Strangers
	limiter   *netlimit.Limiter

	mu       sync.Mutex
	listener net.Listener
	open     openConns
	done     sync.WaitGroup
}

// Service is what the cluster listener serves.
type Service struct {
	Replica Replica
	// Handler gets the authenticated internal HTTP requests; MemberID returns their member.
	Handler http.Handler
	// Confirm asks the leader about the member of an internal request. nil: the fence decides alone.
	Confirm func(r *http.Request, nodeID uint64) error
	// Recovered returns since when the cluster has had a leader after a recovery, in a text that grows with time; empty:
	// unknown.
	Recovered func(context.Context) string
	// Alternatives reports whether a request can go to another member than this one. nil: it cannot.
	Alternatives func(nodeID uint64) bool
	// Peers serves connections of other clusters until they end. relayed: another member relays the connection. nil: they
	// are closed.
	Peers func(conn net.Conn, relayed bool)
}

// New returns a transport that finds members by book and admits members that fence accepts. Serve makes it listen.
func New(creds *Credentials, book Book, fence func(uint64) error, log *slog.Logger) *Transport {
	t := &Transport{
		creds:     creds,
		book:      book,
		fence:     fence,
		log:       log,
		strangers: newStrangers(log),
		DialBound: DefaultDialBound,
		lookup:    net.DefaultResolver.LookupNetIP,
		Dials:     addr.DialPolicy{Any: true, Loopback: true},
	}
	creds.use(log)
	t.client = t.newClient(false)
	t.renewal = t.newClient(true)
	t.renewal.DisableKeepAlives = true // the next request may have a new leaf
	t.lines.ctx, t.lines.end = context.WithCancel(context.Background())
	t.lines.dial = func(ctx context.Context, id uint64) (net.Conn, error) { return t.dial(ctx, id, protoCalls, false) }
	t.askers.dial = func(ctx context.Context, id uint64) (net.Conn, error) { return t.dial(ctx, id, protoAsk, true) }
	return t
}

// ClusterID returns the id of this cluster.
func (t *Transport) ClusterID() string { return t.creds.ClusterID }

// Credentials returns the credentials of this member.
func (t *Transport) Credentials() *Credentials { return t.creds }

// Strangers returns the record of failed connections.
func (t *Transport) Strangers() *Strangers { return t.strangers }

// Serve accepts connections and blocks until Close.
func (t *Transport) Serve(l net.Listener, service Service) {
	t.service = service
	if t.Limits == (netlimit.Limits{}) {
		t.Limits = DefaultLimits()
	}
	limiter := netlimit.New(t.Limits)
	l = limiter.Listener(l)
	t.httpIn, t.agedIn = newHandedListener(l.Addr()), newHandedListener(l.Addr())
	fenced := t.fenced(service.Handler)
	t.http, t.aged = t.newServer(fenced), t.newServer(onlyRenewal(fenced))
	t.mu.Lock()
	t.listener, t.limiter = l, limiter
	t.mu.Unlock()
	t.done.Go(func() { _ = t.http.Serve(t.httpIn) })
	t.done.Go(func() { _ = t.aged.Serve(t.agedIn) })
	t.done.Go(func() { t.accept(l) })
}

// Starved reports whether the listener cannot accept because no file descriptors are left.
func (t *Transport) Starved(now time.Time) bool {
	t.mu.Lock()
	limiter := t.limiter
	t.mu.Unlock()
	return limiter.Starved(now)
}

func (t *Transport) newServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		TLSConfig:         &tls.Config{NextProtos: []string{protoHTTP}},
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ConnState:         t.open.state,
		ErrorLog:          slog.NewLogLogger(t.log.Handler(), slog.LevelDebug),
	}
}

func (t *Transport) accept(l net.Listener) {
	for {
		raw, err := l.Accept()
		if err == nil && t.turnedAway(raw) {
			raw.Close()
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // probably no file descriptors are left: wait until others close some
			t.strangers.Log(slog.LevelWarn, "the cluster listener cannot accept", "err", err)
			time.Sleep(50 * time.Millisecond)
			continue
		}
		t.done.Go(func() {
			t.open.add(raw, 0)
			if !t.handle(raw) {
				t.open.remove(raw)
			}
		})
	}
}

// handle serves a connection to its end, or returns true when the HTTP server has taken it.
func (t *Transport) handle(raw net.Conn) (handedOn bool) {
	silentFor(raw, userTimeout)
	conn := tls.Server(enter(raw), t.serverTLS())
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		// An evicted connection is closed, and is not a failure.
		if !errors.Is(err, errTooManyFailures) && !errors.Is(err, net.ErrClosed) {
			t.strangers.Failed(raw.RemoteAddr(), time.Now())
		}
		t.strangers.Log(slog.LevelDebug, "a connection to the cluster listener was refused", "remote", raw.RemoteAddr(),
			"err", err)
		raw.Close()
		return false
	}
	state := conn.ConnectionState()
	switch state.NegotiatedProtocol {
	case ProtoPeer:
		defer conn.Close()
		if t.service.Peers != nil {
			silentFor(raw, PeerSilence)
			t.service.Peers(conn, false)
		}
	case protoHTTP:
		return t.handleHTTP(raw, conn)
	default:
		t.handleStream(ctx, raw, conn)
	}
	return false
}

// handleHTTP passes a connection to the HTTP server, which applies the fence to each request and answers with a status.
func (t *Transport) handleHTTP(raw net.Conn, conn *tls.Conn) bool {
	state := conn.ConnectionState()
	id, err := t.creds.member(state)
	if err != nil {
		conn.Close()
		return false
	}
	in := t.httpIn
	if aged(state) {
		in = t.agedIn
	}
	t.open.add(raw, id)
	if t.admits(id) == nil {
		t.proven(raw)
	}
	return in.give(conn)
}

// handleStream serves the other protocols of members until the connection ends. The connection is registered before the
// fence is asked, so a removal in between closes it.
func (t *Transport) handleStream(ctx context.Context, raw net.Conn, conn *tls.Conn) {
	defer conn.Close()
	state := conn.ConnectionState()
	id, err := t.creds.member(state)
	if err != nil {
		return
	}
	t.open.add(raw, id)
	if err := t.admits(id); err != nil {
		t.strangers.Log(slog.LevelWarn, "a connection was refused", "node", id, "remote", raw.RemoteAddr(), "err", err)
		return
	}
	t.proven(raw)
	switch state.NegotiatedProtocol {
	case protoRaft:
		own, err := t.service.Replica.DialOwn(ctx, id)
		if err != nil {
			t.log.Debug("the local Raft server does not take a connection", "err", err)
			return
		}
		store.Splice(conn, own)
	case protoAsk:
		serveAsk(conn, t.service.Replica)
	case protoCalls:
		t.serveCalls(conn, id)
	case protoRelay:
		if t.service.Peers != nil {
			t.service.Peers(conn, true)
		}
	}
}

// Cut closes all connections with a member at once.
func (t *Transport) Cut(nodeID uint64) {
	t.open.cut(nodeID)
	t.askers.forget(nodeID)
	t.lines.cut(nodeID)
	t.client.CloseIdleConnections()
}

// Ask reports whether at least need of the nodes follow this one now. It blocks until that is decided or ctx ends.
func (t *Transport) Ask(ctx context.Context, nodes []uint64, need int) bool {
	return t.askers.ask(ctx, t.creds.NodeID, nodes, need)
}

// Close stops listening and closes every connection. It blocks until Serve has ended.
func (t *Transport) Close() {
	t.mu.Lock()
	l := t.listener
	t.mu.Unlock()
	if l != nil {
		l.Close()
		t.httpIn.Close()
		t.agedIn.Close()
		t.http.Close()
		t.aged.Close()
	}
	t.open.close()
	t.askers.close()
	t.lines.close()
	t.client.CloseIdleConnections()
	t.done.Wait()
}
