package handlers_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"muster/handlers/internal/sole"
	"muster/internal/await"
)

// The refusals of each family, word for word.
const (
	ellaUnauthenticated = `{"error":"Invalid token"}`
	ellaForbidden       = `{"error":"Forbidden"}`
	nomadDenied         = "Permission denied"
)

// refusal is what the family of a path says to somebody that it does not know.
func refusal(path string) (status int, body string) {
	if strings.HasPrefix(path, "/v1/") {
		return 403, nomadDenied
	}
	return 401, ellaUnauthenticated
}

func basic(pair string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(pair))
}

// TestScopesRefuse: what a scope does not open is refused in the words of the family.
func TestScopesRefuse(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	enroller := s.As(s.Root().APIToken("enroller", "enroll").Token)
	s.AwaitMirrors()
	for range 2 {
		enroller.Do("GET", "/api/v1/cluster/members", "").Expect(t, "members", 403, ellaForbidden)
		enroller.Do("POST", "/api/v1/sql", "{}").Expect(t, "sql", 403, ellaForbidden)
		enroller.Do("GET", "/v1/operator/raft/configuration", "").Expect(t, "raft", 403, nomadDenied)
		for _, path := range []string{"/api/v1/cluster/members", "/v1/operator/raft/configuration"} {
			status, body := refusal(path)
			s.Nobody().Do("GET", path, "").Expect(t, path+" as nobody", status, body)
		}
	}
}

// TestPlacesOfCredentials: one token, in whatever place a family's clients put it.
func TestPlacesOfCredentials(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	token := s.Root().APIToken("by another name", "management")
	pair := base64.StdEncoding.EncodeToString([]byte(token.ID + ":" + token.Token))
	wrong := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("0", 32) + ":" + token.Token))
	s.AwaitMirrors()
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
		{"Basic with the name", []string{basic("by another name:" + token.Token)}, true},
		{"Basic with another name", []string{basic("admin:" + token.Token)}, false},
		{"ApiKey with the name", []string{"Authorization: " + sole.APIKeyHeader("by another name:"+token.Token)}, false},
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
		u := s.Nobody()
		for _, path := range paths {
			what := x.name + ", " + path
			got := u.Do("GET", path, "", x.headers...)
			if x.in {
				if got.Status != 200 {
					t.Errorf("%s: %v", what, got)
				}
				continue
			}
			status, body := refusal(path)
			got.Expect(t, what, status, body)
		}
	}
	u := s.Nobody() // ?token= is for the peering family only
	u.Do("GET", paths[0]+"?token="+token.Token, "").Expect(t, "?token=", 401, ellaUnauthenticated)
	u.Do("GET", paths[1]+"?token="+token.Token, "").Expect(t, "?token=", 403, nomadDenied)
}

// TestRevoked: a token that was revoked or has expired is no token, at once and on every member.
func TestRevoked(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	admin := s.Root()
	token := admin.APIToken("to be revoked", "management")
	u := s.As(token.Token)
	for range 2 {
		if a := u.Do("GET", "/api/v1/cluster/members", ""); a.Status != 200 {
			t.Errorf("before: %v", a)
		}
	}
	admin.Do("DELETE", "/api/v1/api-tokens/"+token.ID, "").Expect(t, "revoking", 200,
		`{"result":{"message":"API token revoked"}}`)
	for range 2 {
		u.Do("GET", "/api/v1/cluster/members", "").Expect(t, "afterwards", 401,
			ellaUnauthenticated)
		u.Do("GET", "/v1/operator/raft/configuration", "").Expect(t, "afterwards", 403,
			nomadDenied)
	}
	admin.Do("DELETE", "/api/v1/api-tokens/"+token.ID, "").Expect(t, "revoking again", 404,
		`{"error":"API token not found"}`)

	short := sole.Get[struct{ ID, Token, ExpiresAt string }](admin, "POST", "/api/v1/api-tokens",
		`{"name":"short","scopes":["management"],"ttlSeconds":1}`)
	u = s.As(short.Token)
	await.NoError(t, "the token expires", func() error {
		if a := u.Do("GET", "/api/v1/cluster/members", ""); a.Status != 401 {
			return fmt.Errorf("%v", a)
		}
		return nil
	})
	// The administrator's own token is the last that never expires.
	for _, x := range sole.Get[[]struct {
		ID, Token string
		Scopes    []string
	}](admin, "GET", "/api/v1/api-tokens", "") {
		if x.Token != "" {
			t.Errorf("the list shows the secret of %s", x.ID)
		}
		if slices.Contains(x.Scopes, "management") && x.ID != short.ID {
			admin.Do("DELETE", "/api/v1/api-tokens/"+x.ID, "").Expect(t, "revoking the last one", 409,
				`{"error":"this is the last API token with scope management that does not expire; create another one first"}`)
		}
	}
}

// TestGuessing: whoever guesses is slowed down, but not below 100 guesses a minute, and nobody else is.
func TestGuessing(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	flood := func(u *sole.User, n int, ask func(*sole.User, int) sole.Answer) map[int]int {
		seen := map[int]int{}
		var mu sync.Mutex
		var wait sync.WaitGroup
		for w := range 8 {
			wait.Go(func() {
				for i := w; i < n; i += 8 {
					a := ask(u, i)
					mu.Lock()
					seen[a.Status]++
					mu.Unlock()
				}
			})
		}
		wait.Wait()
		return seen
	}
	for _, x := range []struct {
		name    string
		ask     func(*sole.User, int) sole.Answer
		refused int
		limited string
	}{
		{"API tokens", func(u *sole.User, i int) sole.Answer {
			return u.Do("GET", "/api/v1/cluster/members", "", fmt.Sprintf("Authorization: Bearer guess-%d", i))
		}, 401, `{"error":"too many failed attempts; try again in a minute"}`},
		{"join tokens", func(u *sole.User, i int) sole.Answer {
			return u.Do("POST", "/api/v1/cluster/join", fmt.Sprintf(`{"token":"guess%d","advertise_addr":"127.0.0.1",`+
				`"overlay_port":51420,"raft_port":1,"wg_public_key":"","mode":"replicate"}`, i))
		}, 401, `{"error":"rate_limited","message":"Rate limited"}`},
	} {
		u := s.Root()
		if seen := flood(u, 100, x.ask); seen[x.refused] != 100 {
			t.Errorf("%s: 100 guesses in a minute were answered %v, want 401 for all", x.name, seen)
		}
		if seen := flood(u, 300, x.ask); seen[429] == 0 || seen[429]+seen[x.refused] != 300 {
			t.Errorf("%s: 300 more guesses were answered %v, want some 429", x.name, seen)
		}
		x.ask(u, 1).Expect(t, x.name+" when guessed too often", http.StatusTooManyRequests, x.limited)
		if a := u.Do("GET", "/api/v1/cluster/members", ""); a.Status != 200 {
			t.Errorf("%s: a good token from the same address: %v", x.name, a)
		}
		if a := x.ask(s.Nobody(), 1); a.Status != x.refused {
			t.Errorf("%s: a guess from another address: %v", x.name, a)
		}
	}
}
