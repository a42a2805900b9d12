package e2e

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/certs"
	"muster/client"
)

var errNotYet = errors.New("not yet")

func (u *user) enrollTokens(t *testing.T, m *member) []client.EnrollToken {
	t.Helper()
	return get[[]client.EnrollToken](t, u, m, "GET", enrollTokens, "")
}

func (u *user) oneEnrollToken(t *testing.T, m *member, id string) client.EnrollToken {
	t.Helper()
	list := u.enrollTokens(t, m)
	i := slices.IndexFunc(list, func(x client.EnrollToken) bool { return x.ID == id })
	if i < 0 {
		t.Fatalf("enrollment token %s is not listed", id)
	}
	return list[i]
}

// why is what a 401 says of an API key.
func why(a answer) string {
	var e struct {
		Error struct {
			Type, Reason string
			Additional   string `json:"additional_unsuccessful_credentials"`
		}
	}
	_ = json.Unmarshal([]byte(a.body), &e)
	if a.status != 401 || e.Error.Type != "security_exception" ||
		e.Error.Reason != "unable to authenticate with provided credentials and anonymous access is not allowed for this "+
			"request" {
		return a.String()
	}
	return e.Error.Additional
}

// testEnrollSettings: settings have defaults, are checked, and change all or none.
func testEnrollSettings(t *testing.T, c *cluster) {
	u := c.admin(t)
	const defaults = `"audit.max_age":"2160h0m0s","audit.max_rows":200000,`
	const others = `"certificates.hosts":"none","enrollment.enabled":true,"enrollment.http_ca":"root",` +
		`"enrollment.key_type":"ecdsa","enrollment.lifetime":"8760h0m0s"`
	holds := func(what string) {
		t.Helper()
		a := u.do(c.members[1], "GET", settingsPath, "")
		if a.status != 200 || !strings.Contains(a.body, defaults) || !strings.Contains(a.body, others) {
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
		u.do(c.members[2], "PUT", settingsPath, body).expect(t, "settings "+body, 400, want)
	}
	if a := u.do(c.members[0], "PUT", settingsPath, `{"Enrollment.enabled":false}`); a.status != 400 ||
		!strings.HasPrefix(a.body, `{"error":"Enrollment.enabled is not a setting; did you mean enrollment.enabled?`) {
		t.Errorf("an unknown name: %v", a)
	}
	holds("after what was refused")
	u.set(t, c.members[2], `{"enrollment.enabled":false,"enrollment.key_type":"rsa4096"}`)
	if a := u.do(c.members[0], "GET", settingsPath, ""); !strings.Contains(a.body, `"enrollment.enabled":false`) ||
		!strings.Contains(a.body, `"enrollment.key_type":"rsa4096"`) {
		t.Errorf("after a change: %v", a)
	}
	u.set(t, c.members[1], `{"enrollment.enabled":null,"enrollment.key_type":null,"enrollment.http_ca":null}`)
	holds("after null")
	reader := c.as(t, u.apiToken(t, c.members[0], "settings reader", "cluster:read").Token)
	if a := reader.do(c.members[0], "GET", settingsPath, ""); a.status != 200 {
		t.Errorf("cluster:read reads: %v", a)
	}
	reader.do(c.members[0], "PUT", settingsPath, `{}`).expect(t, "cluster:read writes", 403, ellaForbidden)
}

// testEnrollTokens: what a token says, how often it can be used and what ends it.
func testEnrollTokens(t *testing.T, c *cluster) {
	u, nobody := c.admin(t), c.nobody(t)
	x, token := u.enrollToken(t, c.members[1], "")
	var adr []string
	for _, m := range c.members {
		adr = append(adr, m.api)
	}
	if !slices.Equal(token.Addresses, adr) || token.Version == "" || !strings.HasPrefix(token.Key, x.ID+":") ||
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
		if a := nobody.do(c.members[2], "GET", path, "", key); a.status != 400 && a.status != 403 {
			t.Errorf("%s: %v", path, a)
		}
	}
	u.set(t, c.members[0], `{"enrollment.enabled":false}`)
	if a := nobody.do(c.members[1], "GET", enrollNode, "", key); a.status != 403 {
		t.Errorf("while enrollment is off: %v", a)
	}
	u.set(t, c.members[0], `{"enrollment.enabled":null}`)
	if now := u.oneEnrollToken(t, c.members[0], x.ID); now.Uses != 0 || now.State != "valid" {
		t.Errorf("after refusals: %+v", now)
	}
	// The same request again is the same enrollment; another one is refused.
	first := parseEnrolled(t, c, nobody.do(c.members[1], "GET", enrollNode, "", key, "Idempotency-Key: one"))
	again := parseEnrolled(t, c, nobody.do(c.members[2], "GET", enrollNode+"?human", "", key, "Idempotency-Key: one"))
	if string(first.TransportKey) != string(again.TransportKey) ||
		string(first.TransportCert) != string(again.TransportCert) {
		t.Error("a repeated request was given another certificate")
	}
	used := "API key: api key [" + x.ID + "] has already been used"
	for _, m := range c.members {
		if got := why(nobody.do(m, "GET", enrollNode, "", key)); got != used {
			t.Errorf("used again: %s", got)
		}
		if got := why(nobody.do(m, "GET", enrollNode, "", key, "Idempotency-Key: two")); got != used {
			t.Errorf("used again as another request: %s", got)
		}
	}
	now := u.oneEnrollToken(t, c.members[0], x.ID)
	if now.Uses != 1 || now.State != "used" {
		t.Errorf("after its use: %+v", now)
	}
	made := func(id string) (states []string) {
		for _, e := range u.enrollments(t, c.members[0]) {
			if e.TokenID == id {
				states = append(states, e.State)
			}
		}
		return states
	}
	if got := made(x.ID); !slices.Equal(got, []string{"valid"}) {
		t.Errorf("its enrollments are %v", got)
	}
	// Revoking takes back what was made, unless it is asked to leave it.
	two, tokenTwo := u.enrollToken(t, c.members[0], `{"maxUses":3,"ttlSeconds":3600,"name":"rack 7"}`)
	for i := range 2 {
		parseEnrolled(t, c, nobody.do(c.members[i], "GET", enrollNode, "", apiKeyHeader(tokenTwo.Key)))
	}
	if now := u.oneEnrollToken(t, c.members[0], two.ID); now.Uses != 2 || now.State != "valid" || now.Name != "rack 7" ||
		now.MaxUses != 3 {
		t.Errorf("twice of three: %+v", now)
	}
	u.do(c.members[1], "DELETE", enrollTokens+"/"+two.ID+"?keepEnrollments=true", "").expect(t, "revoke and keep", 200,
		`{"result":{"message":"Enrollment token revoked","enrollments":0}}`)
	if got := made(two.ID); !slices.Equal(got, []string{"valid", "valid"}) {
		t.Errorf("kept: %v", got)
	}
	if got := why(nobody.do(c.members[2], "GET", enrollNode, "", apiKeyHeader(tokenTwo.Key))); got != "API key: api key ["+
		two.ID+"] has been invalidated" {
		t.Errorf("revoked: %s", got)
	}
	u.do(c.members[2], "DELETE", enrollTokens+"/"+two.ID, "").expect(t, "revoke all the same", 200,
		`{"result":{"message":"Enrollment token revoked","enrollments":2}}`)
	if got := made(two.ID); !slices.Equal(got, []string{"revoked", "revoked"}) {
		t.Errorf("revoked with the token: %v", got)
	}
	u.do(c.members[2], "DELETE", enrollTokens+"/nothing", "").expect(t, "revoke an unknown one", 404,
		`{"error":"Enrollment token not found"}`)
	u.do(c.members[2], "DELETE", enrollTokens+"/"+two.ID+"?keepEnrollments=x", "").expect(t, "a bad flag", 400,
		`{"error":"keepEnrollments must be true or false"}`)
	for body, want := range map[string]string{
		`[]`:                   `{"error":"the body must be a JSON object"}`,
		`{"ttlSeconds":0}`:     `{"error":"ttlSeconds must be a whole number between 1 and 31622400"}`,
		`{"ttlSeconds":"1h"}`:  `{"error":"ttlSeconds must be a whole number between 1 and 31622400"}`,
		`{"maxUses":-1}`:       `{"error":"maxUses must be a whole number between 1 and 1000000"}`,
		`{"scope":"logstash"}`: `{"error":"scope must be node or kibana"}`,
		`{"name":"a\u0000b"}`:  `{"error":"name must not contain control characters"}`,
		`{"name":["a"]}`:       `{"error":"name must be a string"}`,
	} {
		u.do(c.members[1], "POST", enrollTokens, body).expect(t, "create "+body, 400, want)
	}
	// A token makes no tokens, however much scope enroll it has.
	three, tokenThree := u.enrollToken(t, c.members[0], `{"maxUses":3}`)
	for _, r := range [][2]string{{"POST", enrollTokens}, {"GET", enrollTokens}, {"DELETE", enrollTokens + "/" + x.ID},
		{"GET", "/api/v1/cluster/enrollments"}} {
		nobody.do(c.members[1], r[0], r[1], "", apiKeyHeader(tokenThree.Key)).expect(t, r[0]+" "+r[1]+" with a token", 403,
			ellaForbidden)
	}
	if now := u.oneEnrollToken(t, c.members[0], three.ID); now.Uses != 0 {
		t.Errorf("its uses rose to %d", now.Uses)
	}
	reader := c.as(t, u.apiToken(t, c.members[0], "reads only", "cluster:read", "cluster:manage").Token)
	reader.do(c.members[1], "POST", enrollTokens, "").expect(t, "create without scope enroll", 403, ellaForbidden)
	// A token lives no longer than what has made it.
	short := get[client.NewAPIToken](t, u, c.members[0], "POST", "/api/v1/api-tokens",
		`{"name":"short","scopes":["enroll"],"ttlSeconds":60}`)
	c.secret("an API token", short.Token)
	if y, _ := c.as(t, short.Token).enrollToken(t, c.members[0],
		`{"ttlSeconds":3600}`); !y.ExpiresAt.Equal(short.ExpiresAt) {
		t.Errorf("made by a token that expires at %v, it expires at %v", short.ExpiresAt, y.ExpiresAt)
	}
	a := u.do(c.members[0], "POST", enrollTokens, `{"maxUses":2}`, "Idempotency-Key: twice")
	b := u.do(c.members[1], "POST", enrollTokens, `{"maxUses":2}`, "Idempotency-Key: twice")
	var same struct{ Result client.NewEnrollToken }
	if err := json.Unmarshal([]byte(a.body), &same); err != nil || a.status != 201 || a.body != b.body {
		t.Errorf("the same request again: %v, %v", a, b)
	}
	c.secret("an enrollment token", same.Result.Token)
}

// testEnrollRace: of many that use a token for one at the same time, through all members, one wins.
func testEnrollRace(t *testing.T, c *cluster) {
	u := c.admin(t)
	x, token := u.enrollToken(t, c.members[0], "")
	var mu sync.Mutex
	var wait sync.WaitGroup
	seen := map[string]int{}
	for i := range 50 {
		nobody := c.nobody(t)
		wait.Go(func() {
			a := nobody.do(c.members[i%3], "GET", enrollNode, "", apiKeyHeader(token.Key))
			mu.Lock()
			defer mu.Unlock()
			if a.status == 200 {
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

// testAPIKeys: keys in the original's form are made, listed and invalidated as its clients do it.
func testAPIKeys(t *testing.T, c *cluster) {
	u, nobody := c.admin(t), c.nobody(t)
	a := u.do(c.members[1], "PUT", apiKeyPath+"?refresh=true",
		`{"name":"k1","expiration":"1d","metadata":{"rack":7},"role_descriptors":{"r":{"cluster":["manage_security",`+
			`"nonsense"],"indices":[]}}}`)
	var k1 createdKey
	decode(t, a, &k1)
	c.secret("the secret of an API key", k1.APIKey)
	if d := time.Until(time.UnixMilli(k1.Expiration)); k1.Name != "k1" || d > 24*time.Hour || d < 23*time.Hour {
		t.Errorf("%+v", k1)
	}
	if raw, _ := base64.StdEncoding.DecodeString(k1.Encoded); string(raw) != k1.ID+":"+k1.APIKey {
		t.Error("encoded is not id:api_key")
	}
	k2 := u.apiKey(t, c.members[2], `{"name":"k2"}`)
	if k2.Expiration != 0 {
		t.Errorf("a key without expiration expires at %d", k2.Expiration)
	}
	type info struct {
		ID, Name, Type, Username, Realm string
		Creation, Expiration            int64
		Invalidated                     bool
		Invalidation                    int64
		Metadata                        map[string]any
		RoleDescriptors                 map[string]any `json:"role_descriptors"`
	}
	find := func(query string) []info {
		t.Helper()
		var list struct {
			APIKeys []info `json:"api_keys"`
		}
		decode(t, u.do(c.members[1], "GET", apiKeyPath+query, ""), &list)
		return list.APIKeys
	}
	if got := find("?id=" + k1.ID); len(got) != 1 || got[0].Name != "k1" || got[0].Username != "admin" ||
		got[0].Invalidated || got[0].Expiration != k1.Expiration ||
		got[0].Metadata["rack"] != 7.0 ||
		fmt.Sprint(got[0].RoleDescriptors) != "map[r:map[cluster:[manage_security nonsense] indices:[]]]" {
		t.Errorf("by id: %+v", got)
	}
	names := func(list []info) (out []string) {
		for _, x := range list {
			out = append(out, x.Name)
		}
		slices.Sort(out)
		return out
	}
	if got := names(find("?name=k*")); !slices.Contains(got, "k1") || !slices.Contains(got, "k2") ||
		slices.Contains(got, "good") {
		t.Errorf("by name: %v", got)
	}
	if got := names(find("?owner=true&name=k1")); !slices.Equal(got, []string{"k1"}) {
		t.Errorf("own: %v", got)
	}
	if a := u.do(c.members[0], "GET", apiKeyPath+"?id=nothing", ""); a.status != 404 || a.body != `{"api_keys":[]}` {
		t.Errorf("unknown id: %v", a)
	}
	// Used as what it is, elsewhere too: this one has all that its maker has.
	if a := nobody.do(c.members[2], "GET", "/api/v1/cluster/members", "", k2.header()); a.status != 200 {
		t.Errorf("a key for the members: %v", a)
	}
	if a := nobody.do(c.members[2], "GET", "/api/v1/cluster/members", "", k1.header()); a.status != 403 {
		t.Errorf("a key for enrollments shows the members: %v", a)
	}
	invalidate := func(body, want string) {
		t.Helper()
		u.do(c.members[2], "DELETE", apiKeyPath, body).expect(t, "invalidate "+body, 200, want)
	}
	invalidate(`{"ids":["`+k1.ID+`","nothing"]}`, `{"invalidated_api_keys":["`+k1.ID+
		`"],"previously_invalidated_api_keys":[],"error_count":0}`)
	invalidate(`{"id":"`+k1.ID+`"}`, `{"invalidated_api_keys":[],"previously_invalidated_api_keys":["`+k1.ID+
		`"],"error_count":0}`)
	for _, m := range c.members {
		if got := why(nobody.do(m, "GET", enrollNode, "", k1.header())); got != "API key: api key ["+k1.ID+
			"] has been invalidated" {
			t.Errorf("an invalidated key: %s", got)
		}
	}
	if got := find("?id=" + k1.ID); len(got) != 1 || !got[0].Invalidated || got[0].Invalidation == 0 {
		t.Errorf("invalidated: %+v", got)
	}
	if got := names(find("?active_only=true&name=k*")); slices.Contains(got, "k1") || !slices.Contains(got, "k2") {
		t.Errorf("active: %v", got)
	}
	invalidate(`{"name":"k2","owner":true}`, `{"invalidated_api_keys":["`+k2.ID+
		`"],"previously_invalidated_api_keys":[],"error_count":0}`)
	if a := nobody.do(c.members[1], "GET", "/api/v1/cluster/members", "", k2.header()); a.status != 401 {
		t.Errorf("an invalidated key for the members: %v", a)
	}
	for name, x := range map[string][3]string{
		"api-key-no-body":         {"POST", "", ""},
		"api-key-not-json":        {"POST", "", "{"},
		"api-key-unknown-field":   {"POST", "", `{"name":"x","foo":1}`},
		"api-key-no-name":         {"POST", "", `{}`},
		"api-key-name-type":       {"POST", "", `{"name":1}`},
		"api-key-name-underscore": {"POST", "", `{"name":"_x"}`},
		"api-key-name-blank":      {"POST", "", `{"name":" x"}`},
		"api-key-expiration":      {"POST", "", `{"name":"x","expiration":"30"}`},
		"api-key-role":            {"POST", "", `{"name":"x","role_descriptors":{"r":{"cluster":"all"}}}`},
		"api-key-roles":           {"POST", "", `{"name":"x","role_descriptors":[]}`},
		"api-key-metadata":        {"POST", "", `{"name":"x","metadata":{"_a":1}}`},
		"invalidate-nothing":      {"DELETE", "", `{}`},
		"invalidate-both":         {"DELETE", "", `{"id":"a","ids":["b"]}`},
		"invalidate-empty":        {"DELETE", "", `{"ids":[]}`},
		"get-two-ways":            {"GET", "?id=a&username=b", ""},
	} {
		golden(t, name, u.do(c.members[len(name)%3], x[0], apiKeyPath+x[1], x[2]))
	}
}

// testAPIKeyPrivileges: a key has what its descriptors ask for as far as its maker has it, and keys make no more of
// themselves.
func testAPIKeyPrivileges(t *testing.T, c *cluster) {
	u, nobody := c.admin(t), c.nobody(t)
	token := u.apiToken(t, c.members[0], "enroller", "enroll")
	enroller := c.as(t, token.Token)
	const members, sql = "/api/v1/cluster/members", "/api/v1/api-tokens"
	for _, x := range []struct {
		by     *user
		roles  string
		status map[string]int
	}{
		{u, `{}`, map[string]int{enrollNode: 200, members: 200, sql: 200}},
		{u, `{"r":{}}`, map[string]int{enrollNode: 403, enrollKibana: 403, members: 403, "/": 200}},
		{u, `{"r":{"cluster":["all"]}}`, map[string]int{enrollNode: 200, members: 200, sql: 200}},
		{u, `{"r":{"cluster":["manage_security"]}}`,
			map[string]int{enrollNode: 200, enrollKibana: 200, members: 403, sql: 403}},
		{u, `{"r":{"cluster":["monitor"]}}`,
			map[string]int{enrollNode: 403, members: 200, sql: 403, "/_cluster/health": 200}},
		{u, `{"r":{"cluster":["cluster:admin/xpack/security/enroll/kibana"]}}`,
			map[string]int{enrollNode: 403, enrollKibana: 200}},
		{u, `{"r":{"cluster":["nonsense"]},"s":{"cluster":["manage_security"]}}`,
			map[string]int{enrollNode: 200, members: 403}},
		{u, `{"r":{"cluster":["nonsense"]}}`, map[string]int{enrollNode: 403}},
		{enroller, `{}`, map[string]int{enrollNode: 200, members: 403}},
		{enroller, `{"r":{"cluster":["all"]}}`, map[string]int{enrollNode: 200, members: 403, sql: 403}},
		{enroller, `{"r":{"cluster":["monitor","manage"]}}`, map[string]int{enrollNode: 403, members: 403}},
	} {
		key := x.by.apiKey(t, c.members[1], `{"name":"p","role_descriptors":`+x.roles+`}`)
		for path, want := range x.status {
			a := nobody.do(c.members[2], "GET", path, "", key.header())
			if a.status != want {
				t.Errorf("%s (made by the administrator: %v) for %s: %v, want %d", x.roles, x.by == u, path, a, want)
			}
			if a.status == 200 && path == enrollNode {
				parseEnrolled(t, c, a)
			}
		}
	}
	key := u.apiKey(t, c.members[0], `{"name":"mother"}`)
	golden(t, "derived-with-privileges", nobody.do(c.members[1], "POST", apiKeyPath, `{"name":"child"}`, key.header()))
	if a := nobody.do(c.members[1], "POST", apiKeyPath, `{"name":"child","role_descriptors":{"r":{"cluster":[]}}}`,
		key.header()); a.status != 200 {
		t.Errorf("a derived key without privileges: %v", a)
	}
	// Others' keys are the manager's business.
	own := enroller.apiKey(t, c.members[0], `{"name":"own"}`)
	golden(t, "keys-of-others", enroller.do(c.members[1], "GET", apiKeyPath, ""))
	golden(t, "invalidate-keys-of-others", enroller.do(c.members[1], "DELETE", apiKeyPath, `{"ids":["`+key.ID+`"]}`))
	enroller.do(c.members[2], "DELETE", apiKeyPath, `{"ids":["`+own.ID+`","`+key.ID+`"],"owner":true}`).expect(t,
		"invalidate own", 200,
		`{"invalidated_api_keys":["`+own.ID+`"],"previously_invalidated_api_keys":[],"error_count":0}`)
	if a := nobody.do(c.members[1], "GET", apiKeyPath+"?id="+key.ID, "", key.header()); a.status != 200 ||
		!strings.Contains(a.body, `"name":"mother"`) {
		t.Errorf("a key about itself: %v", a)
	}
	var self struct {
		Username string
		Type     string                    `json:"authentication_type"`
		APIKey   struct{ ID, Name string } `json:"api_key"`
	}
	decode(t, nobody.do(c.members[2], "GET", "/_security/_authenticate", "", key.header()), &self)
	if self.Username != "admin" || self.Type != "api_key" || self.APIKey.ID != key.ID || self.APIKey.Name != "mother" {
		t.Errorf("it is %+v", self)
	}
}

// testEnrollKibana: a service token that shows who is calling and opens nothing, and that goes with its enrollment.
func testEnrollKibana(t *testing.T, c *cluster) {
	u, nobody := c.admin(t), c.nobody(t)
	x, token := u.enrollToken(t, c.members[0], `{"scope":"kibana"}`)
	golden(t, "kibana-token-for-a-node", nobody.do(c.members[1], "GET", enrollNode, "", apiKeyHeader(token.Key)), x.ID)
	var k struct {
		Token  struct{ Name, Value string }
		HTTPCA []byte `json:"http_ca"`
	}
	a := nobody.do(c.members[2], "GET", enrollKibana, "", apiKeyHeader(token.Key))
	decode(t, a, &k)
	c.secret("a service token", k.Token.Value)
	root, err := certs.ParseCerts(c.members[0].read(t, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(k.Token.Name, "enroll-process-token-") || string(k.HTTPCA) != string(root[0].Raw) ||
		!strings.HasPrefix(a.body, `{"token":{"name":"enroll-process-token-`) {
		t.Errorf("the answer is %s", a.body)
	}
	if got := why(nobody.do(c.members[1], "GET", enrollKibana, "", apiKeyHeader(token.Key))); got != "API key: api key ["+
		x.ID+"] has already been used" {
		t.Errorf("used again: %s", got)
	}
	service := c.as(t, k.Token.Value)
	for path, want := range map[string]int{"/": 200, "/_cluster/health": 403, enrollNode: 403, enrollKibana: 403,
		apiKeyPath: 403, "/api/v1/cluster/members": 403, "/v1/operator/raft/configuration": 403} {
		if a := service.do(c.members[1], "GET", path, ""); a.status != want {
			t.Errorf("the service token for %s: %v, want %d", path, a, want)
		}
	}
	list := u.enrollments(t, c.members[0])
	last := list[len(list)-1]
	if last.Kind != "kibana" || last.TokenID != x.ID || last.ServiceTokenID == "" || last.TransportSerial != "" {
		t.Errorf("the list has %+v", last)
	}
	u.do(c.members[1], "DELETE", enrollTokens+"/"+x.ID, "").expect(t, "revoke", 200,
		`{"result":{"message":"Enrollment token revoked","enrollments":1}}`)
	if a := service.do(c.members[1], "GET", "/", ""); a.status != 401 {
		t.Errorf("the service token after that: %v", a)
	}
}

// testEnrollCLI: the commands, as scripts use them.
func testEnrollCLI(t *testing.T, c *cluster) {
	dir := c.members[0].dir
	out := muster(t, "enroll-token", "create", "--ttl", "1h", "--max-uses", "2", "--name", "from a script", "--data", dir)
	text := strings.TrimSuffix(out.stdout, "\n")
	token, err := certs.ParseEnrollToken(text)
	if out.code != 0 || err != nil || !strings.Contains(out.stderr, "can be used 2 times") ||
		!strings.Contains(out.stderr, "loopback") {
		t.Fatalf("create: %+v, %v", out, err)
	}
	c.secret("an enrollment token", text)
	id, secret, _ := strings.Cut(token.Key, ":")
	c.secret("the secret of an enrollment token", secret)
	// As a joining node does it: the first address, trusting who shows the fingerprint.
	host, port, err := net.SplitHostPort(token.Addresses[0])
	if err != nil || host != "127.0.0.1" || port == "" {
		t.Errorf("the first address is %s", token.Addresses[0])
	}
	conn, err := tls.Dial("tcp", token.Addresses[0], &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimPrefix(certs.Fingerprint(conn.ConnectionState().PeerCertificates[1].Raw),
		"sha256:"); got != token.Fingerprint {
		t.Errorf("the fingerprint is %s, the token's %s", got, token.Fingerprint)
	}
	conn.Close()
	parseEnrolled(t, c, c.nobody(t).do(c.members[0], "GET", enrollNode, "", apiKeyHeader(token.Key)))
	expect := func(code int, inStdout, inStderr string, args ...string) outcome {
		t.Helper()
		out := muster(t, append(args, "--data", dir)...)
		if out.code != code || !strings.Contains(out.stdout, inStdout) || !strings.Contains(out.stderr, inStderr) {
			t.Errorf("muster %v: %+v, want %d, %q, %q", args, out, code, inStdout, inStderr)
		}
		return out
	}
	expect(0, "1 of 2", "", "enroll-token", "list")
	expect(0, id, "", "enrollment", "list", "-o", "json")
	var list []client.EnrollToken
	if err := json.Unmarshal([]byte(expect(0, "", "", "enroll-token", "list", "-o", "json").stdout), &list); err != nil ||
		len(list) == 0 {
		t.Errorf("list -o json: %v", err)
	}
	expect(0, "", "is revoked, and 1 enrollment with it", "enroll-token", "revoke", id)
	expect(1, "", "Enrollment token not found (404)", "enroll-token", "revoke", "nothing")
	expect(1, "", "enrollment not found (404)", "enrollment", "revoke", "nothing")
	expect(2, "", "--scope", "enroll-token", "create", "--scope", "x")
	expect(2, "", "--ttl", "enroll-token", "create", "--ttl", "0s")
	expect(0, "enrollment.enabled       true", "", "settings", "get")
	expect(0, "true\n", "", "settings", "get", "enrollment.enabled")
	expect(0, "enrollment.enabled  false", "", "settings", "set", "enrollment.enabled=false")
	expect(0, "enrollment.enabled  true", "", "settings", "set", "enrollment.enabled=")
	expect(1, "", "enrollment.enabled must be true or false (400)", "settings", "set", "enrollment.enabled=perhaps")
	expect(1, "", "x is not a setting; use one of ", "settings", "get", "x")
	expect(2, "", "is not NAME=VALUE", "settings", "set", "x")
}
