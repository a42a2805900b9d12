package handlers

import (
	"net/http"

	"muster/store"
)

// TimeFormat is the format of times in answers, in UTC.
const TimeFormat = "2006-01-02T15:04:05Z"

// Enveloped returns a family with the envelope of the members family and muster's own endpoints (reference
// ella_members, section 1.1).
func Enveloped(name string) *Family {
	return &Family{
		Name: name,
		Headers: func(w http.ResponseWriter) {
			h := w.Header()
			h.Set("X-Frame-Options", "DENY")
			h.Set("Cache-Control", "no-store")
			h.Set("Content-Security-Policy", "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'")
			h.Set("Strict-Transport-Security", "max-age=63072000; includeSubDomains")
		},
		Fail: func(w http.ResponseWriter, status int, _ store.Code, message string) {
			WriteJSON(w, status, map[string]string{"error": message})
		},
		Unauthenticated: Failure{http.StatusUnauthorized, "Invalid token"},
		Forbidden:       Failure{http.StatusForbidden, "Forbidden"},
		NoLeader:        Failure{http.StatusServiceUnavailable, "no cluster leader: raft commit timeout"},
		UnknownOutcome:  Failure{http.StatusServiceUnavailable, "raft commit timeout"},
	}
}

// Result answers with the envelope of the members family.
func (q *Request) Result(status int, v any) error {
	WriteJSON(q.W, status, struct {
		Result any `json:"result"`
	}{v})
	return nil
}

type Message struct {
	Message string `json:"message"`
}
