package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"muster/netlimit"
	"muster/store"
)

const (
	handshakeTimeout = 3 * time.Second
	// userTimeout is how long sent data may stay unacknowledged before the kernel gives a connection up;
	// without it a half-dead peer is noticed after a quarter of an hour.
	userTimeout = 3 * time.Second
)

// Replica is what the transport needs from the store.
type Replica interface {
	DialOwn(ctx context.Context) (net.Conn, error)
	FollowsNow(ctx context.Context) (uint64, error)
}

// Transport is the cluster listener and the dialer of its other end.
type Transport struct {
	creds *Credentials
	book  *Book
	fence func(nodeID uint64) error
	log   *slog.Logger

	// Alternatives tells whether a request can go to another member than this one, DialBound how long a connection may take
	// then; both are set before Serve.
	Alternatives func(nodeID uint64) bool
	DialBound    time.Duration

	replica Replica
	http    *http.Server
	httpIn  *chanListener
	agedIn  *chanListener // connections of members whose leaf has expired
	aged    *http.Server  // serves them what renewal needs
	client  *http.Transport
	renewal *http.Transport // for requests of renewal, where a leaf has expired
	askers  askers
	peers   func(conn net.Conn, relayed bool) // serves other clusters, set before Serve
	// confirm asks the leader about the member that an internal request comes from; set before Serve.
	confirm func(r *http.Request, nodeID uint64) error

	gone      sync.Map // ids of members that this one has heard to be removed
	strangers *strangers
	limiter   *netlimit.Limiter
	// Limits bound the connections to the listener; set before Serve, the zero value stands for DefaultLimits.
	Limits netlimit.Limits

	mu       sync.Mutex
	listener net.Listener
	conns    map[uint64]map[net.Conn]bool // open connections by member, to be cut when it is removed
	done     sync.WaitGroup
}

// NewTransport makes a transport that finds members by address and lets in whom fence accepts.
func NewTransport(creds *Credentials, address func(uint64) (string, bool), fence func(uint64) error, log *slog.Logger) *Transport {
	t := &Transport{creds: creds, book: NewBook(nil, &Node{}, nil, log), fence: fence, log: log, conns: map[uint64]map[net.Conn]bool{},
		strangers: newStrangers(log), DialBound: DefaultDialBound}
	if address != nil {
		t.book.UseTable(func(_ context.Context, id uint64) (string, bool) { return address(id) })
	}
	creds.log = log
	t.client = t.newClient(false)
	t.renewal = t.newClient(true)
	t.renewal.DisableKeepAlives = true // the next request may find a fresh leaf
	t.askers.dial = func(ctx context.Context, id uint64) (net.Conn, error) { return t.dial(ctx, id, protoAsk, true) }
	return t
}

// UseBook makes the transport find members by the book of this process. It must be called before anything else.
func (t *Transport) UseBook(b *Book) { t.book = b }

// newClient makes a client of the internal HTTP. With aged the certificates of both ends may have expired.
func (t *Transport) newClient(aged bool) *http.Transport {
	return &http.Transport{
		DialTLSContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			id, err := nodeOf(addr)
			if err != nil {
				return nil, err
			}
			return t.dial(ctx, id, protoHTTP, aged)
		},
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: 2,
		IdleConnTimeout:     time.Minute,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: 500 * time.Millisecond, PingTimeout: 500 * time.Millisecond, MaxConcurrentStreams: 1000},
	}
}

// hostOf is the host name under which a member's internal HTTP is asked for.
func hostOf(nodeID uint64) string { return fmt.Sprintf("node-%d", nodeID) }

func nodeOf(addr string) (uint64, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return 0, err
	}
	digits, ok := strings.CutPrefix(host, "node-")
	if !ok {
		return 0, fmt.Errorf("%q is not the name of a node", host)
	}
	return strconv.ParseUint(digits, 10, 64)
}

// DialRaft opens a stream to the dqlite port of a member.
func (t *Transport) DialRaft(ctx context.Context, nodeID uint64) (net.Conn, error) {
	return t.dial(ctx, nodeID, protoRaft, true)
}

func limitSilence(c syscall.RawConn, limit time.Duration) error {
	var err error
	if e := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(limit.Milliseconds()))
	}); e != nil {
		return e
	}
	return err
}

// Forward sends a client's request to a member's internal HTTP. Its errors have a method NotSent, which tells whether it
// is certain that the member has not seen the request.
func (t *Transport) Forward(r *http.Request, nodeID uint64) (*http.Response, error) {
	r.URL.Scheme, r.URL.Host, r.Host = "https", hostOf(nodeID)+":1", hostOf(nodeID)
	if t.Alternatives != nil && t.Alternatives(nodeID) {
		r = r.WithContext(context.WithValue(r.Context(), boundKey{}, t.DialBound))
	}
	var sent atomic.Bool // the client may try several connections, and the last one says nothing of those before it
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { sent.Store(true) }}
	resp, err := t.client.RoundTrip(r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
	if err != nil {
		return nil, forwardError{err, sent.Load()}
	}
	return resp, nil
}

// forwardError is a failure to send a request or to get its answer.
type forwardError struct {
	error
	sent bool
}

// NotSent reports whether no connection was made that the request could have gone over.
func (e forwardError) NotSent() bool { return !e.sent }

func (e forwardError) Unwrap() error { return e.error }

// Serve accepts connections until Close. handler gets the internal HTTP requests, already authenticated: PeerID
// tells whose they are.
func (t *Transport) Serve(l net.Listener, replica Replica, handler http.Handler) {
	t.replica = replica
	if t.Limits == (netlimit.Limits{}) {
		t.Limits = DefaultLimits()
	}
	limiter := netlimit.New(t.Limits)
	l = limiter.Listener(l)
	t.httpIn, t.agedIn = newChanListener(l.Addr()), newChanListener(l.Addr())
	fenced := t.fenced(handler)
	t.http, t.aged = t.newServer(fenced), t.newServer(onlyRenewal(fenced))
	t.mu.Lock()
	t.listener, t.limiter = l, limiter
	t.mu.Unlock()
	t.done.Go(func() { _ = t.http.Serve(t.httpIn) })
	t.done.Go(func() { _ = t.aged.Serve(t.agedIn) })
	t.done.Go(func() { t.accept(l) })
}

// starved reports whether the listener cannot accept because there are no descriptors.
func (t *Transport) starved(now time.Time) bool {
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
		ErrorLog:          slog.NewLogLogger(t.log.Handler(), slog.LevelDebug),
	}
}

// headerNotLeader is how handlers know that what they have passed on was not begun.
const headerNotLeader = "X-Muster-Not-Leader"

// fenced lets in the requests of members.
func (t *Transport) fenced(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, err := t.creds.peer(*r.TLS)
		if err == nil {
			err = t.admits(id)
		}
		if err == nil && t.confirm != nil {
			err = t.confirm(r, id)
		}
		if err != nil { // nothing happened: what a member has passed on is its own to answer, and is tried again while it may
			w.Header().Set(headerNotLeader, "1")
		}
		switch {
		case errors.Is(err, store.ErrNotMember):
			if store.WasRemoved(err) {
				w.Header().Set(headerRemoved, "1")
			}
			http.Error(w, err.Error(), http.StatusGone)
			return
		case err != nil: // not known now; the caller must not take that for its removal
			http.Error(w, "whether node "+strconv.FormatUint(id, 10)+" is a member cannot be confirmed now", http.StatusServiceUnavailable)
			return
		}
		handler.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), peerKey{}, id)))
	})
}

type peerKey struct{}

// PeerID returns the member whose connection an internal request came over.
func PeerID(ctx context.Context) uint64 {
	id, _ := ctx.Value(peerKey{}).(uint64)
	return id
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
			t.strangers.quiet.write(slog.LevelWarn, "the cluster listener cannot accept", "err", err)
			time.Sleep(50 * time.Millisecond)
			continue
		}
		t.done.Add(1)
		go func() { defer t.done.Done(); t.handle(raw) }()
	}
}

func (t *Transport) handle(raw net.Conn) {
	silentFor(raw, userTimeout)
	conn := tls.Server(raw, t.serverTLS())
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		if !errors.Is(err, errTooManyFailures) && !errors.Is(err, net.ErrClosed) { // not those that have given way to others
			t.strangers.failed(raw.RemoteAddr(), time.Now())
		}
		t.strangers.quiet.write(slog.LevelDebug, "a connection to the cluster listener was refused", "remote", raw.RemoteAddr(), "err", err)
		raw.Close()
		return
	}
	state := conn.ConnectionState()
	if state.NegotiatedProtocol == protoPeer {
		defer conn.Close()
		if t.peers != nil {
			silentFor(raw, peerUserTimeout)
			t.peers(t.track(0, conn), false)
		}
		return
	}
	id, err := t.creds.peer(state)
	if err != nil {
		conn.Close()
		return
	}
	if state.NegotiatedProtocol == protoHTTP { // fenced per request, with a status to show for it
		in := t.httpIn
		if aged(state) {
			in = t.agedIn
		}
		in.give(t.track(id, conn))
		if t.admits(id) == nil {
			t.proven(raw)
		}
		return
	}
	if err := t.admits(id); err != nil {
		t.strangers.quiet.write(slog.LevelWarn, "a connection was refused", "node", id, "remote", raw.RemoteAddr(), "err", err)
		conn.Close()
		return
	}
	t.proven(raw)
	tracked := t.track(id, conn)
	defer tracked.Close()
	switch state.NegotiatedProtocol {
	case protoRaft:
		own, err := t.replica.DialOwn(ctx)
		if err != nil {
			t.log.Debug("the local Raft server does not take a connection", "err", err)
			return
		}
		store.Splice(tracked, own)
	case protoAsk:
		serveAsk(tracked, t.replica)
	case protoRelay:
		if t.peers != nil {
			t.peers(tracked, true)
		}
	}
}

// track registers a connection under its member and sweeps out those that have ended. It does not wrap the
// connection: net/http must get the *tls.Conn itself, or it would not see that HTTP/2 was negotiated.
func (t *Transport) track(id uint64, conn *tls.Conn) net.Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conns[id] == nil {
		t.conns[id] = map[net.Conn]bool{}
	}
	for c := range t.conns[id] { // forget those that have ended
		if tc, ok := c.(*tls.Conn); ok && ended(tc) {
			delete(t.conns[id], c)
		}
	}
	t.conns[id][conn] = true
	return conn
}

// ended tells whether a connection was closed on this side: its deadline can no longer be set.
func ended(c *tls.Conn) bool {
	return c.NetConn().(interface{ SetDeadline(time.Time) error }).SetDeadline(time.Time{}) != nil
}

// Cut closes all connections with a member, at once.
func (t *Transport) Cut(nodeID uint64) {
	t.mu.Lock()
	conns := t.conns[nodeID]
	delete(t.conns, nodeID)
	t.mu.Unlock()
	for c := range conns {
		if tc, ok := c.(*tls.Conn); ok {
			tc.NetConn().Close()
		}
	}
	t.askers.forget(nodeID)
	t.client.CloseIdleConnections()
}

// Ask tells whether at least need of the nodes follow this one at this moment. It blocks until that is certain
// either way or ctx ends.
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
	t.mu.Lock()
	ids := make([]uint64, 0, len(t.conns))
	for id := range t.conns {
		ids = append(ids, id)
	}
	t.mu.Unlock()
	for _, id := range ids {
		t.Cut(id)
	}
	t.askers.close()
	t.client.CloseIdleConnections()
	t.done.Wait()
}
