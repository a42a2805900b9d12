// Package handlers is the engine of the API: listener, route table, the order in which a request is processed, limits,
// authentication, forwarding to the leader, blocking queries and streams. The endpoints, with their envelopes and
// texts, are in the families' packages below it; it knows none of them.
package handlers

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"

	"muster/internal/netlimit"
	"muster/store"
)

const (
	BodyLimit = 1 << 20
	// log lines about failed requests
	logLinesPerSec, logLinesBurst = 10, 100

	AnswerWithin = 4800 * time.Millisecond // without a leader a caller gets an error within 5 s
)

// Peers reaches the other members.
type Peers interface {
	// Forward sends the request to a member over the cluster listener. An error with a method NotSent() bool that
	// returns true means that the member did not receive it.
	Forward(r *http.Request, nodeID uint64) (*http.Response, error)
}

// Config holds the dependencies of the engine.
type Config struct {
	Replica   Replica
	Mirror    Mirror
	APIKeys   APIKeys
	APITokens APITokens
	Audit     Audit
	Events    Events
	Keys      Keys
	Members   Members

	Peers     Peers
	ClusterID string
	Version   string
	Commit    string
	Now       func() time.Time
	Logger    *slog.Logger

	Limits      Limits
	Connections *netlimit.Limiter // counts the listeners' connections; nil: no limit

	Collectors []prometheus.Collector // metrics besides those of requests and the store
}

// Server answers API requests on every member.
type Server struct {
	Config
	log      *slog.Logger
	quiet    *netlimit.QuietLog // for lines that callers can cause at will
	families []*Family
	routes   []*Route
	failures *failureLimiter
	slots    chan struct{}
	streams  *streams
	refusals *refusals
	*instruments
	rooms   *rooms  // of strangers
	away    *rooms  // of requests without a place whose answers are being sent
	waiting *shares // blocking queries

	strangerBodies, bodies *rations // of strangers, and of authenticated callers
	answersOf, answersTo   *rations // of authenticated callers, and of their addresses

	api      http.Handler
	internal http.Handler
	plain    http.Handler
}

// New returns a server with the routes of all families.
func New(cfg Config, families ...*Family) *Server {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.Limits = cfg.Limits.orDefault()
	s := &Server{
		Config:   cfg,
		log:      cfg.Logger,
		quiet:    netlimit.NewQuietLog(cfg.Logger, logLinesPerSec, logLinesBurst),
		failures: newFailureLimiter(),
		slots:    make(chan struct{}, cfg.Limits.Requests),
		streams:  newStreams(cfg.Limits),
		refusals: newRefusals(),
		rooms:    newRooms(cfg.Limits.StrangersPerAddress),
		away:     newRooms(awayPerAddress),
		waiting:  newShares(cfg.Limits.Blocking, cfg.Limits.BlockingPerIdentity),

		strangerBodies: newRations(strangerBytes, allStrangerBytes),
		bodies:         newRations(knownBytes, allKnownBytes),
		answersOf:      newRations(knownAnswers, allAnswers),
		answersTo:      newRations(addressAnswers, allAnswers),
	}
	s.instruments = newInstruments(s)
	s.enter(families)
	s.api = s.router(origin{})
	s.plain = s.router(origin{plain: true})
	s.internal = s.router(origin{forwarded: true})
	return s
}

// API returns the handler for clients.
func (s *Server) API() http.Handler { return s.api }

// Plain returns the handler for clients without TLS: the join and the open routes.
func (s *Server) Plain() http.Handler { return s.plain }

// Internal returns the handler for requests that other members forward. It must only be reachable over the cluster
// listener.
func (s *Server) Internal() http.Handler { return s.internal }

// origin is the listener that a request arrived at.
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

// noRoute answers for a path that no route serves.
func (s *Server) noRoute(w http.ResponseWriter, r *http.Request) {
	f := s.familyOf(r)
	if f.NoRoute != nil {
		f.NoRoute(w, r)
		return
	}
	f.Fail(w, http.StatusNotFound, store.NotFound, "there is nothing at this path")
}

// noMethod answers for a method that no route of the path serves.
func (s *Server) noMethod(w http.ResponseWriter, r *http.Request) {
	f, allowed := s.familyOf(r), s.methodsOf(r.URL.Path)
	if f.NoMethod != nil {
		f.NoMethod(w, r, allowed)
		return
	}
	for _, method := range allowed {
		w.Header().Add("Allow", method)
	}
	f.Fail(w, http.StatusMethodNotAllowed, store.Invalid, "the method "+r.Method+" is not allowed here")
}

// asides calls the families' Aside before routing.
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

const headerRemote = "X-Muster-Remote" // the caller's address, set by the forwarding member

// fromMembers are the headers that members add to forwarded requests; clients have none of them.
var fromMembers = []string{headerForwarded, headerRemote, headerAsked, headerBody, headerVouch, headerWait}

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

// Serve serves the clients of a listener with one of the handlers until ctx ends and then gives requests in progress a
// moment to finish.
func (s *Server) Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       bodyWithin,
		WriteTimeout:      bodyWithin + 2*AnswerWithin + writeWithin, // for requests answered at once; others set their own
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ConnContext:       withConnection,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          s.Limits.Streams,
			MaxReceiveBufferPerConnection: 256 << 10,
			MaxReceiveBufferPerStream:     256 << 10,
			WriteByteTimeout:              writeWithin,
			SendPingTimeout:               time.Minute,
		},
	}
	if err := serveHTTP2(srv, func() { s.sentAway.WithLabelValues(refusedFrames).Inc() }); err != nil {
		return err
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
