// Package zlayer serves the join of a new member in ZLayer's form (reference zlayer_join). It is the only call for
// machines that do not belong to the cluster yet.
package zlayer

import (
	"context"
	"net/http"
	"time"

	"muster/handlers"
	"muster/store"
)

// Config holds the dependencies of the family.
type Config struct {
	Admissions Admissions
	Keys       Keys
	Cluster    Cluster
	ClusterID  string
	Now        func() time.Time
}

// Cluster is the part of the cluster's loops that the family needs.
type Cluster interface {
	Alive(nodeID uint64) string // "alive", "down", "left" or "unknown", from the leader's probes
	Wake()                      // tells the leader's loops that membership has changed
}

// Admissions admits machines: store.Admissions.
type Admissions interface {
	Admit(ctx context.Context, actor store.Actor, in store.Applicant, others int) (store.Admission, error)
}

// Keys returns the keys that verify join tokens: store.Keys.
type Keys interface {
	List(ctx context.Context, c store.Consistency, purpose string) ([]store.Key, error)
}

type service struct{ Config }

// New returns the family, with its envelope (reference zlayer_join, section 1.1).
func New(cfg Config) *handlers.Family {
	s := &service{cfg}
	return &handlers.Family{
		Name:   "zlayer",
		Paths:  []string{"/api/v1/cluster/join"},
		Routes: s.routes(),
		Repeat: "repeat the request with the same token and key",

		Headers: func(w http.ResponseWriter) { w.Header().Set("Cache-Control", "no-store") },
		Fail: func(w http.ResponseWriter, status int, _ store.Code, message string) {
			class, ok := classes[status]
			if !ok {
				class = classes[http.StatusInternalServerError]
			}
			text := class.prefix + message
			if status == http.StatusTooManyRequests {
				text = "Rate limited"
			}
			handlers.WriteJSON(w, status, struct {
				Error   string `json:"error"`
				Message string `json:"message"`
			}{class.code, text})
		},
		Unauthenticated: handlers.Failure{Status: http.StatusUnauthorized, Text: "Missing credentials"},
		Forbidden:       handlers.Failure{Status: http.StatusForbidden, Text: "Insufficient permissions"},
		NoLeader:        handlers.Failure{Status: http.StatusServiceUnavailable, Text: "no cluster leader"},
		UnknownOutcome:  handlers.Failure{Status: http.StatusServiceUnavailable, Text: "the outcome is not known"},
	}
}

var classes = map[int]struct{ code, prefix string }{
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
