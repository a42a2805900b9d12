package handlers

import (
	"net/http"
	"strings"

	"github.com/musterhq/muster/store"
)

// route is one line of the table of everything that muster answers.
type route struct {
	method string
	path   string
	family *family
	scope  string // what the API token must allow; "" is open to everybody
	at     place
	plain  bool                      // served without TLS too, where that is switched on
	check  func(*http.Request) error // arguments that the family checks before it asks who is calling
	serve  func(*Server, *request) error
}

// place says which member answers.
type place int

const (
	atLeader  place = iota // the leader, wherever the request arrives
	here                   // the member that was asked
	hereStale              // the leader, or the member that was asked when the query says ?stale
)

var routes = []route{
	{"GET", "/api/v1/status", ella, "", here, true, nil, (*Server).status},
	{"GET", "/api/v1/cluster/members", ella, store.ScopeClusterRead, atLeader, false, nil, (*Server).listMembers},
	{"GET", "/api/v1/cluster/autopilot", ella, store.ScopeClusterRead, atLeader, false, nil, (*Server).autopilot},

	{"POST", "/api/v1/cluster/join", zlayer, "", atLeader, true, nil, (*Server).join},
	{"POST", "/api/v1/cluster/pki/join-tokens", ella, store.ScopeClusterManage, atLeader, false, nil, (*Server).mintJoinToken},
	{"POST", "/api/v1/cluster/join-tokens", ella, store.ScopeClusterManage, atLeader, false, nil, (*Server).createJoinToken},
	{"GET", "/api/v1/cluster/join-tokens", ella, store.ScopeClusterRead, atLeader, false, nil, (*Server).listJoinTokens},
	{"DELETE", "/api/v1/cluster/join-tokens/{id}", ella, store.ScopeClusterManage, atLeader, false, nil, (*Server).revokeJoinToken},

	{"POST", "/api/v1/api-tokens", ella, store.ScopeManagement, atLeader, false, nil, (*Server).createAPIToken},
	{"GET", "/api/v1/api-tokens", ella, store.ScopeManagement, atLeader, false, nil, (*Server).listAPITokens},
	{"DELETE", "/api/v1/api-tokens/{id}", ella, store.ScopeManagement, atLeader, false, nil, (*Server).deleteAPIToken},

	{"POST", "/api/v1/sql", ella, store.ScopeManagement, here, false, nil, (*Server).sql},

	{"GET", "/v1/operator/raft/configuration", nomad, store.ScopeManagement, hereStale, false, checkStale, (*Server).raftConfiguration},
}

// familyOf finds the family that a path belongs to by its prefix, for errors of paths that nobody serves.
func familyOf(path string) *family {
	switch {
	case strings.HasPrefix(path, "/v1/"):
		return nomad
	case strings.HasPrefix(path, "/api/v1/cluster/join") && !strings.HasPrefix(path, "/api/v1/cluster/join-"):
		return zlayer
	default:
		return ella
	}
}

// sameShape tells whether a path fits a route's pattern, in which {x} stands for one segment.
func sameShape(pattern, path string) bool {
	p, q := strings.Split(pattern, "/"), strings.Split(path, "/")
	if len(p) != len(q) {
		return false
	}
	for i := range p {
		if p[i] != q[i] && !strings.HasPrefix(p[i], "{") {
			return false
		}
	}
	return true
}
