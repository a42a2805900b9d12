package handlers

import (
	"context"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"
)

// recorder records the status of the answer and the resources of the request.
type recorder struct {
	http.ResponseWriter
	status int
	wrote  bool

	server *Server
	place  *stay   // in the room of its address; nil for a known caller whose credential allows something
	ration *ration // of the memory for bodies; nil for forwarded requests
	own    ration  // storage for ration
	slot   bool    // it holds a request slot
	unread *unread // what the answer holds until it was read; nil for strangers and forwarded requests

	family      *Family
	replaceable bool // the answer to a read may be replaced when there is no room for it
	sent        bool // the status was passed on
	filled      bool // a part of the body was passed on
	noRoom      bool // the answer was replaced

	stranger bool // without a credential that this member knows
	sentAway bool // rejected by a limit
}

// WriteHeader passes the status on, with the first byte where that may show that there is no room for the answer.
func (r *recorder) WriteHeader(status int) {
	if r.noRoom {
		return
	}
	if !r.wrote {
		r.status, r.wrote = status, true
		r.release()
	}
	if r.unread == nil || !r.replaceable {
		r.send()
	}
}

func (r *recorder) send() {
	if r.wrote && !r.sent {
		r.sent = true
		r.ResponseWriter.WriteHeader(r.status)
	}
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.noRoom {
		return 0, errNoRoom
	}
	if !r.wrote {
		r.WriteHeader(http.StatusOK)
	}
	if !r.unread.hold(len(p)) && r.replaceable && !r.sent {
		r.replace()
		return 0, errNoRoom
	}
	r.send()
	r.filled = true
	return r.ResponseWriter.Write(p)
}

// FlushError flushes what was written.
func (r *recorder) FlushError() error {
	r.send()
	return http.NewResponseController(r.ResponseWriter).Flush()
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// work takes a request slot; false when all are taken.
func (r *recorder) work() bool {
	select {
	case r.server.slots <- struct{}{}:
		r.slot = true
		r.server.inFlight.Inc()
		return true
	default:
		return false
	}
}

// rationed starts to count the body for a caller.
func (r *recorder) rationed(x *rations, caller string) {
	r.own = ration{rations: x, caller: caller}
	r.ration = &r.own
}

// release returns the slot when the answer begins: a caller that reads slowly must not hold one.
func (r *recorder) release() {
	if r.slot {
		r.slot = false
		<-r.server.slots
		r.server.inFlight.Dec()
	}
}

// known returns a stranger's place once it has presented a valid credential.
func (r *recorder) known() {
	r.place.leave()
	r.place, r.stranger = nil, false
}

// recorderOf finds the recorder below a family's wrappers.
func recorderOf(w http.ResponseWriter) *recorder {
	for {
		if r, ok := w.(*recorder); ok {
			return r
		}
		w = w.(interface{ Unwrap() http.ResponseWriter }).Unwrap()
	}
}

// finish ends a request, including one that panicked.
func (s *Server) finish(rt *Route, o origin, fam *Family, rec *recorder, r *http.Request, begin time.Time) {
	if p := recover(); p != nil {
		s.quiet.Log(slog.LevelError, "panic", "method", r.Method, "path", pathOf(r), "panic", p,
			"stack", string(debug.Stack()))
		if !rec.wrote {
			fam.Fail(rec, http.StatusInternalServerError, 0, "internal error")
		}
	}
	rec.send()
	rec.release()
	rec.ration.giveBack()
	// With HTTP/2 a small answer would be sent only after this function, and a caller that does not read it would hold it
	// without being counted.
	if r.ProtoMajor == 2 && rec.filled && (rec.place != nil || lags(r.Context())) {
		_ = http.NewResponseController(rec.ResponseWriter).Flush()
	}
	rec.unread.giveBack()
	rec.place.leave()
	if rec.status == http.StatusUnauthorized {
		if conn := connectionOf(r.Context()); conn != nil && conn.ProvenBy() != "" { // by a credential that has ended
			conn.Disproven()
		}
	}
	if rec.status >= 500 && abandoned(r) {
		rec.status = statusAbandoned
	}
	s.observe(rt, o, r, rec.status, time.Since(begin))
	s.logRequest(o, rec, r, time.Since(begin))
}

// logRequest logs a failed request. Requests rejected by a limit are only counted in the metric.
func (s *Server) logRequest(o origin, rec *recorder, r *http.Request, took time.Duration) {
	write, level := s.log.Log, slog.LevelDebug
	if rec.status >= 500 && !rec.sentAway {
		level = slog.LevelWarn
		write = func(_ context.Context, level slog.Level, text string, args ...any) { s.quiet.Log(level, text, args...) }
	}
	if s.log.Enabled(r.Context(), level) {
		write(r.Context(), level, "request", "method", r.Method, "path", pathOf(r), "status", rec.status,
			"took", took.Round(time.Microsecond), "remote", remoteOf(r, o), "forwarded", o.forwarded)
	}
}

const maxLoggedPath = 256

// pathOf returns the path of a request for the log.
func pathOf(r *http.Request) string {
	if p := r.URL.Path; len(p) > maxLoggedPath {
		return p[:maxLoggedPath] + "…"
	}
	return r.URL.Path
}
