package handlers_test

import (
	"strings"
	"testing"

	"muster/handlers/internal/sole"
	"muster/store"
)

// TestSensitiveRoutes: what changes something is, and so is what reveals more than the state of the cluster.
func TestSensitiveRoutes(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	for _, rt := range s.Routes() {
		got, changes := rt.Sensitive(), rt.Changes()
		if changes && !got {
			t.Errorf("refused attempts at %s %s are not kept", rt.Method, rt.Path)
		}
		switch rt.Path {
		case "/api/v1/cluster/members", "/api/v1/events", "/api/v1/status", "/metrics", "/api/v1/cluster/leases":
			if got && !changes {
				t.Errorf("%s %s is no secret", rt.Method, rt.Path)
			}
		case "/api/v1/cluster/secrets/{name}", "/api/v1/api-tokens":
			if !got {
				t.Errorf("refused attempts at %s %s are not kept", rt.Method, rt.Path)
			}
		}
	}
}

// TestFamilies: a path and a method that nobody serves are refused in the words of the family that is at home there.
func TestFamilies(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	for _, rt := range s.Routes() {
		if f := s.FamilyOf(somePath(rt)); f != rt.Family {
			t.Errorf("%s is a path of the family %s and would be refused by %s", rt.Path, rt.Family.Name, f.Name)
		}
	}
	for path, family := range map[string]string{"/": "elastic", "/_x": "elastic", "/_security/api_key/x/y": "elastic",
		"/v1/x": "nomad", "/v1/operator/x": "nomad",
		"/v1/peering": "consul", "/v1/peeringx": "consul", "/v1/peerings/x": "consul", "/ui": "ui", "/ui/x/y": "ui",
		"/uix": "native", "/x": "native", "/api/v1/x": "native",
		"/api/v1/cluster/join/x": "zlayer", "/api/v1/cluster/joinx": "zlayer", "/api/v1/cluster/join-x": "native",
		"/metrics/x": "native"} {
		if f := s.FamilyOf(path); f.Name != family {
			t.Errorf("%s is refused by %s, want %s", path, f.Name, family)
		}
	}
}

// TestMemberInProcess: the member of these tests answers as a real one does.
func TestMemberInProcess(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	if w := s.Call("GET", "/api/v1/cluster/members", s.Admin, ""); w.Code != 200 ||
		!strings.Contains(w.Body.String(), `"nodeId":1`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := s.Call("POST", "/api/v1/cluster/join-tokens", s.Token(store.ScopeClusterManage), `{}`); w.Code != 201 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := s.Call("GET", "/api/v1/cluster/members", "", ""); w.Code != 401 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
