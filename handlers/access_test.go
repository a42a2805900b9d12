package handlers_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/certs"
	"muster/handlers"
	"muster/handlers/internal/sole"
	"muster/store"
)

// caller is somebody with a credential and what it allows.
type caller struct {
	name    string
	headers []string
	scopes  []string // nil: nobody that is known
	apiKey  bool
	node    bool // which one family never knows
}

func (c *caller) allows(scope string) bool {
	return c.scopes != nil && (&store.APIToken{Scopes: c.scopes}).Allows(scope)
}

// callers are one for each scope, and everybody else who may come.
func callers(t *testing.T, s *sole.Member) (list []caller) {
	t.Helper()
	bearer := func(secret string) []string { return []string{"Authorization", "Bearer " + secret} }
	for _, scope := range store.Scopes {
		list = append(list, caller{name: scope, headers: bearer(s.Token(scope)), scopes: []string{scope}})
	}
	key := func(kind string, scopes []string, change func(*store.APIKey)) string {
		k := store.APIKey{
			ID:        store.NewID(),
			Kind:      kind,
			Name:      kind,
			Secret:    certs.NewSecret(),
			Scopes:    scopes,
			OwnerID:   "x",
			OwnerName: "x",
		}
		k.SecretHash = certs.HashSecret(k.Secret)
		change(&k)
		if _, err := s.Store.APIKeys.Create(t.Context(), store.Actor{Name: "test"}, k); err != nil {
			t.Fatal(err)
		}
		return "ApiKey " + base64.StdEncoding.EncodeToString([]byte(k.ID+":"+k.Secret))
	}
	ago := time.Now().Add(-time.Hour)
	jwt, internal := nodeCredentials(t, s)
	return append(list,
		caller{name: "a token without scopes", headers: bearer(s.Token()), scopes: []string{}},
		caller{name: "an API key that reads",
			headers: []string{"Authorization", key(store.KeyKindAPI, []string{store.ScopeClusterRead}, func(*store.APIKey) {})},
			scopes:  []string{store.ScopeClusterRead}, apiKey: true},
		caller{name: "an expired API key",
			headers: []string{"Authorization",
				key(store.KeyKindAPI, []string{store.ScopeManagement}, func(k *store.APIKey) { k.ExpiresAt = &ago })}},
		caller{name: "a member", headers: bearer(jwt), scopes: []string{store.ScopeClusterRead}, node: true},
		caller{name: "a member with the join secret", headers: []string{"X-ZLayer-Internal-Token", internal},
			scopes: []string{store.ScopeClusterRead}, node: true},
		caller{name: "an unknown token", headers: bearer(certs.NewSecret())},
		caller{name: "an identity of a member that is signed by nobody", headers: bearer(jwt[:len(jwt)-8] + "AAAAAAAA")},
		caller{name: "nobody"})
}

// nodeCredentials are the identity of member 1 and the bearer that members derive from the join secret.
func nodeCredentials(t *testing.T, s *sole.Member) (jwt, internal string) {
	t.Helper()
	key, err := s.Store.Keys.Active(t.Context(), store.AsLeader, store.KeyJWT)
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.Store.Members.Get(t.Context(), store.AsLeader, 1)
	if err != nil {
		t.Fatal(err)
	}
	if jwt, err = certs.MintNodeJWT(ed25519.NewKeyFromSeed(key.Secret), key.KID, s.ClusterID, m.ID, 1,
		time.Now()); err != nil {
		t.Fatal(err)
	}
	secret, err := s.Store.Keys.Active(t.Context(), store.AsLeader, store.KeyJoinSecret)
	if err != nil {
		t.Fatal(err)
	}
	return jwt, certs.InternalBearer(string(secret.Secret))
}

// refusedAs reports whether an answer is the family's refusal of a caller, known or not.
func refusedAs(rt *handlers.Route, code int, known bool) bool {
	switch {
	case rt.Family.Name == "elastic" && known, rt.Family.Name == "consul":
		return code == http.StatusForbidden
	case rt.Family.Name == "elastic":
		return code == http.StatusUnauthorized
	case known:
		return code == rt.Family.Forbidden.Status
	}
	return code == rt.Family.Unauthenticated.Status
}

// harmless makes a request to a route whose arguments are in order, but which asks for nothing that exists.
func harmless(rt *handlers.Route) (target, body string) {
	target = strings.NewReplacer("{name:.*}", "nothing", "{id}", "999999", "{name}", "nothing", "{file}",
		"nothing").Replace(rt.Path)
	bodies := map[string]string{
		"/v1/peering/token": `{"PeerName":"x"}`, "/v1/peering/establish": "", "/_security/api_key": `{"name":"x","id":"x"}`,
	}
	if !rt.Changes() {
		return target, ""
	}
	if rt.Path == "/v1/peering/establish" {
		token, _ := json.Marshal(map[string]any{"CA": []string{}, "ServerAddresses": []string{"127.0.0.1:1"}, "PeerID": "x"})
		return target, fmt.Sprintf(`{"PeerName":"x","PeeringToken":%q}`, base64.StdEncoding.EncodeToString(token))
	}
	if body, ok := bodies[rt.Path]; ok {
		return target, body
	}
	switch rt.Path {
	case "/v1/operator/raft/peer":
		return target + "?id=999999", ""
	case "/v1/operator/raft/transfer-leadership":
		return target + "?id=11111111-2222-4333-8444-555555555555", ""
	}
	return target, "{}"
}

// TestAccess walks over the table of routes and asks each as everybody who may come, directly and passed on by a
// member: who may is never refused as somebody who may not, and the other way about.
func TestAccess(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	list := callers(t, s)
	sole.Until(t, "the mirror knows them all", func() bool { return s.Store.Mirror.Revision() >= s.Store.Revision() })
	calls := 0
	for _, rt := range s.Routes() {
		// its token cannot be right without another cluster
		if rt.Family.Name == "ui" || rt.Stream || rt.Path == "/v1/peering/establish" {
			continue
		}
		target, body := harmless(rt)
		for _, c := range list {
			for _, forwarded := range []bool{false, true} {
				s.ForgetFailures()
				h, headers := s.API(), c.headers
				if forwarded {
					h, headers = s.Internal(), append(slices.Clone(headers), handlers.HeaderForwarded, "1", handlers.HeaderRemote,
						"192.0.2.1:1")
				}
				if body != "" {
					headers = append(slices.Clone(headers), "Content-Type", "application/json")
				}
				w := s.Certain(rt, func() *httptest.ResponseRecorder { return s.Ask(h, rt.Method, target, "", body, headers...) })
				calls++
				if c.node && rt.Family.Name == "elastic" {
					c.scopes = nil
				}
				open := rt.Scope == "" && (rt.Admit == nil || c.scopes != nil)
				may := open || rt.Scope != "" && c.allows(rt.Scope)
				refused := refusedAs(rt, w.Code, c.scopes != nil)
				if rt.Path == "/api/v1/cluster/join" {
					refused = false // the token in its body decides
				}
				if c.apiKey && rt.Path == "/api/v1/cluster/enrollment-tokens" || rt.Path == "/api/v1/cluster/node-token" {
					continue // the handler itself says who may
				}
				if asked := w.Header().Get(handlers.HeaderScope); c.scopes != nil && !may && asked != rt.Scope || may &&
					asked != "" && !ownOf(rt, w.Code, may) {
					t.Errorf("%s %s as %s (passed on: %v): %d, and it takes the scope %q", rt.Method, target, c.name, forwarded,
						w.Code, asked)
				}
				if refused == may && !ownOf(rt, w.Code, may) {
					t.Errorf("%s %s as %s (passed on: %v): %d %s; it may: %v", rt.Method, target, c.name, forwarded, w.Code, w.Body,
						may)
				}
			}
		}
	}
	t.Logf("%d calls", calls)
}

// ownOf reports whether a refusal is one that the handler has of its own for somebody who has the scope.
func ownOf(rt *handlers.Route, code int, may bool) bool {
	if !may {
		return false
	}
	switch rt.Path {
	case "/_security/api_key":
		return code == http.StatusForbidden // keys of others
	case "/_security/enroll/node", "/_security/enroll/kibana":
		return code == http.StatusForbidden // enrollment is not enabled
	}
	return false
}
