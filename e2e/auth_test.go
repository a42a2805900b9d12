package e2e

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// TestAuth: who may call what, through every member.
func TestAuth(t *testing.T) {
	t.Parallel()
	onThree(t,
		part{"scopes", testScopes},
		part{"credentials", testCredentials},
		part{"revoked", testRevoked},
		part{"guessing", testGuessing},
	)
}

// The refusals of each family, word for word.
const (
	ellaUnauthenticated = `{"error":"Invalid token"}`
	ellaForbidden       = `{"error":"Forbidden"}`
	nomadDenied         = `Permission denied`
)

// guarded lists every endpoint that asks for a token, with a request that changes nothing when it is let in.
var guarded = []struct {
	method, path, body string
	scope              string
	in                 int // the status when it is let in
}{
	{"GET", "/api/v1/cluster/members", "", "cluster:read", 200},
	{"GET", "/api/v1/cluster/autopilot", "", "cluster:read", 200},
	{"GET", "/api/v1/cluster/join-tokens", "", "cluster:read", 200},
	{"POST", "/api/v1/cluster/pki/join-tokens", "{}", "cluster:manage", 400},
	{"POST", "/api/v1/cluster/join-tokens", "[]", "cluster:manage", 400},
	{"DELETE", "/api/v1/cluster/join-tokens/00000000000000000000000000000000", "", "cluster:manage", 404},
	{"GET", "/api/v1/api-tokens", "", "management", 200},
	{"POST", "/api/v1/api-tokens", "{}", "management", 400},
	{"DELETE", "/api/v1/api-tokens/00000000000000000000000000000000", "", "management", 404},
	{"POST", "/api/v1/sql", "{}", "management", 400},
	{"GET", "/api/v1/cluster/settings", "", "cluster:read", 200},
	{"PUT", "/api/v1/cluster/settings", "[]", "cluster:manage", 400},
	{"GET", "/api/v1/cluster/enrollment-tokens", "", "enroll", 200},
	{"POST", "/api/v1/cluster/enrollment-tokens", "[]", "enroll", 400},
	{"DELETE", "/api/v1/cluster/enrollment-tokens/00000000000000000000000000000000", "", "enroll", 404},
	{"GET", "/api/v1/cluster/enrollments", "", "enroll", 200},
	{"DELETE", "/api/v1/cluster/enrollments/00000000000000000000000000000000", "", "enroll", 404},
	{"GET", "/v1/operator/raft/configuration", "", "management", 200},
	{"GET", "/v1/operator/raft/configuration?stale", "", "management", 200},
}

// includes says which scopes let a request in that asks for one.
var includes = map[string][]string{
	"management":     {"management"},
	"cluster:manage": {"management", "cluster:manage"},
	"cluster:read":   {"management", "cluster:manage", "cluster:read"},
	"enroll":         {"management", "enroll"},
}

func refusals(path string) (unauthenticated, forbidden answer) {
	if strings.HasPrefix(path, "/v1/") {
		denied := answer{status: 403, body: nomadDenied}
		return denied, denied
	}
	return answer{status: 401, body: ellaUnauthenticated}, answer{status: 403, body: ellaForbidden}
}

// testScopes: each scope opens what it says and nothing else, on every member.
func testScopes(t *testing.T, c *cluster) {
	admin := c.admin(t)
	for i, scope := range []string{"management", "cluster:read", "cluster:manage", "peering:read", "peering:write",
		"enroll", "keys:manage"} {
		m := c.members[i%3]
		token := admin.apiToken(t, m, "scope "+scope, scope)
		u := c.as(t, token.Token)
		awaitMirrors(t, c)
		for _, x := range guarded {
			what := fmt.Sprintf("%s %s with scope %s on node %d", x.method, x.path, scope, m.n)
			got := u.do(m, x.method, x.path, x.body)
			if slices.Contains(includes[x.scope], scope) {
				if got.err != nil || got.status != x.in {
					t.Errorf("%s: got %v, want %d", what, got, x.in)
				}
				continue
			}
			_, want := refusals(x.path)
			got.expect(t, what, want.status, want.body)
		}
	}
	for _, x := range guarded {
		want, _ := refusals(x.path)
		c.nobody(t).do(c.members[2], x.method, x.path, x.body).expect(t, x.method+" "+x.path+" without a token", want.status,
			want.body)
	}
}

// awaitMirrors waits until every member's own replica is as new as the cluster is now: what a member answers by itself
// it answers from there.
func awaitMirrors(t *testing.T, c *cluster) {
	t.Helper()
	leader := c.leader(t)
	now := leader.status(t).Revision
	for _, m := range c.members {
		eventually(t, formed, fmt.Sprintf("the mirror of node %d has revision %d", m.n, now), func() error {
			if _, err := os.Stat(m.db()); err != nil {
				return err
			}
			if got := sqlite(t, m.db(), fmt.Sprintf("SELECT revision >= %d FROM cluster", now)); got != "1" {
				return fmt.Errorf("not yet")
			}
			return nil
		})
	}
}

// testCredentials: one token, in whatever place a family's clients put it.
func testCredentials(t *testing.T, c *cluster) {
	token := c.admin(t).apiToken(t, c.members[0], "by another name", "management")
	pair := base64.StdEncoding.EncodeToString([]byte(token.ID + ":" + token.Token))
	wrong := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("0", 32) + ":" + token.Token))
	awaitMirrors(t, c)
	paths := []string{"/api/v1/cluster/members", "/v1/operator/raft/configuration"}
	for _, x := range []struct {
		name    string
		headers []string
		in      bool
	}{
		{"Bearer", []string{"Authorization: Bearer " + token.Token}, true},
		{"Bearer in lower case with blanks", []string{"Authorization:  bearer   " + token.Token + "  "}, true},
		{"X-Nomad-Token", []string{"X-Nomad-Token: " + token.Token}, true},
		{"X-Consul-Token", []string{"X-Consul-Token: " + token.Token}, true},
		{"ApiKey", []string{"Authorization: ApiKey " + pair}, true},
		{"Basic", []string{"Authorization: Basic " + pair}, true},
		{"Basic with the name", []string{basicHeader("by another name", token.Token)}, true},
		{"Basic with another name", []string{basicHeader("admin", token.Token)}, false},
		{"ApiKey with the name", []string{apiKeyHeader("by another name:" + token.Token)}, false},
		{"X-Nomad-Token before a wrong Authorization",
			[]string{"X-Nomad-Token: " + token.Token, "Authorization: Bearer nonsense"}, true},
		{"a wrong X-Nomad-Token before a good Authorization",
			[]string{"X-Nomad-Token: nonsense", "Authorization: Bearer " + token.Token}, false},
		{"none", nil, false},
		{"an empty Bearer", []string{"Authorization: Bearer"}, false},
		{"a token without a scheme", []string{"Authorization: " + token.Token}, false},
		{"an unknown scheme", []string{"Authorization: Digest " + token.Token}, false},
		{"the id instead of the secret", []string{"Authorization: Bearer " + token.ID}, false},
		{"the secret in capitals", []string{"Authorization: Bearer " + strings.ToUpper(token.Token) + "x"}, false},
		{"half of the secret", []string{"Authorization: Bearer " + token.Token[:len(token.Token)/2]}, false},
		{"ApiKey with another id", []string{"Authorization: ApiKey " + wrong}, false},
		{"Basic with another id", []string{"Authorization: Basic " + wrong}, false},
		{"ApiKey that is not Base64", []string{"Authorization: ApiKey %%%"}, false},
		{"Basic without a colon", []string{"Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(token.Token))},
			false},
		{"a long one", []string{"Authorization: Bearer " + strings.Repeat("a", 30_000)}, false},
		{"with SQL in it", []string{"Authorization: Bearer ' OR 1=1 --"}, false},
	} {
		u := c.nobody(t)
		for i, path := range paths {
			m := c.members[(i+len(x.name))%3]
			what := fmt.Sprintf("%s, %s on node %d", x.name, path, m.n)
			got := u.do(m, "GET", path, "", x.headers...)
			if x.in {
				if got.status != 200 {
					t.Errorf("%s: %v", what, got)
				}
				continue
			}
			want, _ := refusals(path)
			got.expect(t, what, want.status, want.body)
		}
	}
	u := c.nobody(t) // ?token= is for the peering family only
	u.do(c.members[0], "GET", paths[0]+"?token="+token.Token, "").expect(t, "?token=", 401, ellaUnauthenticated)
	u.do(c.members[0], "GET", paths[1]+"?token="+token.Token, "").expect(t, "?token=", 403, nomadDenied)
}

// testRevoked: a token that was revoked or has expired is no token, at once and on every member.
func testRevoked(t *testing.T, c *cluster) {
	admin := c.admin(t)
	token := admin.apiToken(t, c.members[0], "to be revoked", "management")
	u := c.as(t, token.Token)
	for _, m := range c.members {
		if a := u.do(m, "GET", "/api/v1/cluster/members", ""); a.status != 200 {
			t.Errorf("before, on node %d: %v", m.n, a)
		}
	}
	admin.do(c.members[1], "DELETE", "/api/v1/api-tokens/"+token.ID, "").expect(t, "revoking", 200,
		`{"result":{"message":"API token revoked"}}`)
	for _, m := range c.members {
		u.do(m, "GET", "/api/v1/cluster/members", "").expect(t, fmt.Sprintf("afterwards, on node %d", m.n), 401,
			ellaUnauthenticated)
		u.do(m, "GET", "/v1/operator/raft/configuration", "").expect(t, fmt.Sprintf("afterwards, on node %d", m.n), 403,
			nomadDenied)
	}
	admin.do(c.members[2], "DELETE", "/api/v1/api-tokens/"+token.ID, "").expect(t, "revoking again", 404,
		`{"error":"API token not found"}`)

	short := get[struct{ ID, Token, ExpiresAt string }](t, admin, c.members[0], "POST", "/api/v1/api-tokens",
		`{"name":"short","scopes":["management"],"ttlSeconds":1}`)
	u = c.as(t, short.Token)
	eventually(t, formed, "the token expires", func() error {
		if a := u.do(c.members[1], "GET", "/api/v1/cluster/members", ""); a.status != 401 {
			return fmt.Errorf("%v", a)
		}
		return nil
	})
	// The administrator's own token is the last that never expires, once those of other tests are gone.
	for _, x := range get[[]struct{ ID, Name string }](t, admin, c.members[0], "GET", "/api/v1/api-tokens", "") {
		if x.Name == "by another name" || x.Name == "scope management" {
			admin.do(c.members[0], "DELETE", "/api/v1/api-tokens/"+x.ID, "")
		}
	}
	for _, x := range get[[]struct {
		ID, Token string
		Scopes    []string
	}](t, admin, c.members[0], "GET", "/api/v1/api-tokens", "") {
		if x.Token != "" {
			t.Errorf("the list shows the secret of %s", x.ID)
		}
		if slices.Contains(x.Scopes, "management") && x.ID != short.ID {
			admin.do(c.members[0], "DELETE", "/api/v1/api-tokens/"+x.ID, "").expect(t, "revoking the last one", 409,
				`{"error":"this is the last API token with scope management that does not expire; create another one first"}`)
		}
	}
}

// testGuessing: whoever guesses is slowed down, but not below 100 guesses a minute, and nobody else is.
func testGuessing(t *testing.T, c *cluster) {
	m := c.leader(t)
	flood := func(u *user, n int, ask func(*user, int) answer) map[int]int {
		seen := map[int]int{}
		var mu sync.Mutex
		var wait sync.WaitGroup
		for w := range 8 {
			wait.Go(func() {
				for i := w; i < n; i += 8 {
					a := ask(u, i)
					mu.Lock()
					seen[a.status]++
					mu.Unlock()
				}
			})
		}
		wait.Wait()
		return seen
	}
	for _, x := range []struct {
		name    string
		ask     func(*user, int) answer
		refused int
		limited string
	}{
		{"API tokens", func(u *user, i int) answer {
			return u.do(c.members[i%3], "GET", "/api/v1/cluster/members", "", fmt.Sprintf("Authorization: Bearer guess-%d", i))
		}, 401, `{"error":"too many failed attempts; try again in a minute"}`},
		{"join tokens", func(u *user, i int) answer {
			return u.do(c.members[i%3], "POST", "/api/v1/cluster/join", joinBody(t, fmt.Sprintf("guess%d", i)))
		}, 401, `{"error":"rate_limited","message":"Rate limited"}`},
	} {
		u := c.as(t, c.token)
		if seen := flood(u, 100, x.ask); seen[x.refused] != 100 {
			t.Errorf("%s: 100 guesses in a minute were answered %v, want 401 for all", x.name, seen)
		}
		if seen := flood(u, 300, x.ask); seen[429] == 0 || seen[429]+seen[x.refused] != 300 {
			t.Errorf("%s: 300 more guesses were answered %v, want some 429", x.name, seen)
		}
		x.ask(u, 1).expect(t, x.name+" when guessed too often", http.StatusTooManyRequests, x.limited)
		if a := u.do(m, "GET", "/api/v1/cluster/members", ""); a.status != 200 {
			t.Errorf("%s: a good token from the same address: %v", x.name, a)
		}
		if a := x.ask(c.nobody(t), 1); a.status != x.refused {
			t.Errorf("%s: a guess from another address: %v", x.name, a)
		}
	}
}
