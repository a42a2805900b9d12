package handlers_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"muster/handlers"
	"muster/handlers/internal/sole"
	"muster/store"
)

// concrete fills the pattern of a route's path.
func concrete(path string) string {
	for _, x := range [][2]string{{"{name:.*}", "x"}, {"{name}", "x"}, {"{id}", "1"}, {"{file}", "style.css"}} {
		path = strings.ReplaceAll(path, x[0], x[1])
	}
	return path
}

const keyBody = `{"name":"x","role_descriptors":{"r":{"cluster":[]}}}`

// TestEnrollmentTokenEnrollsOnly: whatever route it is shown at, used up or not, with an Idempotency-Key or without, an
// enrollment token enrolls and does nothing else.
func TestEnrollmentTokenEnrollsOnly(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	fresh, used := s.EnrollKey(`{"maxUses":1000}`), s.EnrollKey(`{}`)
	if w := s.Call("GET", "/_security/enroll/node", "", "", "Authorization", used); w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	for _, path := range []string{"/_security/enroll/node", "/_security/enroll/kibana"} {
		if w := s.Call("GET", path, "", "", "Authorization", used, "Idempotency-Key", "of nobody"); w.Code != 401 ||
			!strings.Contains(w.Body.String(), "already been used") {
			t.Errorf("%s with one that is used up: %d %s", path, w.Code, w.Body)
		}
	}
	before := s.Query("SELECT count(*) FROM api_keys") + s.Query("SELECT count(*) FROM enrollments")
	for _, rt := range s.Routes() {
		if rt.Enrolls || rt.Scope == "" {
			continue
		}
		for name, header := range map[string]string{"fresh": fresh, "used up": used} {
			for _, key := range []string{"", "a-key"} {
				w := s.Call(rt.Method, concrete(rt.Path), "", keyBody, "Authorization", header, "Content-Type", "application/json",
					"Idempotency-Key", key)
				if w.Code < 400 || w.Code >= 500 {
					t.Errorf("%s %s with one that is %s: %d %s", rt.Method, rt.Path, name, w.Code, w.Body)
				}
			}
		}
	}
	if after := s.Query("SELECT count(*) FROM api_keys") + s.Query("SELECT count(*) FROM enrollments"); after != before {
		t.Errorf("%s keys and enrollments, %s before", after, before)
	}
}

// creation is a request that makes something that has worth.
type creation struct {
	name, method, path, body string
	revoke                   string // statement that takes away what was made, or ""
	header                   string // Authorization; "" stands for a management token
}

func creations(s *sole.Member) []creation {
	return []creation{
		{
			name:   "API token",
			method: "POST",
			path:   "/api/v1/api-tokens",
			body:   `{"name":"x","scopes":["management"]}`,
			revoke: "/api/v1/api-tokens/",
		},
		{
			name:   "join token",
			method: "POST",
			path:   "/api/v1/cluster/join-tokens",
			body:   `{}`,
			revoke: "/api/v1/cluster/join-tokens/",
		},
		{
			name:   "signed join token",
			method: "POST",
			path:   "/api/v1/cluster/join-tokens",
			body:   `{"format":"zlayer"}`,
			revoke: "/api/v1/cluster/join-tokens/",
		},
		{
			name:   "minted token",
			method: "POST",
			path:   "/api/v1/cluster/pki/join-tokens",
			body:   `{"nodeID":77}`,
			revoke: "/api/v1/cluster/join-tokens/",
		},
		{
			name:   "enrollment token",
			method: "POST",
			path:   "/api/v1/cluster/enrollment-tokens",
			body:   `{"name":"x"}`,
			revoke: "/api/v1/cluster/enrollment-tokens/",
		},
		{
			name:   "API key by POST",
			method: "POST",
			path:   "/_security/api_key",
			body:   `{"name":"x"}`,
			revoke: "key",
		},
		{
			name:   "API key by PUT",
			method: "PUT",
			path:   "/_security/api_key",
			body:   `{"name":"x"}`,
			revoke: "key",
		},
		{
			name:   "peering token",
			method: "POST",
			path:   "/v1/peering/token",
			body:   `{"PeerName":"x"}`,
			revoke: "peering",
		},
		{
			name:   "enrollment of a node",
			method: "GET",
			path:   "/_security/enroll/node",
			revoke: "enrollment",
			header: s.EnrollKey(`{}`),
		},
		{
			name:   "enrollment of a Kibana",
			method: "GET",
			path:   "/_security/enroll/kibana",
			revoke: "enrollment",
			header: s.EnrollKey(`{"scope":"kibana"}`),
		},
	}
}

func create(s *sole.Member, c *creation, key, query, body string) *httptest.ResponseRecorder {
	header := c.header
	if header == "" {
		header = "Bearer " + s.Admin
	}
	return s.Call(c.method, c.path+query, "", body, "Authorization", header, "Content-Type", "application/json",
		"Idempotency-Key", key)
}

// takeBack revokes what the newest creation has made.
func takeBack(s *sole.Member, c *creation, answer string) {
	s.T.Helper()
	var out struct {
		Result struct{ ID string }
		ID     string
	}
	_ = json.Unmarshal([]byte(answer), &out)
	method, path, body := "DELETE", c.revoke+out.Result.ID, ""
	switch c.revoke {
	case "key":
		path, body = "/_security/api_key", `{"ids":["`+out.ID+`"]}`
	case "peering":
		path = "/v1/peering/x"
	case "enrollment":
		path = "/api/v1/cluster/enrollments/" + s.Query("SELECT id FROM enrollments ORDER BY created_rev DESC LIMIT 1")
	}
	if w := s.Call(method, path, s.Admin, body, "Content-Type", "application/json"); w.Code != 200 {
		s.T.Fatalf("%s: %s %s: %d %s", c.name, method, path, w.Code, w.Body)
	}
}

// TestReplays: the same Idempotency-Key gets the same answer, whatever has changed in between, and a row in the audit;
// another method, path, query or body is refused; what was revoked does not come back.
func TestReplays(t *testing.T) {
	t.Parallel()
	config := (*sole.Config)(nil)
	s := sole.New(t, func(c *sole.Config) { config, c.Leaf = c, []byte("one") })
	for _, c := range creations(s) {
		t.Run(c.name, func(t *testing.T) {
			s.T = t
			key := "key of " + c.name
			first := create(s, &c, key, "", c.body)
			if first.Code/100 != 2 {
				t.Fatalf("%d %s", first.Code, first.Body)
			}
			config.Leaf = []byte("another leader's")
			rows := "SELECT count(*) FROM audit WHERE action = 'access.replayed' AND outcome = 'replayed' AND object = '" +
				c.method + " " + c.path + "'"
			before := s.Query(rows)
			again := create(s, &c, key, "", c.body)
			if again.Code != first.Code || again.Body.String() != first.Body.String() {
				t.Errorf("again: %d %s\nfirst: %d %s", again.Code, again.Body, first.Code, first.Body)
			}
			if s.Query(rows) == before {
				t.Error("the repetition has no audit row")
			}
			if w := create(s, &c, key, "?pretty=true", c.body); w.Code/100 != 4 {
				t.Errorf("with another query: %d %s", w.Code, w.Body)
			}
			if c.body != "" {
				if w := create(s, &c, key, "", strings.TrimSuffix(c.body, "}")+" }"); w.Code != 409 {
					t.Errorf("with another body: %d %s", w.Code, w.Body)
				}
			}
			takeBack(s, &c, first.Body.String())
			if w := create(s, &c, key, "", c.body); w.Code/100 != 4 || strings.Contains(w.Body.String(), "internal") {
				t.Errorf("after it was revoked: %d %s", w.Code, w.Body)
			}
		})
	}
	s.T = t
	if w := s.Call("POST", "/api/v1/cluster/join-tokens", s.Admin, `{}`, "Idempotency-Key", store.AutoKey+
		"x"); w.Code != 400 {
		t.Errorf("a key like those of members: %d %s", w.Code, w.Body)
	}
}

// TestReplayOfAnEnrollment: what is no longer to be handed out is not, to a repeated request either.
func TestReplayOfAnEnrollment(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	c := creation{method: "GET", path: "/_security/enroll/node", header: s.EnrollKey(`{}`)}
	if w := create(s, &c, "k", "", ""); w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	for _, x := range []struct{ name, off, on string }{
		{store.SettingEnrollmentHTTPCA, `"intermediate"`, `"root"`}, {store.SettingEnrollment, "false", "true"},
	} {
		s.Option(x.name, x.off)
		if w := create(s, &c, "k", "", ""); w.Code != 403 || strings.Contains(w.Body.String(), "http_ca_key") {
			t.Errorf("%s is %s: %d %s", x.name, x.off, w.Code, w.Body)
		}
		s.Option(x.name, x.on)
	}
	if w := create(s, &c, "k", "", ""); w.Code != 200 {
		t.Errorf("as it was: %d %s", w.Code, w.Body)
	}
	key := s.Query("SELECT id FROM api_keys WHERE kind = 'enrollment_token'")
	if w := s.Call("DELETE", "/api/v1/cluster/enrollment-tokens/"+key+"?keepEnrollments=true", s.Admin,
		""); w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if w := create(s, &c, "k", "", ""); w.Code != 401 {
		t.Errorf("the token is revoked: %d %s", w.Code, w.Body)
	}
}

// TestNothingOutlivesItsMaker: what a credential that ends soon makes ends with it.
func TestNothingOutlivesItsMaker(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	secret, end := s.Expiring(time.Minute, store.ScopeManagement)
	for _, c := range creations(s) {
		if strings.HasPrefix(c.name, "enrollment of") {
			continue // what an enrolled machine is given is for the lifetime that the settings say
		}
		c.header = "Bearer " + secret
		if w := create(s, &c, "", "", c.body); w.Code/100 != 2 {
			t.Errorf("%s: %d %s", c.name, w.Code, w.Body)
		}
	}
	latest := end.UTC().Format(handlers.TimeFormat)
	for what, query := range map[string]string{
		"API tokens":     "SELECT coalesce(expires_at, 'never') FROM api_tokens WHERE name = 'x'",
		"keys":           "SELECT coalesce(expires_at, 'never') FROM api_keys WHERE name = 'x'",
		"join tokens":    "SELECT expires_at FROM join_tokens",
		"peering tokens": "SELECT coalesce(establish_expires_at, 'never') FROM peering_secrets",
	} {
		list := strings.Fields(s.Query(query))
		if len(list) == 0 {
			t.Errorf("there are no %s", what)
		}
		for _, at := range list {
			if at > latest {
				t.Errorf("%s: one is good until %s, its maker until %s", what, at, latest)
			}
		}
	}
}

// TestKeysOfKeys: a key makes keys that may do nothing, for its owner.
func TestKeysOfKeys(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	w := s.Call("POST", "/_security/api_key", s.Admin, `{"name":"parent","expiration":"1h"}`, "Content-Type",
		"application/json")
	var key struct{ Encoded string }
	if err := json.Unmarshal(w.Body.Bytes(), &key); err != nil || w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	for roles, want := range map[string]int{
		``:                       400,
		`,"role_descriptors":{}`: 400,
		`,"role_descriptors":{"r":{"cluster":["monitor"]}}`:    400,
		`,"role_descriptors":{"r":{"cluster":["read_ccr"]}}`:   400,
		`,"role_descriptors":{"r":{"indices":[{"names":[]}]}}`: 400,
		`,"role_descriptors":{"r":{}}`:                         200,
		`,"role_descriptors":{"r":{"cluster":[]}}`:             200,
	} {
		w := s.Call("POST", "/_security/api_key", "", `{"name":"child"`+roles+`}`, "Authorization", "ApiKey "+key.Encoded,
			"Content-Type", "application/json")
		if w.Code != want {
			t.Errorf("%s: %d %s", roles, w.Code, w.Body)
		}
	}
	if got := s.Query("SELECT DISTINCT owner_id = (SELECT owner_id FROM api_keys WHERE name = 'parent') AND scopes = " +
		"'[]' AND expires_at IS NOT NULL FROM api_keys WHERE name = 'child'"); got != "1" {
		t.Errorf("the children's owner, scopes and end are as they should be: %s", got)
	}
}

// TestSettingsThatWeaken: what shortens the record or lets others in is for the scope management.
func TestSettingsThatWeaken(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	manage := s.Token(store.ScopeClusterManage)
	for _, o := range store.AllSettings {
		scope, err := store.SettingScope(o.Name)
		if err != nil {
			t.Fatal(err)
		}
		weakens := strings.HasPrefix(o.Name, "audit.") || strings.HasPrefix(o.Name, "enrollment.") ||
			strings.HasPrefix(o.Name, "refusals.")
		if weakens && scope != store.ScopeManagement {
			t.Errorf("%s takes the scope %s", o.Name, scope)
		}
		want := 200
		if scope == store.ScopeManagement {
			want = 403
		}
		before := s.Query("SELECT revision FROM cluster")
		body := fmt.Sprintf(`{%q:null}`, o.Name)
		w := s.Call("PUT", "/api/v1/cluster/settings", manage, body)
		if w.Code != want || want == 403 &&
			(!strings.Contains(w.Body.String(), o.Name) || s.Query("SELECT revision FROM cluster") != before) {
			t.Errorf("%s: %d %s", o.Name, w.Code, w.Body)
		}
		if w := s.Call("PUT", "/api/v1/cluster/settings", s.Admin, body); w.Code != 200 {
			t.Errorf("%s by management: %d %s", o.Name, w.Code, w.Body)
		}
	}
}
