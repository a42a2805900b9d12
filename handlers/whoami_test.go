package handlers_test

import (
	"encoding/json"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"muster/handlers"
	"muster/handlers/internal/sole"
	"muster/store"
)

// Everybody with a credential is told what it is and what it allows, from the leader and from the mirror, and never its
// secret.
func TestWhoami(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	list := callers(t, s)
	sole.Until(t, "the mirror knows them all", func() bool { return s.Store.Mirror.Revision() >= s.Store.Revision() })
	routes := s.Routes()
	rt := routes[slices.IndexFunc(routes, func(rt *handlers.Route) bool { return rt.Path == "/api/v1/whoami" })]
	kinds := map[string]int{}
	for _, c := range list {
		for _, target := range []string{"/api/v1/whoami", "/api/v1/whoami?stale"} {
			if c.node && strings.HasSuffix(target, "stale") {
				continue // who a member is, the leader says
			}
			s.ForgetFailures()
			w := s.Certain(rt, func() *httptest.ResponseRecorder { return s.Call("GET", target, "", "", c.headers...) })
			if c.scopes == nil {
				if w.Code != 401 {
					t.Errorf("%s as %s: %d %s", target, c.name, w.Code, w.Body)
				}
				continue
			}
			var out struct{ Result struct{ Kind, ID string } }
			if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || w.Code != 200 || out.Result.ID == "" {
				t.Errorf("%s as %s: %d %s", target, c.name, w.Code, w.Body)
				continue
			}
			kinds[out.Result.Kind]++
			for i := 1; i < len(c.headers); i += 2 {
				if secret := strings.Fields(c.headers[i]); strings.Contains(w.Body.String(), secret[len(secret)-1]) {
					t.Errorf("%s as %s shows the secret: %s", target, c.name, w.Body)
				}
			}
		}
	}
	for _, kind := range []string{"api-token", "api-key", "node"} {
		if kinds[kind] == 0 {
			t.Errorf("nobody is of the kind %s: %v", kind, kinds)
		}
	}
	w := s.Call("PUT", "/api/v1/cluster/settings", s.Token(store.ScopeClusterManage), `{"enrollment_enabled":false}`)
	if w.Code == 403 && w.Header().Get(handlers.HeaderScope) == "" {
		t.Errorf("a setting that takes more does not say what: %d %s", w.Code, w.Body)
	}
}
