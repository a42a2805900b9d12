package handlers

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"syscall"
	"time"

	"muster/store"
)

// family is how one of the documented APIs speaks: its envelope, its headers, its texts.
type family struct {
	name    string
	headers func(http.ResponseWriter)
	fail    func(w http.ResponseWriter, status int, code store.Code, message string)

	unauthenticated failure // no valid credential
	forbidden       failure // a credential that does not allow it
	noLeader        failure
	unknownOutcome  failure

	// What a family does in a way of its own; nil is the common way.
	wrap     func(http.ResponseWriter, *http.Request) finisher              // shapes every answer on its way to the client
	admit    func(s *Server, rt *route, q *request) error                   // lets a request in, setting q.token
	noRoute  func(w http.ResponseWriter, r *http.Request)                   // nobody serves the path
	noMethod func(w http.ResponseWriter, r *http.Request, allowed []string) // nobody serves the method

	// denied, where a family has it, replaces the two refusals above; token is nil when there is no valid credential.
	denied func(q *request, token *store.APIToken, scope string) error
}

// finisher holds an answer back until it is complete.
type finisher interface {
	http.ResponseWriter
	finish()
}

type failure struct {
	status int
	text   string
}

// httpError is an answer whose status and text the handler knows exactly.
type httpError struct {
	status int
	text   string
	later  bool // Retry-After says so
}

func (e *httpError) Error() string { return e.text }

func fail(status int, text string) error { return &httpError{status: status, text: text} }

// later is 503 for what was not done and can be in a moment.
func later(text string) error { return &httpError{http.StatusServiceUnavailable, text, true} }

// ella is the envelope of the members family and of muster's own endpoints (reference ella_members, section 1.1).
var ella = &family{
	name: "ella",
	headers: func(w http.ResponseWriter) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'")
		h.Set("Strict-Transport-Security", "max-age=63072000; includeSubDomains")
	},
	fail: func(w http.ResponseWriter, status int, _ store.Code, message string) {
		writeJSON(w, status, map[string]string{"error": message})
	},
	unauthenticated: failure{http.StatusUnauthorized, "Invalid token"},
	forbidden:       failure{http.StatusForbidden, "Forbidden"},
	noLeader:        failure{http.StatusServiceUnavailable, "no cluster leader: raft commit timeout"},
	unknownOutcome:  failure{http.StatusServiceUnavailable, "raft commit timeout"},
}

// zlayer is the envelope of the join family (reference zlayer_join, section 1.1).
var zlayer = &family{
	name:    "zlayer",
	headers: func(w http.ResponseWriter) { w.Header().Set("Cache-Control", "no-store") },
	fail: func(w http.ResponseWriter, status int, _ store.Code, message string) {
		class, ok := zlayerClasses[status]
		if !ok {
			class = zlayerClasses[http.StatusInternalServerError]
		}
		text := class.prefix + message
		if status == http.StatusTooManyRequests {
			text = "Rate limited"
		}
		writeJSON(w, status, struct {
			Error   string `json:"error"`
			Message string `json:"message"`
		}{class.code, text})
	},
	unauthenticated: failure{http.StatusUnauthorized, "Missing credentials"},
	forbidden:       failure{http.StatusForbidden, "Insufficient permissions"},
	noLeader:        failure{http.StatusServiceUnavailable, "no cluster leader"},
	unknownOutcome:  failure{http.StatusServiceUnavailable, "the outcome is not known"},
}

var zlayerClasses = map[int]struct{ code, prefix string }{
	http.StatusBadRequest:            {"bad_request", "Bad request: "},
	http.StatusUnauthorized:          {"unauthorized", "Unauthorized: "},
	http.StatusForbidden:             {"forbidden", "Forbidden: "},
	http.StatusNotFound:              {"not_found", "Not found: "},
	http.StatusMethodNotAllowed:      {"method_not_allowed", "Method not allowed: "},
	http.StatusConflict:              {"conflict", "Conflict: "},
	http.StatusRequestEntityTooLarge: {"payload_too_large", "Payload too large: "},
	http.StatusUnsupportedMediaType:  {"unsupported_media_type", "Unsupported media type: "},
	http.StatusUnprocessableEntity:   {"validation_error", "Validation error: "},
	http.StatusTooManyRequests:       {"rate_limited", ""},
	http.StatusInternalServerError:   {"internal_error", "Internal error: "},
	http.StatusServiceUnavailable:    {"service_unavailable", "Service unavailable: "},
}

// nomad answers errors as plain text (reference nomad_raft, section 1).
var nomad = &family{
	name:            "nomad",
	headers:         func(w http.ResponseWriter) { w.Header().Set("Vary", "Accept-Encoding") },
	fail:            func(w http.ResponseWriter, status int, _ store.Code, message string) { nomadFail(w, status, message) },
	noRoute:         nomadNoRoute,
	noMethod:        nomadNoMethod,
	unauthenticated: failure{http.StatusForbidden, "Permission denied"},
	forbidden:       failure{http.StatusForbidden, "Permission denied"},
	noLeader:        failure{http.StatusInternalServerError, "No cluster leader"},
	unknownOutcome:  failure{http.StatusInternalServerError, "leadership lost while committing log"},
}

// consul answers errors as plain text, too, with the policy of its access control on every answer (reference
// consul_peering, section 1.2).
var consul = &family{
	name: "consul",
	headers: func(w http.ResponseWriter) {
		w.Header().Set("Vary", "Accept-Encoding")
		w.Header().Set("X-Consul-Default-Acl-Policy", "deny")
	},
	fail:           nomad.fail,
	noLeader:       failure{http.StatusInternalServerError, "No cluster leader"},
	unknownOutcome: failure{http.StatusInternalServerError, "leadership lost while committing log"},
	denied:         deniedPeering,
}

func nomadFail(w http.ResponseWriter, status int, message string) {
	if message != "" {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	}
	w.WriteHeader(status)
	_, _ = w.Write([]byte(message))
}

// nomadNoRoute and nomadNoMethod answer as the original's router does (reference nomad_raft, sections 1 and 3).
func nomadNoRoute(w http.ResponseWriter, r *http.Request) {
	text := "there is nothing at this path"
	if strings.HasPrefix(r.URL.Path, "/v1/operator/") {
		text = "Invalid method"
	}
	nomadFail(w, http.StatusNotFound, text)
}

func nomadNoMethod(w http.ResponseWriter, r *http.Request, allowed []string) {
	w.Header()["Allow"] = allowed
	text := "Invalid method"
	if r.URL.Path == raftConfigurationPath { // unlike its siblings (section 3.1)
		text = ""
	}
	nomadFail(w, http.StatusMethodNotAllowed, text)
}

var statusOf = map[store.Code]int{
	store.Invalid:      http.StatusBadRequest,
	store.Unauthorized: http.StatusUnauthorized,
	store.Forbidden:    http.StatusForbidden,
	store.NotFound:     http.StatusNotFound,
	store.Conflict:     http.StatusConflict,
	store.Exhausted:    http.StatusInternalServerError,
	store.Full:         http.StatusConflict,
}

// render writes an error as the family does. What is not meant for callers becomes a plain 500; the caller of
// render logs it.
func (f *family) render(w http.ResponseWriter, err error) (internal bool) {
	var known *httpError
	var refusal *store.Refusal
	var own interface{ write(http.ResponseWriter) }
	send := func(x failure) {
		w.Header().Set("Retry-After", "1")
		f.fail(w, x.status, 0, x.text)
	}
	switch {
	case errors.As(err, &own):
		own.write(w)
	case errors.As(err, &known) && known.later:
		send(failure{known.status, known.text})
	case errors.As(err, &known):
		f.fail(w, known.status, 0, known.text)
	case errors.As(err, &refusal):
		f.fail(w, statusOf[refusal.Code], refusal.Code, refusal.Message)
	case errors.Is(err, syscall.ENOSPC):
		f.fail(w, http.StatusInternalServerError, 0, "there is no room left on the disk of the member that does this")
	case errors.Is(err, store.ErrOldSchema):
		send(failure{http.StatusServiceUnavailable, store.ErrOldSchema.Error()})
	case errors.Is(err, store.ErrNoLeader), errors.Is(err, store.ErrNotLeader), errors.Is(err, store.ErrClosed):
		send(f.noLeader)
	default:
		f.fail(w, http.StatusInternalServerError, 0, "internal error")
		return true
	}
	return false
}

// writeJSON writes v on one line without a newline behind it, as the families do.
func writeJSON(w http.ResponseWriter, status int, v any) {
	data := mustJSON(v)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(data)
}

// mustJSON marshals what always can be.
func mustJSON(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

func timeOf(unix int64) string { return time.Unix(unix, 0).UTC().Format(timeFormat) }
