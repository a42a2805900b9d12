package handlers

import (
	"net/http"
	"strings"
	"time"

	"muster/store"
)

// route is one line of the table of everything that muster answers.
type route struct {
	method  string
	path    string
	family  *family
	scope   string // what the API token must allow; "" is open to everybody
	at      place
	whole   bool                               // body and answer are streams of any length
	plain   bool                               // served without TLS too, where that is switched on
	keyed   bool                               // makes something new each time, although it is no POST
	enrolls bool                               // what an enrollment token is for
	within  time.Duration                      // how long an answer may take; 0 stands for answerWithin
	stream  bool                               // a stream of events; serve is not used
	check   func(*http.Request) error          // arguments that the family checks before it asks who is calling
	vet     func(*request) error               // the same for those in the body
	here    func(*Server, *http.Request) error // and those that are checked against this member's own replica
	blocks  bool                               // knows blocking queries (index, wait)
	serve   func(*Server, *request) error
}

// place says which member answers.
type place int

const (
	atLeader  place = iota // the leader, wherever the request arrives
	here                   // the member that was asked
	hereStale              // the leader, or the member that was asked when the query says ?stale
)

// slow is how long a request may take that waits for machines, not for the database.
const slow = 70 * time.Second

// long is how long a snapshot or its restoration may take; the listener's own limit is a little longer.
const long = 9 * time.Minute

const raftConfigurationPath = "/v1/operator/raft/configuration"

// routes are served with a slash behind them, too, and those of GET with HEAD (heads).
var routes = []route{
	{method: "GET", path: "/api/v1/openapi.yaml", family: ella, at: here, plain: true, serve: (*Server).openapi},
	{method: "GET", path: "/api/v1/status", family: ella, at: here, plain: true, serve: (*Server).status},
	{method: "GET", path: "/api/v1/cluster/members", family: ella, scope: store.ScopeClusterRead, at: hereStale, check: checkStaleOnly, serve: (*Server).listMembers},
	{method: "GET", path: "/api/v1/cluster/members/{id}", family: ella, scope: store.ScopeClusterRead, at: hereStale, check: checkStaleOnly, serve: (*Server).getMember},
	{method: "DELETE", path: "/api/v1/cluster/members/{id}", family: ella, scope: store.ScopeClusterManage, within: slow, serve: (*Server).removeMember},
	{method: "POST", path: "/api/v1/cluster/members/{id}/promote", family: ella, scope: store.ScopeClusterManage, within: slow, serve: (*Server).promoteMember},
	{method: "POST", path: "/api/v1/cluster/members/{id}/drain", family: ella, scope: store.ScopeClusterManage, within: slow, serve: (*Server).drainMember},
	{method: "POST", path: "/api/v1/cluster/members/{id}/resume", family: ella, scope: store.ScopeClusterManage, within: slow, serve: (*Server).resumeMember},
	{method: "GET", path: "/api/v1/cluster/autopilot", family: ella, scope: store.ScopeClusterRead, at: hereStale, check: checkStaleOnly, serve: (*Server).autopilot},
	{method: "GET", path: "/api/v1/cluster/autopilot/config", family: ella, scope: store.ScopeClusterRead, at: hereStale, check: checkStaleOnly, serve: (*Server).getAutopilotConfig},
	{method: "PUT", path: "/api/v1/cluster/autopilot/config", family: ella, scope: store.ScopeClusterManage, serve: (*Server).putAutopilotConfig},
	{method: "GET", path: "/api/v1/cluster/raft/diff", family: ella, scope: store.ScopeClusterRead, serve: (*Server).raftDiff},
	{method: "GET", path: "/api/v1/cluster/schema", family: ella, scope: store.ScopeClusterRead, serve: (*Server).getSchema},
	{method: "POST", path: "/api/v1/cluster/schema/migrate", family: ella, scope: store.ScopeClusterManage, within: slow, serve: (*Server).migrateSchema},
	{method: "GET", path: "/api/v1/cluster/leases", family: ella, scope: store.ScopeClusterRead, at: hereStale, check: checkStaleOnly, serve: (*Server).listLeases},
	{method: "PUT", path: "/api/v1/cluster/leases/{id}", family: ella, scope: store.ScopeClusterManage, serve: (*Server).putLease},
	{method: "DELETE", path: "/api/v1/cluster/leases/{id}", family: ella, scope: store.ScopeClusterManage, serve: (*Server).deleteLease},

	{method: "POST", path: "/api/v1/cluster/join", family: zlayer, plain: true, serve: (*Server).join},
	{method: "POST", path: "/api/v1/cluster/pki/join-tokens", family: ella, scope: store.ScopeClusterManage, serve: (*Server).mintJoinToken},
	{method: "POST", path: "/api/v1/cluster/join-tokens", family: ella, scope: store.ScopeClusterManage, serve: (*Server).createJoinToken},
	{method: "GET", path: "/api/v1/cluster/join-tokens", family: ella, scope: store.ScopeClusterRead, at: hereStale, check: checkStaleOnly, serve: (*Server).listJoinTokens},
	{method: "DELETE", path: "/api/v1/cluster/join-tokens/{id}", family: ella, scope: store.ScopeClusterManage, serve: (*Server).revokeJoinToken},

	{method: "POST", path: "/api/v1/cluster/join-keys/rotate", family: ella, scope: store.ScopeKeysManage, serve: (*Server).rotateJoinKeys},
	{method: "POST", path: "/api/v1/cluster/node-token", family: ella, scope: store.ScopeClusterRead, serve: (*Server).renewNodeToken},
	{method: "GET", path: "/.well-known/jwks.json", family: ella, serve: (*Server).jwks},

	{method: "GET", path: "/api/v1/cluster/keys", family: ella, scope: store.ScopeKeysManage, at: hereStale, check: checkStaleOnly, serve: (*Server).listGenerations},
	{method: "POST", path: "/api/v1/cluster/keys/rotate", family: ella, scope: store.ScopeKeysManage, serve: (*Server).rotateDEK},
	{method: "GET", path: "/api/v1/cluster/ca", family: ella, scope: store.ScopeClusterRead, at: hereStale, check: checkStaleOnly, serve: (*Server).showCA},
	{method: "POST", path: "/api/v1/cluster/ca/rotate", family: ella, scope: store.ScopeManagement, serve: (*Server).rotateCA},
	{method: "GET", path: "/api/v1/cluster/certificates", family: ella, scope: store.ScopeClusterRead, at: hereStale, check: checkStaleOnly, serve: (*Server).listCertificates},

	{method: "GET", path: "/api/v1/cluster/secrets", family: ella, scope: store.ScopeKeysManage, at: hereStale, check: checkStaleOnly, serve: (*Server).listSecrets},
	{method: "PUT", path: "/api/v1/cluster/secrets/{name}", family: ella, scope: store.ScopeKeysManage, serve: (*Server).putSecret},
	{method: "GET", path: "/api/v1/cluster/secrets/{name}", family: ella, scope: store.ScopeKeysManage, serve: (*Server).getSecret},
	{method: "DELETE", path: "/api/v1/cluster/secrets/{name}", family: ella, scope: store.ScopeKeysManage, serve: (*Server).deleteSecret},

	{method: "POST", path: "/api/v1/api-tokens", family: ella, scope: store.ScopeManagement, serve: (*Server).createAPIToken},
	{method: "GET", path: "/api/v1/api-tokens", family: ella, scope: store.ScopeManagement, at: hereStale, check: checkStaleOnly, serve: (*Server).listAPITokens},
	{method: "DELETE", path: "/api/v1/api-tokens/{id}", family: ella, scope: store.ScopeManagement, serve: (*Server).deleteAPIToken},

	{method: "GET", path: "/api/v1/cluster/settings", family: ella, scope: store.ScopeClusterRead, at: hereStale, check: checkStaleOnly, serve: (*Server).getSettings},
	{method: "PUT", path: "/api/v1/cluster/settings", family: ella, scope: store.ScopeClusterManage, serve: (*Server).putSettings},

	{method: "POST", path: "/api/v1/cluster/enrollment-tokens", family: ella, scope: store.ScopeEnroll, serve: (*Server).createEnrollToken},
	{method: "GET", path: "/api/v1/cluster/enrollment-tokens", family: ella, scope: store.ScopeEnroll, at: hereStale, check: checkStaleOnly, serve: (*Server).listEnrollTokens},
	{method: "DELETE", path: "/api/v1/cluster/enrollment-tokens/{id}", family: ella, scope: store.ScopeEnroll, serve: (*Server).revokeEnrollToken},
	{method: "GET", path: "/api/v1/cluster/enrollments", family: ella, scope: store.ScopeEnroll, at: hereStale, check: checkStaleOnly, serve: (*Server).listEnrollments},
	{method: "DELETE", path: "/api/v1/cluster/enrollments/{id}", family: ella, scope: store.ScopeEnroll, serve: (*Server).revokeEnrollment},
	{method: "GET", path: "/.well-known/http.crl", family: ella, serve: (*Server).httpCRL},
	{method: "GET", path: "/.well-known/transport.crl", family: ella, serve: (*Server).transportCRL},

	{method: "GET", path: "/_security/enroll/node", family: elastic, scope: store.ScopeEnroll, check: checkElastic, keyed: true, enrolls: true, within: slow, serve: (*Server).enrollNode},
	{method: "GET", path: "/_security/enroll/kibana", family: elastic, scope: store.ScopeEnrollKibana, check: checkElastic, keyed: true, enrolls: true, serve: (*Server).enrollKibana},
	{method: "POST", path: "/_security/api_key", family: elastic, scope: store.ScopeEnroll, check: checkElastic, serve: (*Server).createAPIKey},
	{method: "PUT", path: "/_security/api_key", family: elastic, scope: store.ScopeEnroll, check: checkElastic, keyed: true, serve: (*Server).createAPIKey},
	{method: "GET", path: "/_security/api_key", family: elastic, scope: store.ScopeEnroll, check: checkElastic, serve: (*Server).getAPIKeys},
	{method: "DELETE", path: "/_security/api_key", family: elastic, scope: store.ScopeEnroll, check: checkElastic, serve: (*Server).invalidateAPIKeys},
	{method: "GET", path: "/_security/_authenticate", family: elastic, check: checkElastic, serve: (*Server).elasticSelf},
	{method: "GET", path: "/_cluster/health", family: elastic, scope: store.ScopeClusterRead, check: checkElastic, serve: (*Server).elasticHealth},
	{method: "GET", path: "/_nodes", family: elastic, scope: store.ScopeClusterRead, check: checkElastic, serve: (*Server).elasticNodes},
	{method: "GET", path: "/_nodes/http", family: elastic, scope: store.ScopeClusterRead, check: checkElastic, serve: (*Server).elasticNodes},
	{method: "GET", path: "/_nodes/_local", family: elastic, scope: store.ScopeClusterRead, check: checkElastic, serve: (*Server).elasticLocalNode},
	{method: "GET", path: "/_nodes/_local/http", family: elastic, scope: store.ScopeClusterRead, check: checkElastic, serve: (*Server).elasticLocalNode},
	{method: "GET", path: "/", family: elastic, check: checkElastic, serve: (*Server).elasticInfo},
	{method: "POST", path: "/v1/peering/token", family: consul, scope: store.ScopePeeringWrite, vet: vetTokenRequest, serve: (*Server).generatePeeringToken},
	{method: "POST", path: "/v1/peering/establish", family: consul, scope: store.ScopePeeringWrite, within: establishWithin, vet: vetEstablishRequest, serve: (*Server).establishPeering},
	{method: "GET", path: "/v1/peering/{name:.*}", family: consul, scope: store.ScopePeeringRead, at: hereStale, blocks: true, check: checkPeeringRead, serve: (*Server).readPeering},
	{method: "DELETE", path: "/v1/peering/{name:.*}", family: consul, scope: store.ScopePeeringWrite, check: checkPeeringName, serve: (*Server).deletePeering},
	{method: "GET", path: "/v1/peerings", family: consul, scope: store.ScopePeeringRead, at: hereStale, blocks: true, check: checkPeeringList, serve: (*Server).listPeerings},
	{method: "GET", path: "/api/v1/peerings/{name}/members", family: ella, scope: store.ScopePeeringRead, at: hereStale, check: checkStaleOnly, serve: (*Server).listPeerMembers},

	{method: "POST", path: "/api/v1/sql", family: ella, scope: store.ScopeManagement, at: here, serve: (*Server).sql},

	{method: "GET", path: "/api/v1/events", family: ella, scope: store.ScopeClusterRead, at: here, stream: true},
	{method: "GET", path: "/api/v1/audit", family: ella, scope: store.ScopeClusterRead, at: hereStale, check: checkStale, serve: (*Server).audit},
	{method: "GET", path: "/metrics", family: ella, at: here, plain: true, serve: (*Server).serveMetrics},

	{method: "DELETE", path: "/v1/operator/raft/peer", family: nomad, scope: store.ScopeManagement, within: slow, check: checkRemovePeer, serve: (*Server).removePeer},
	{method: "PUT", path: "/v1/operator/raft/transfer-leadership", family: nomad, scope: store.ScopeManagement, check: checkTransfer, here: (*Server).checkTransferHost, serve: (*Server).transferLeadership},
	{method: "POST", path: "/v1/operator/raft/transfer-leadership", family: nomad, scope: store.ScopeManagement, check: checkTransfer, here: (*Server).checkTransferHost, serve: (*Server).transferLeadership},
	{method: "GET", path: raftConfigurationPath, family: nomad, scope: store.ScopeManagement, at: hereStale, check: checkStale, serve: (*Server).raftConfiguration},
	{method: "GET", path: "/v1/operator/autopilot/configuration", family: nomad, scope: store.ScopeClusterRead, at: hereStale, check: checkStale, serve: (*Server).getNomadAutopilot},
	{method: "PUT", path: "/v1/operator/autopilot/configuration", family: nomad, scope: store.ScopeClusterManage, check: checkRegion, serve: (*Server).putNomadAutopilot},
	{method: "GET", path: "/v1/operator/autopilot/health", family: nomad, scope: store.ScopeClusterRead, check: checkStale, serve: (*Server).autopilotHealth},
	{method: "GET", path: "/v1/operator/snapshot", family: nomad, scope: store.ScopeManagement, at: hereStale, whole: true, within: long, check: checkStale, serve: (*Server).saveSnapshot},
	{method: "PUT", path: "/v1/operator/snapshot", family: nomad, scope: store.ScopeManagement, whole: true, within: long, check: checkRegion, serve: (*Server).restoreSnapshot},
	{method: "POST", path: "/v1/operator/snapshot", family: nomad, scope: store.ScopeManagement, whole: true, within: long, check: checkRegion, serve: (*Server).restoreSnapshot},
	{method: "GET", path: "/v1/status/leader", family: nomad, at: hereStale, check: checkStale, serve: (*Server).statusLeader},
	{method: "GET", path: "/v1/status/peers", family: nomad, at: hereStale, check: checkStale, serve: (*Server).statusPeers},
	{method: "GET", path: "/v1/regions", family: nomad, at: here, check: checkStale, serve: (*Server).regions},
	{method: "GET", path: "/v1/agent/members", family: nomad, scope: store.ScopeClusterRead, at: here, check: checkStale, serve: (*Server).agentMembers},
	{method: "GET", path: "/v1/agent/self", family: nomad, scope: store.ScopeClusterRead, at: here, check: checkStale, serve: (*Server).agentSelf},
	{method: "GET", path: "/v1/agent/health", family: nomad, at: here, check: checkStale, serve: (*Server).agentHealth},

	{method: "GET", path: "/ui", family: page, at: here, serve: (*Server).servePage},
	{method: "GET", path: "/ui/", family: page, at: here, serve: (*Server).servePage},
	{method: "GET", path: "/ui/{file}", family: page, at: here, serve: (*Server).servePage},
}

// familyOf finds the family that a path belongs to by its prefix, for errors of paths that nobody serves.
func familyOf(path string) *family {
	switch {
	case strings.HasPrefix(path, peeringPrefix):
		return consul
	case path == "/ui", strings.HasPrefix(path, uiPrefix):
		return page
	case strings.HasPrefix(path, "/v1/"):
		return nomad
	case path == "/", strings.HasPrefix(path, "/_"):
		return elastic
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
