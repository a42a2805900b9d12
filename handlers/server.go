// Package handlers is the HTTP side of muster: one table of routes, authentication, forwarding to the leader,
// and one file per API family. What it answers comes from store; it has no state of its own.
package handlers

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"

	"muster/netlimit"
	"muster/store"
)

const (
	BodyLimit    = 1 << 20
	AnswerWithin = 4800 * time.Millisecond // a caller without a leader is told so within 5 s
)

// Peers reaches the other members.
type Peers interface {
	// Forward sends the request to a member over the cluster listener. An error that has a method
	// NotSent() bool returning true means that the member never saw it.
	Forward(r *http.Request, nodeID uint64) (*http.Response, error)
}

// Config is what the handlers answer from.
type Config struct {
	Store     *store.Store
	Peers     Peers
	Autopilot func() any                    // the leader's view, as the members family shows it
	Alive     func(nodeID uint64) string    // "alive", "left" or "unknown", as the leader's probes have it
	DownSince func(nodeID uint64) time.Time // when a member that does not answer last did, the zero time for any other
	Wake      func()                        // tells the leader's loops that membership has changed

	CanRemove func(ctx context.Context, nodeID uint64) error // why a removal would leave too few live voters
	Reachable func(ctx context.Context, nodeID uint64) error // why a member does not answer now
	CanLead   func(ctx context.Context, nodeID uint64) error // why leadership must not go to a member now
	// Transferred returns who leads, and accepts writes, after a hand-over to a member, once the outcome is in the audit.
	Transferred    func(ctx context.Context, actor store.Actor, to uint64) (uint64, error)
	Diff           func(ctx context.Context) (any, error)                               // where Raft does not agree with SQL
	PrepareRemoval func(ctx context.Context, nodeID uint64) (*store.DEKRotation, error) // what a removal makes worthless, anew
	NewJoinKeys    func() ([]store.NewKey, error)
	Schema         func(ctx context.Context) (any, error) // what the database has, and who holds it back
	MigrateSchema  func(ctx context.Context, actor store.Actor, exclude []uint64) (any, error)
	// AutopilotConfig returns autopilot's configuration and the revision that last changed it, 0 for never.
	AutopilotConfig  func(ctx context.Context, c store.Consistency) (any, uint64, error)
	ReplaceAutopilot func(ctx context.Context, fields []byte) (json.RawMessage, error) // those of the raft family anew, checked
	MergeAutopilot   func(ctx context.Context, patch []byte) (json.RawMessage, error)  // a changed configuration, checked

	Notices func() []string // what this member's operator has to do now, a sentence each
	Disk    func() any      // how full this member's disk is
	History func() any      // what this member remembers of the last hour
	// Storing returns why this member does not store, empty when it does, and how its disk answers.
	Storing     func() (fault string, detail any)
	CannotStore func(nodeID uint64) string // why a member does not store, as the leader's last round has it
	DiskLow     func(nodeID uint64) bool   // a member has said that its disk is nearly full, as the leader's probes have it
	// RestoreLimit is how many bytes the state of an archive may have unpacked, 0 for the default; DiskRoom is how much may be
	// written before the disk's reserve is met, nil for any.
	RestoreLimit int64
	DiskRoom     func() int64

	// Installed tells which members have put the present trust into effect, and why others have not.
	Installed func(ctx context.Context) (store.Installed, map[uint64]string, error)
	// ExchangePeeringSecret trades the secret of another cluster's token for a stream secret; store.ErrPeeringSecret when
	// that cluster refuses it, and what the error says is for the caller when it cannot be reached.
	ExchangePeeringSecret func(ctx context.Context, addresses []string, serverName string, pems []string, peerID, secret string) (string, error)
	// MayDialPeer tells why an address of another cluster must not be dialled, as far as that is known before it is resolved.
	MayDialPeer func(ctx context.Context, address string) (why, err error)
	PeerStream  func(peeringID string) PeerStream

	ClusterID string
	Name      string
	Version   string
	PlainHTTP string // address of the listener without TLS, if there is one
	Commit    string
	Leaf      func() []byte   // DER of the API listener's certificate
	Chain     func() [][]byte // what the API listener presents, DER, the leaf first
	Now       func() time.Time
	Logger    *slog.Logger

	Limits      Limits
	Connections *netlimit.Limiter // counts the connections of the listeners; nil: nobody does

	Collectors []prometheus.Collector // what /metrics shows besides requests and the store
}

// Server answers API requests on every member.
type Server struct {
	Config
	log      *slog.Logger
	families []*Family
	routes   []*Route
	failures *failureLimiter
	slots    chan struct{}
	streams  *streams
	refusals *refusals
	*instruments
	rooms     *rooms        // of strangers
	waiting   *shares       // blocking queries
	snapshots chan struct{} // bounds how many are made at once
	restores  chan struct{} // the same for restores
	api       http.Handler
	internal  http.Handler
	plain     http.Handler
}

// New builds the handlers.
func New(cfg Config, families ...*Family) *Server {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.Limits = cfg.Limits.orDefault()
	if cfg.RestoreLimit == 0 {
		cfg.RestoreLimit = store.MaxArchiveState
	}
	s := &Server{Config: cfg, log: cfg.Logger, failures: newFailureLimiter(), slots: make(chan struct{}, cfg.Limits.Requests),
		snapshots: make(chan struct{}, 2), restores: make(chan struct{}, 1), streams: newStreams(cfg.Limits),
		refusals: newRefusals(), rooms: newRooms(cfg.Limits.StrangersPerAddress),
		waiting: newShares(cfg.Limits.Blocking, cfg.Limits.BlockingPerIdentity)}
	s.instruments = newInstruments(s)
	s.enter(append(s.builtIn(), families...))
	s.api = s.router(origin{})
	s.plain = s.router(origin{plain: true})
	s.internal = s.router(origin{forwarded: true})
	return s
}

// API serves clients.
func (s *Server) API() http.Handler { return s.api }

// Plain serves clients that cannot speak TLS: the join and what is open to everybody.
func (s *Server) Plain() http.Handler { return s.plain }

// Internal serves what other members forward. It must only be reachable over the cluster listener.
func (s *Server) Internal() http.Handler { return s.internal }

// origin tells how a request came in.
type origin struct {
	forwarded bool
	plain     bool
}

func (s *Server) router(o origin) http.Handler {
	m := mux.NewRouter().SkipClean(true).UseEncodedPath()
	for _, rt := range s.routes {
		if o.plain && !rt.Plain {
			continue
		}
		answer := s.dispatch
		if rt.Stream {
			answer = s.stream
		}
		guarded := s.guard(rt, o, func(w http.ResponseWriter, r *http.Request) {
			answer(rt, o, w, r)
		})
		methods := []string{rt.Method}
		if rt.Heads() {
			methods, guarded = append(methods, http.MethodHead), withHead(guarded, rt.Stream)
		}
		m.NewRoute().Path(rt.Path).Methods(methods...).Handler(guarded)
	}
	m.NotFoundHandler = s.guard(nil, o, s.noRoute)
	m.MethodNotAllowedHandler = s.guard(nil, o, s.noMethod)
	h := withSlash(m)
	if !o.plain {
		h = s.asides(o, h)
	}
	return h
}

// noRoute answers where nobody serves the path.
func (s *Server) noRoute(w http.ResponseWriter, r *http.Request) {
	f := s.familyOf(r.URL.Path)
	if f.NoRoute != nil {
		f.NoRoute(w, r)
		return
	}
	f.Fail(w, http.StatusNotFound, store.NotFound, "there is nothing at this path")
}

// noMethod answers where nobody serves the method.
func (s *Server) noMethod(w http.ResponseWriter, r *http.Request) {
	f, allowed := s.familyOf(r.URL.Path), s.methodsOf(r.URL.Path)
	if f.NoMethod != nil {
		f.NoMethod(w, r, allowed)
		return
	}
	for _, method := range allowed {
		w.Header().Add("Allow", method)
	}
	f.Fail(w, http.StatusMethodNotAllowed, store.Invalid, "the method "+r.Method+" is not allowed here")
}

// asides lets the families answer what they do before the table is asked.
func (s *Server) asides(o origin, next http.Handler) http.Handler {
	for _, f := range s.families {
		a := f.Aside
		if a == nil {
			continue
		}
		own, table := s.guard(&Route{Method: a.Method, Path: a.Path, Family: f}, o, a.Serve), next
		next = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if a.Takes(r) {
				own.ServeHTTP(w, r)
				return
			}
			table.ServeHTTP(w, r)
		})
	}
	return next
}

const headerRemote = "X-Muster-Remote" // the caller's address, said by the member that forwards

func remoteOf(r *http.Request, o origin) string {
	addr := r.RemoteAddr
	if o.forwarded {
		if h := r.Header.Get(headerRemote); h != "" {
			addr = h
		}
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	return host
}

// Serve listens for clients until ctx ends and then lets requests that are under way finish for a moment. A connection
// has at most so many streams at once, with HTTP/2.
func Serve(ctx context.Context, l net.Listener, h http.Handler, streams int, log *slog.Logger) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       bodyWithin,
		WriteTimeout:      bodyWithin + 2*AnswerWithin + writeWithin, // of what is answered at once; others set their own
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ConnContext:       withConnection,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: streams, MaxReceiveBufferPerConnection: 256 << 10, MaxReceiveBufferPerStream: 256 << 10,
			WriteByteTimeout: writeWithin, SendPingTimeout: time.Minute},
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if err := srv.Shutdown(sctx); err != nil {
			return srv.Close()
		}
		return nil
	}
}
