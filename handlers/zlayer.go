package handlers

import (
	"net/http"

	"muster/store"
)

// zlayerFamily has the envelope of the join family (reference zlayer_join, section 1.1).
func (s *Server) zlayerFamily() *Family {
	return &Family{
		Name:   "zlayer",
		Paths:  []string{"/api/v1/cluster/join"},
		Routes: s.zlayerRoutes(),
		Repeat: "repeat the request with the same token and key",

		Headers: func(w http.ResponseWriter) { w.Header().Set("Cache-Control", "no-store") },
		Fail: func(w http.ResponseWriter, status int, _ store.Code, message string) {
			class, ok := zlayerClasses[status]
			if !ok {
				class = zlayerClasses[http.StatusInternalServerError]
			}
			text := class.prefix + message
			if status == http.StatusTooManyRequests {
				text = "Rate limited"
			}
			WriteJSON(w, status, struct {
				Error   string `json:"error"`
				Message string `json:"message"`
			}{class.code, text})
		},
		Unauthenticated: Failure{http.StatusUnauthorized, "Missing credentials"},
		Forbidden:       Failure{http.StatusForbidden, "Insufficient permissions"},
		NoLeader:        Failure{http.StatusServiceUnavailable, "no cluster leader"},
		UnknownOutcome:  Failure{http.StatusServiceUnavailable, "the outcome is not known"},
	}
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
