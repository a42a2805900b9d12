package handlers

import (
	"net/http"
	"strings"

	"muster/store"
)

const raftConfigurationPath = "/v1/operator/raft/configuration"

const nomadNoLeader = "No cluster leader"

// nomadFamily answers errors as plain text (reference nomad_raft, section 1).
func (s *Server) nomadFamily() *Family {
	return &Family{
		Name:   "nomad",
		Paths:  []string{"/v1/"},
		Routes: s.nomadRoutes(),

		Headers:         func(w http.ResponseWriter) { w.Header().Set("Vary", "Accept-Encoding") },
		Fail:            PlainFail,
		NoRoute:         nomadNoRoute,
		NoMethod:        nomadNoMethod,
		Unauthenticated: Failure{http.StatusForbidden, "Permission denied"},
		Forbidden:       Failure{http.StatusForbidden, "Permission denied"},
		NoLeader:        Failure{http.StatusInternalServerError, nomadNoLeader},
		UnknownOutcome:  Failure{http.StatusInternalServerError, "leadership lost while committing log"},
	}
}

// nomadNoRoute and nomadNoMethod answer as the original's router does (reference nomad_raft, sections 1 and 3).
func nomadNoRoute(w http.ResponseWriter, r *http.Request) {
	text := "there is nothing at this path"
	if strings.HasPrefix(r.URL.Path, "/v1/operator/") {
		text = "Invalid method"
	}
	PlainFail(w, http.StatusNotFound, store.NotFound, text)
}

func nomadNoMethod(w http.ResponseWriter, r *http.Request, allowed []string) {
	w.Header()["Allow"] = allowed
	text := "Invalid method"
	if r.URL.Path == raftConfigurationPath { // unlike its siblings (section 3.1)
		text = ""
	}
	PlainFail(w, http.StatusMethodNotAllowed, store.Invalid, text)
}
