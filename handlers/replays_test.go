package handlers_test

import (
	"cmp"
	"encoding/json"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"muster/certs"
	"muster/handlers"
	"muster/handlers/internal/sole"
	"muster/store"
)

// change is a request that changes something when it is sent for the first time.
type change struct {
	path, body string
	scope      string // "": the route's
	// makes what the request is about; what it returns stands for % in the path and the body
	prepare func(s *sole.Member) string
}

// unrepeated are routes whose repetitions other tests send, with what they take, or that change nothing that is stored.
var unrepeated = map[string]string{
	"POST /api/v1/cluster/join":                  "the token in its body is its key",
	"POST /api/v1/login":                         "takes a provider",
	"POST /api/v1/login/device":                  "takes a provider",
	"DELETE /api/v1/login":                       "takes a session",
	"POST /api/v1/cluster/node-token":            "takes a node's identity",
	"POST /v1/peering/establish":                 "takes another cluster",
	"POST /api/v1/backups":                       "takes a target",
	"POST /api/v1/backups/{id}/verify":           "takes a target",
	"DELETE /v1/operator/raft/peer":              "takes another member",
	"PUT /v1/operator/raft/transfer-leadership":  "takes another member",
	"POST /v1/operator/raft/transfer-leadership": "takes another member",
	"POST /api/v1/cluster/members/{id}/promote":  "takes another member",
	"DELETE /api/v1/cluster/members/{id}":        "takes another member",
	"PUT /v1/operator/snapshot":                  "its body is not held in memory",
	"POST /v1/operator/snapshot":                 "its body is not held in memory",
	"POST /api/v1/cluster/schema/migrate":        "takes an older schema",
	"POST /api/v1/sql":                           "reads",
}

func made(s *sole.Member, w *httptest.ResponseRecorder) string {
	s.T.Helper()
	var out struct {
		ID     string
		Result struct{ ID string }
	}
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || w.Code/100 != 2 {
		s.T.Fatalf("%d %s", w.Code, w.Body)
	}
	return out.ID + out.Result.ID
}

// changes has one request for each route that changes something.
var changes = map[string]change{
	"POST /api/v1/api-tokens":                  {body: `{"name":"made","scopes":["enroll"]}`},
	"POST /api/v1/cluster/join-tokens":         {body: `{}`},
	"POST /api/v1/cluster/pki/join-tokens":     {body: `{"nodeID":77}`},
	"POST /api/v1/cluster/enrollment-tokens":   {body: `{"name":"made"}`},
	"POST /_security/api_key":                  {body: `{"name":"made","role_descriptors":{"r":{"cluster":[]}}}`},
	"PUT /_security/api_key":                   {body: `{"name":"made","role_descriptors":{"r":{"cluster":[]}}}`},
	"POST /v1/peering/token":                   {body: `{"PeerName":"made"}`},
	"POST /api/v1/workloads":                   {body: `{"path":"/made","user":"daemon"}`},
	"POST /api/v1/cluster/ca/rotate":           {body: `{"kind":"http"}`},
	"POST /api/v1/cluster/keys/rotate":         {body: `{}`},
	"POST /api/v1/cluster/join-keys/rotate":    {body: `{}`},
	"PUT /api/v1/cluster/settings":             {body: `{"limits.leases":9}`},
	"PUT /api/v1/cluster/autopilot/config":     {body: `{"maxVoters":3}`},
	"PUT /v1/operator/autopilot/configuration": {body: `{"MaxTrailingLogs":77}`},
	"PUT /api/v1/cluster/secrets/{name}":       {path: "/api/v1/cluster/secrets/made", body: `{"value":"x"}`},
	"PUT /api/v1/cluster/leases/{id}": {path: "/api/v1/cluster/leases/made",
		body: `{"nodeId":1,"ttlSeconds":60}`},
	"POST /api/v1/cluster/members/{id}/drain":  {path: "/api/v1/cluster/members/1/drain", body: `{"deadlineSeconds":60}`},
	"POST /api/v1/cluster/members/{id}/resume": {path: "/api/v1/cluster/members/1/resume", body: `{}`},
	"DELETE /api/v1/api-tokens/{id}": {path: "/api/v1/api-tokens/%", prepare: func(s *sole.Member) string {
		return made(s, s.Call("POST", "/api/v1/api-tokens", s.Admin, `{"name":"gone","scopes":["enroll"]}`))
	}},
	"DELETE /api/v1/cluster/join-tokens/{id}": {path: "/api/v1/cluster/join-tokens/%",
		prepare: func(s *sole.Member) string {
			return made(s, s.Call("POST", "/api/v1/cluster/join-tokens", s.Admin, `{}`))
		}},
	"DELETE /api/v1/cluster/enrollment-tokens/{id}": {path: "/api/v1/cluster/enrollment-tokens/%",
		prepare: func(s *sole.Member) string {
			return made(s, s.Call("POST", "/api/v1/cluster/enrollment-tokens", s.Admin, `{"name":"gone"}`))
		}},
	"DELETE /api/v1/cluster/enrollments/{id}": {path: "/api/v1/cluster/enrollments/%",
		prepare: func(s *sole.Member) string {
			if w := s.Call("GET", "/_security/enroll/node", "", "", "Authorization", s.EnrollKey(`{}`)); w.Code != 200 {
				s.T.Fatalf("%d %s", w.Code, w.Body)
			}
			return s.Query("SELECT id FROM enrollments ORDER BY created_rev DESC LIMIT 1")
		}},
	"DELETE /_security/api_key": {body: `{"ids":["%"]}`, prepare: func(s *sole.Member) string {
		return made(s, s.Call("POST", "/_security/api_key", s.Admin, `{"name":"gone"}`, "Content-Type", "application/json"))
	}, scope: store.ScopeManagement},
	"DELETE /api/v1/cluster/secrets/{name}": {path: "/api/v1/cluster/secrets/gone", prepare: func(s *sole.Member) string {
		s.Call("PUT", "/api/v1/cluster/secrets/gone", s.Admin, `{"value":"x"}`)
		return ""
	}},
	"DELETE /api/v1/cluster/leases/{id}": {path: "/api/v1/cluster/leases/gone", prepare: func(s *sole.Member) string {
		s.Call("PUT", "/api/v1/cluster/leases/gone", s.Admin, `{"nodeId":1,"ttlSeconds":60}`)
		return ""
	}},
	"DELETE /v1/peering/{name:.*}": {path: "/v1/peering/gone", prepare: func(s *sole.Member) string {
		s.Call("POST", "/v1/peering/token", s.Admin, `{"PeerName":"gone"}`)
		return ""
	}},
	"DELETE /api/v1/workloads/{id}": {path: "/api/v1/workloads/%", prepare: func(s *sole.Member) string {
		return made(s, s.Call("POST", "/api/v1/workloads", s.Admin, `{"path":"/gone","user":"daemon"}`))
	}},
	"GET /_security/enroll/node":   {},
	"GET /_security/enroll/kibana": {},
}

// A stored answer is given again to the very request that it was made for, while its caller still may send it: on every
// route that changes something.
func TestReplaysOfEveryRoute(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	s.Option("enrollment.enabled", "true")
	for _, rt := range s.Routes() {
		name := rt.Method + " " + rt.Path
		if !rt.Changes() && !rt.Keyed {
			continue
		}
		c, there := changes[name]
		if why := unrepeated[name]; there == (why != "") {
			t.Errorf("%s needs a request in this test, or a reason (%s)", name, why)
		}
		if there {
			t.Run(strings.ReplaceAll(name, "/", "_"), func(t *testing.T) {
				s.T = t
				c.repeat(s, rt)
			})
		}
	}
	s.T = t
}

// aim makes what the request is about, and returns the request's path and body.
func (c change) aim(s *sole.Member, rt *handlers.Route) (path, body string) {
	about := ""
	if c.prepare != nil {
		about = c.prepare(s)
	}
	return cmp.Or(strings.ReplaceAll(c.path, "%", about), rt.Path), strings.ReplaceAll(c.body, "%", about)
}

func (c change) repeat(s *sole.Member, rt *handlers.Route) {
	t := s.T
	secret := s.Token(cmp.Or(c.scope, rt.Scope))
	tokens, err := s.Store.APITokens.List(t.Context(), store.AsLeader)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(tokens, func(x store.APIToken) bool { return x.SecretHash == certs.HashSecret(secret) })
	path, body := c.aim(s, rt)
	send := func(path, body string) *httptest.ResponseRecorder {
		return s.Certain(rt, func() *httptest.ResponseRecorder {
			return s.Call(rt.Method, path, secret, body, "Content-Type", "application/json", "Idempotency-Key", "the key")
		})
	}
	before := s.Store.Revision()
	first := send(path, body)
	if first.Code/100 != 2 || s.Store.Revision() == before {
		t.Fatalf("%d %s, or nothing has changed", first.Code, first.Body)
	}
	if w := send(path, body); w.Code != first.Code || w.Body.String() != first.Body.String() {
		t.Errorf("again: %d %s\nfirst: %d %s", w.Code, w.Body, first.Code, first.Body)
	}
	refused := func(what, path, body string) {
		t.Helper()
		before := s.Store.Revision()
		if w := send(path, body); w.Code/100 != 4 || s.Store.Revision() != before {
			t.Errorf("%s: %d %s", what, w.Code, w.Body)
		}
	}
	refused("another query", path+"?pretty=true", body)
	if body != "" {
		refused("another body", path, strings.TrimSuffix(body, "}")+" }")
	}
	if c.path != "" && !strings.Contains(rt.Path, "members") {
		refused("another path", path+"2", body)
	}
	if w := s.Call("DELETE", "/api/v1/api-tokens/"+tokens[i].ID, s.Admin, ""); w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if w := send(path, body); w.Code != 401 && w.Code != 403 {
		t.Errorf("after the token was revoked: %d %s", w.Code, w.Body)
	}
}
