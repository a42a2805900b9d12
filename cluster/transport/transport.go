// Package transport is the cluster listener and the dialer of its other end: how members prove who they are to each
// other, and what they then say. Raft, questions of leadership, internal HTTP and the streams of other clusters share
// one port and are told apart by ALPN.
//
// It knows identities, not purposes: who is a member it is told by a fence, where members are by a Book, and what the
// requests mean is up to their handlers.
package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"muster/dialpolicy"
	"muster/netlimit"
	"muster/store"
)

const (
	handshakeTimeout = 3 * time.Second
	// userTimeout is how long sent data may stay unacknowledged before the kernel gives a connection up;
	// without it a half-dead member is noticed after a quarter of an hour.
	userTimeout = 3 * time.Second
	// PeerSilence is the same for connections with other clusters, which may be far away.
	PeerSilence = 10 * time.Second
)

// Replica is what the transport needs from the store.
type Replica interface {
	// DialOwn connects a member's Raft server to this one's.
	DialOwn(ctx context.Context, from uint64) (net.Conn, error)
	FollowsNow(ctx context.Context) (uint64, error)
	Epoch() uint64    // of this member's leadership, 0 while another one leads
	Revision() uint64 // that it has committed
}

// Book knows where members are.
type Book interface {
	// Candidates lists the addresses where a member may be, the likeliest first.
	Candidates(nodeID uint64) []string
	// Met notes an address at which a member has shown who it is.
	Met(nodeID uint64, address string)
}

// Table is a Book that only looks up.
type Table func(nodeID uint64) (address string, known bool)

// Candidates returns the one address of a member that is known.
func (f Table) Candidates(nodeID uint64) []string {
	if address, known := f(nodeID); known {
		return []string{address}
	}
	return nil
}

// Met does nothing.
func (f Table) Met(uint64, string) {}

// Transport is the cluster listener and the dialer of its other end.
type Transport struct {
	creds *Credentials
	book  Book
	fence func(nodeID uint64) error
	log   *slog.Logger

	// DialBound is how long a connection may take when the request can go to another member. Set before Serve.
	DialBound time.Duration
	// Dials says which addresses may be dialled. New allows all but those that never are; set before Serve.
	Dials dialpolicy.Policy
	// Limits bound the connections to the listener; set before Serve, the zero value stands for DefaultLimits.
	Limits netlimit.Limits

	service Service
	http    *http.Server
	httpIn  *handedListener
	agedIn  *handedListener // connections of members whose leaf has expired
	aged    *http.Server    // serves them what renewal needs
	client  *http.Transport
	renewal *http.Transport // for requests of renewal, where a leaf has expired
	askers  askers
	lines   lines

	gone      sync.Map // ids of members that this one has heard to be removed
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
	// Handler gets the internal HTTP requests, already authenticated: MemberID tells whose they are.
	Handler http.Handler
	// Confirm asks the leader about the member that an internal request comes from; nil: the fence is enough.
	Confirm func(r *http.Request, nodeID uint64) error
	// Alternatives reports whether a request can go to another member than this one; nil: it cannot.
	Alternatives func(nodeID uint64) bool
	// Peers serves connections of other clusters until they end. relayed: another member passes the connection on. nil:
	// they are closed.
	Peers func(conn net.Conn, relayed bool)
}

// New makes a transport that finds members by book and admits the members that fence accepts. Serve makes it listen.
func New(creds *Credentials, book Book, fence func(uint64) error, log *slog.Logger) *Transport {
	t := &Transport{
		creds:     creds,
		book:      book,
		fence:     fence,
		log:       log,
		strangers: newStrangers(log),
		DialBound: DefaultDialBound,
		Dials:     dialpolicy.Policy{Any: true, Loopback: true},
	}
	creds.use(log)
	t.client = t.newClient(false)
	t.renewal = t.newClient(true)
	t.renewal.DisableKeepAlives = true // the next request may find a fresh leaf
	t.lines.ctx, t.lines.end = context.WithCancel(context.Background())
	t.lines.dial = func(ctx context.Context, id uint64) (net.Conn, error) { return t.dial(ctx, id, protoCalls, false) }
	t.askers.dial = func(ctx context.Context, id uint64) (net.Conn, error) { return t.dial(ctx, id, protoAsk, true) }
	return t
}

// ClusterID is that of the cluster whose members are let in.
func (t *Transport) ClusterID() string { return t.creds.ClusterID }

// Credentials are what this member proves with who it is.
func (t *Transport) Credentials() *Credentials { return t.creds }

// Strangers remembers from where connections have failed.
func (t *Transport) Strangers() *Strangers { return t.strangers }

// Serve accepts connections until Close.
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

// Starved reports whether the listener cannot accept because there are no descriptors.
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
		if err != nil { // out of file descriptors, most likely: others must close some first
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

// handle serves a connection to its end, or returns true when the HTTP server serves it from now on.
func (t *Transport) handle(raw net.Conn) (handedOn bool) {
	silentFor(raw, userTimeout)
	conn := tls.Server(enter(raw), t.serverTLS())
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		if !errors.Is(err, errTooManyFailures) && !errors.Is(err, net.ErrClosed) { // a connection that was evicted is no failure
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

// handleHTTP hands a connection on to the HTTP server, which is fenced per request, with a status to show for it.
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

// handleStream serves the other protocols of members, until the connection ends. It is noted as the member's before the
// fence is asked: a removal between the two cuts it.
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

// Cut closes all connections with a member, at once.
func (t *Transport) Cut(nodeID uint64) {
	t.open.cut(nodeID)
	t.askers.forget(nodeID)
	t.lines.cut(nodeID)
	t.client.CloseIdleConnections()
}

// Ask reports whether at least need of the nodes follow this one at this moment. It blocks until that is certain either
// way or ctx ends.
func (t *Transport) Ask(ctx context.Context, nodes []uint64, need int) bool {
	return t.askers.ask(ctx, t.creds.NodeID, nodes, need)
}

// Close stops listening and closes every connection.
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
