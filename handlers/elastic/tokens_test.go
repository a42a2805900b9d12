package elastic_test

import (
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/api"
	"muster/handlers/internal/sole"
)

// TestEnrollSettings: settings have defaults, are checked, and change all or none.
func TestEnrollSettings(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	u := s.Root()
	const defaults = `"audit.max_age":"2160h0m0s","audit.max_rows":200000,`
	const others = `"certificates.hosts":"none","enrollment.enabled":true,"enrollment.http_ca":"root",` +
		`"enrollment.key_type":"ecdsa","enrollment.lifetime":"8760h0m0s"`
	holds := func(what string) {
		t.Helper()
		a := u.Do("GET", settingsPath, "")
		if a.Status != 200 || !strings.Contains(a.Body, defaults) || !strings.Contains(a.Body, others) {
			t.Errorf("%s: %v", what, a)
		}
	}
	holds("at first")
	for body, want := range map[string]string{
		`[]`:                          `{"error":"the body must be a JSON object"}`,
		`null`:                        `{"error":"the body must be a JSON object"}`,
		``:                            `{"error":"the body must be a JSON object"}`,
		`{"enrollment.enabled":1}`:    `{"error":"enrollment.enabled must be true or false"}`,
		`{"enrollment.enabled":"no"}`: `{"error":"enrollment.enabled must be true or false"}`,
		`{"enrollment.http_ca":"leaf","enrollment.enabled":false}`: `{"error":"enrollment.http_ca must be one of root, ` +
			`intermediate"}`,
		`{"enrollment.lifetime":"1m"}`: `{"error":"enrollment.lifetime must be a duration between \"1h0m0s\" and ` +
			`\"78840h0m0s\""}`,
		`{"enrollment.lifetime":3600}`: `{"error":"enrollment.lifetime must be a duration between \"1h0m0s\" and ` +
			`\"78840h0m0s\""}`,
	} {
		u.Do("PUT", settingsPath, body).Expect(t, "settings "+body, 400, want)
	}
	if a := u.Do("PUT", settingsPath, `{"Enrollment.enabled":false}`); a.Status != 400 ||
		!strings.HasPrefix(a.Body, `{"error":"Enrollment.enabled is not a setting; did you mean enrollment.enabled?`) {
		t.Errorf("an unknown name: %v", a)
	}
	holds("after what was refused")
	set(t, u, `{"enrollment.enabled":false,"enrollment.key_type":"rsa4096"}`)
	if a := u.Do("GET", settingsPath, ""); !strings.Contains(a.Body, `"enrollment.enabled":false`) ||
		!strings.Contains(a.Body, `"enrollment.key_type":"rsa4096"`) {
		t.Errorf("after a change: %v", a)
	}
	set(t, u, `{"enrollment.enabled":null,"enrollment.key_type":null,"enrollment.http_ca":null}`)
	holds("after null")
	reader := s.As(u.APIToken("settings reader", "cluster:read").Token)
	if a := reader.Do("GET", settingsPath, ""); a.Status != 200 {
		t.Errorf("cluster:read reads: %v", a)
	}
	reader.Do("PUT", settingsPath, `{}`).Expect(t, "cluster:read writes", 403, ellaForbidden)
}

// TestEnrollTokens: what a token says, how often it can be used and what ends it.
func TestEnrollTokens(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	u, nobody := s.Root(), s.Nobody()
	x, token := enrollToken(t, u, "")
	if !slices.Equal(token.Addresses, []string{"127.0.0.1:5001", "127.0.0.1:5002"}) || token.Version == "" ||
		!strings.HasPrefix(token.Key, x.ID+":") ||
		len(x.Warnings) != 1 {
		t.Errorf("the token is %+v, and of it is said %+v", token, x)
	}
	if d := time.Until(x.ExpiresAt); x.MaxUses != 1 || x.State != "valid" || x.Scope != "node" || d > 30*time.Minute ||
		d < 29*time.Minute {
		t.Errorf("by default: %+v", x)
	}
	key := apiKeyHeader(token.Key)
	// A refusal for another reason leaves it as it is.
	for _, path := range []string{enrollNode + "?x", enrollKibana + "?x", "/_cluster/health"} {
		if a := nobody.Do("GET", path, "", key); a.Status != 400 && a.Status != 403 {
			t.Errorf("%s: %v", path, a)
		}
	}
	set(t, u, `{"enrollment.enabled":false}`)
	if a := nobody.Do("GET", enrollNode, "", key); a.Status != 403 {
		t.Errorf("while enrollment is off: %v", a)
	}
	set(t, u, `{"enrollment.enabled":null}`)
	if now := oneEnrollToken(t, u, x.ID); now.Uses != 0 || now.State != "valid" {
		t.Errorf("after refusals: %+v", now)
	}
	// The same request again is the same enrollment; another one is refused.
	first := parseEnrolled(t, s, nobody.Do("GET", enrollNode, "", key, "Idempotency-Key: one"))
	again := parseEnrolled(t, s, nobody.Do("GET", enrollNode+"?human", "", key, "Idempotency-Key: one"))
	if string(first.TransportKey) != string(again.TransportKey) ||
		string(first.TransportCert) != string(again.TransportCert) {
		t.Error("a repeated request was given another certificate")
	}
	used := "API key: api key [" + x.ID + "] has already been used"
	for range 2 {
		if got := why(nobody.Do("GET", enrollNode, "", key)); got != used {
			t.Errorf("used again: %s", got)
		}
		if got := why(nobody.Do("GET", enrollNode, "", key, "Idempotency-Key: two")); got != used {
			t.Errorf("used again as another request: %s", got)
		}
	}
	now := oneEnrollToken(t, u, x.ID)
	if now.Uses != 1 || now.State != "used" {
		t.Errorf("after its use: %+v", now)
	}
	if got := statesOf(t, u, x.ID); !slices.Equal(got, []string{"valid"}) {
		t.Errorf("its enrollments are %v", got)
	}
}

// statesOf lists the states of what a token has enrolled.
func statesOf(t *testing.T, u *sole.User, id string) (states []string) {
	t.Helper()
	for _, e := range enrollments(t, u) {
		if e.TokenID == id {
			states = append(states, e.State)
		}
	}
	return states
}

// Revoking a token takes back what was made with it, unless it is asked to leave it.
func TestEnrollTokenRevoked(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	u, nobody := s.Root(), s.Nobody()
	two, tokenTwo := enrollToken(t, u, `{"maxUses":3,"ttlSeconds":3600,"name":"rack 7"}`)
	for range 2 {
		parseEnrolled(t, s, nobody.Do("GET", enrollNode, "", apiKeyHeader(tokenTwo.Key)))
	}
	if now := oneEnrollToken(t, u, two.ID); now.Uses != 2 || now.State != "valid" || now.Name != "rack 7" ||
		now.MaxUses != 3 {
		t.Errorf("twice of three: %+v", now)
	}
	u.Do("DELETE", enrollTokens+"/"+two.ID+"?keepEnrollments=true", "").Expect(t, "revoke and keep", 200,
		`{"result":{"message":"Enrollment token revoked","enrollments":0}}`)
	if got := statesOf(t, u, two.ID); !slices.Equal(got, []string{"valid", "valid"}) {
		t.Errorf("kept: %v", got)
	}
	if got := why(nobody.Do("GET", enrollNode, "", apiKeyHeader(tokenTwo.Key))); got != "API key: api key ["+
		two.ID+"] has been invalidated" {
		t.Errorf("revoked: %s", got)
	}
	u.Do("DELETE", enrollTokens+"/"+two.ID, "").Expect(t, "revoke all the same", 200,
		`{"result":{"message":"Enrollment token revoked","enrollments":2}}`)
	if got := statesOf(t, u, two.ID); !slices.Equal(got, []string{"revoked", "revoked"}) {
		t.Errorf("revoked with the token: %v", got)
	}
	u.Do("DELETE", enrollTokens+"/nothing", "").Expect(t, "revoke an unknown one", 404,
		`{"error":"Enrollment token not found"}`)
	u.Do("DELETE", enrollTokens+"/"+two.ID+"?keepEnrollments=x", "").Expect(t, "a bad flag", 400,
		`{"error":"keepEnrollments must be true or false"}`)
}

// What an enrollment token may be is checked.
func TestEnrollTokenFields(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	u := s.Root()
	for body, want := range map[string]string{
		`[]`:                   `{"error":"the body must be a JSON object"}`,
		`{"ttlSeconds":0}`:     `{"error":"ttlSeconds must be a whole number between 1 and 31622400"}`,
		`{"ttlSeconds":"1h"}`:  `{"error":"ttlSeconds must be a whole number between 1 and 31622400"}`,
		`{"maxUses":-1}`:       `{"error":"maxUses must be a whole number between 1 and 1000000"}`,
		`{"scope":"logstash"}`: `{"error":"scope must be node or kibana"}`,
		`{"name":"a\u0000b"}`:  `{"error":"name must not contain control characters"}`,
		`{"name":["a"]}`:       `{"error":"name must be a string"}`,
	} {
		u.Do("POST", enrollTokens, body).Expect(t, "create "+body, 400, want)
	}
}

// A token makes no tokens, however much scope enroll it has, and lives no longer than what has made it.
func TestEnrollTokenRights(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	u, nobody := s.Root(), s.Nobody()
	three, tokenThree := enrollToken(t, u, `{"maxUses":3}`)
	for _, r := range [][2]string{{"POST", enrollTokens}, {"GET", enrollTokens}, {"DELETE", enrollTokens + "/nothing"},
		{"GET", "/api/v1/cluster/enrollments"}} {
		nobody.Do(r[0], r[1], "", apiKeyHeader(tokenThree.Key)).Expect(t, r[0]+" "+r[1]+" with a token", 403,
			ellaForbidden)
	}
	if now := oneEnrollToken(t, u, three.ID); now.Uses != 0 {
		t.Errorf("its uses rose to %d", now.Uses)
	}
	reader := s.As(u.APIToken("reads only", "cluster:read", "cluster:manage").Token)
	reader.Do("POST", enrollTokens, "").Expect(t, "create without scope enroll", 403, ellaForbidden)
	short := sole.Get[api.APIToken](u, "POST", "/api/v1/api-tokens",
		`{"name":"short","scopes":["enroll"],"ttlSeconds":60}`)
	s.Secret("an API token", short.Token)
	if y, _ := enrollToken(t, s.As(short.Token),
		`{"ttlSeconds":3600}`); !y.ExpiresAt.Equal(short.ExpiresAt) {
		t.Errorf("made by a token that expires at %v, it expires at %v", short.ExpiresAt, y.ExpiresAt)
	}
	a := u.Do("POST", enrollTokens, `{"maxUses":2}`, "Idempotency-Key: twice")
	b := u.Do("POST", enrollTokens, `{"maxUses":2}`, "Idempotency-Key: twice")
	var same struct{ Result api.EnrollToken }
	if err := json.Unmarshal([]byte(a.Body), &same); err != nil || a.Status != 201 || a.Body != b.Body {
		t.Errorf("the same request again: %v, %v", a, b)
	}
	s.Secret("an enrollment token", same.Result.Token)
}

// TestEnrollRace: of many that use a token for one at the same time, through all members, one wins.
func TestEnrollRace(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	u := s.Root()
	x, token := enrollToken(t, u, "")
	var mu sync.Mutex
	var wait sync.WaitGroup
	seen := map[string]int{}
	for range 50 {
		nobody := s.Nobody()
		wait.Go(func() {
			a := nobody.Do("GET", enrollNode, "", apiKeyHeader(token.Key))
			mu.Lock()
			defer mu.Unlock()
			if a.Status == 200 {
				seen["200"]++
			} else {
				seen[why(a)]++
			}
		})
	}
	wait.Wait()
	if used := "API key: api key [" + x.ID + "] has already been used"; seen["200"] != 1 || seen[used] != 49 {
		t.Errorf("the answers were %v", seen)
	}
}
