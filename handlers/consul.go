package handlers

import (
	"net/http"
)

// Headers of answered reads (reference consul_peering, section 1.1).
const (
	headerKnownLeader = "X-Consul-Knownleader"
	headerLastContact = "X-Consul-Lastcontact"
)

// consulFamily answers errors as plain text, too, with the policy of its access control on every answer (reference
// consul_peering, section 1.2).
func (s *Server) consulFamily() *Family {
	routes := s.consulRoutes()
	paths := peeringPaths{routes}
	return &Family{
		Name:   "consul",
		Paths:  []string{peeringPrefix},
		Routes: routes,

		Headers: func(w http.ResponseWriter) {
			w.Header().Set("Vary", "Accept-Encoding")
			w.Header().Set("X-Consul-Default-Acl-Policy", "deny")
		},
		Fail:           PlainFail,
		NoLeader:       Failure{http.StatusInternalServerError, "No cluster leader"},
		UnknownOutcome: Failure{http.StatusInternalServerError, "leadership lost while committing log"},
		Age:            &AgeHeaders{KnownLeader: headerKnownLeader, LastContact: headerLastContact},
		Denied:         deniedPeering,
		Credential:     peeringCredential,
		Aside:          &Aside{Method: "other", Path: "other", Takes: paths.takes, Serve: paths.serve},
	}
}
