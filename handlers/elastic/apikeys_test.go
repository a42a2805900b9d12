package elastic_test

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/handlers/internal/sole"
)

// TestAPIKeys: keys in the original's form are made, listed and invalidated as its clients do it.
func TestAPIKeys(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	u, nobody := s.Root(), s.Nobody()
	a := u.Do("PUT", apiKeyPath+"?refresh=true",
		`{"name":"k1","expiration":"1d","metadata":{"rack":7},"role_descriptors":{"r":{"cluster":["manage_security",`+
			`"nonsense"],"indices":[]}}}`)
	var k1 createdKey
	decode(t, a, &k1)
	s.Secret("the secret of an API key", k1.APIKey)
	if d := time.Until(time.UnixMilli(k1.Expiration)); k1.Name != "k1" || d > 24*time.Hour || d < 23*time.Hour {
		t.Errorf("%+v", k1)
	}
	if raw, _ := base64.StdEncoding.DecodeString(k1.Encoded); string(raw) != k1.ID+":"+k1.APIKey {
		t.Error("encoded is not id:api_key")
	}
	k2 := apiKey(t, u, `{"name":"k2"}`)
	if k2.Expiration != 0 {
		t.Errorf("a key without expiration expires at %d", k2.Expiration)
	}
	if got := findKeys(t, u, "?id="+k1.ID); len(got) != 1 || got[0].Name != "k1" || got[0].Username != "admin" ||
		got[0].Invalidated || got[0].Expiration != k1.Expiration ||
		got[0].Metadata["rack"] != 7.0 ||
		fmt.Sprint(got[0].RoleDescriptors) != "map[r:map[cluster:[manage_security nonsense] indices:[]]]" {
		t.Errorf("by id: %+v", got)
	}
	if got := namesOf(findKeys(t, u, "?name=k*")); !slices.Contains(got, "k1") || !slices.Contains(got, "k2") ||
		slices.Contains(got, "good") {
		t.Errorf("by name: %v", got)
	}
	if got := namesOf(findKeys(t, u, "?owner=true&name=k1")); !slices.Equal(got, []string{"k1"}) {
		t.Errorf("own: %v", got)
	}
	if a := u.Do("GET", apiKeyPath+"?id=nothing", ""); a.Status != 404 || a.Body != `{"api_keys":[]}` {
		t.Errorf("unknown id: %v", a)
	}
	// Used as what it is, elsewhere too: this one has all that its maker has.
	if a := nobody.Do("GET", "/api/v1/cluster/members", "", k2.header()); a.Status != 200 {
		t.Errorf("a key for the members: %v", a)
	}
	if a := nobody.Do("GET", "/api/v1/cluster/members", "", k1.header()); a.Status != 403 {
		t.Errorf("a key for enrollments shows the members: %v", a)
	}
}

// keyInfo is a key as GET /_security/api_key shows it.
type keyInfo struct {
	ID, Name, Type, Username, Realm string
	Creation, Expiration            int64
	Invalidated                     bool
	Invalidation                    int64
	Metadata                        map[string]any
	RoleDescriptors                 map[string]any `json:"role_descriptors"`
}

func findKeys(t *testing.T, u *sole.User, query string) []keyInfo {
	t.Helper()
	var list struct {
		APIKeys []keyInfo `json:"api_keys"`
	}
	decode(t, u.Do("GET", apiKeyPath+query, ""), &list)
	return list.APIKeys
}

func namesOf(list []keyInfo) (out []string) {
	for _, x := range list {
		out = append(out, x.Name)
	}
	slices.Sort(out)
	return out
}

// An invalidated key is no key, and the answer names those that were keys until then.
func TestInvalidateAPIKeys(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	u, nobody := s.Root(), s.Nobody()
	k1, k2 := apiKey(t, u, `{"name":"k1"}`), apiKey(t, u, `{"name":"k2"}`)
	invalidate := func(body, want string) {
		t.Helper()
		u.Do("DELETE", apiKeyPath, body).Expect(t, "invalidate "+body, 200, want)
	}
	invalidate(`{"ids":["`+k1.ID+`","nothing"]}`, `{"invalidated_api_keys":["`+k1.ID+
		`"],"previously_invalidated_api_keys":[],"error_count":0}`)
	invalidate(`{"id":"`+k1.ID+`"}`, `{"invalidated_api_keys":[],"previously_invalidated_api_keys":["`+k1.ID+
		`"],"error_count":0}`)
	for range 2 {
		if got := why(nobody.Do("GET", enrollNode, "", k1.header())); got != "API key: api key ["+k1.ID+
			"] has been invalidated" {
			t.Errorf("an invalidated key: %s", got)
		}
	}
	if got := findKeys(t, u, "?id="+k1.ID); len(got) != 1 || !got[0].Invalidated || got[0].Invalidation == 0 {
		t.Errorf("invalidated: %+v", got)
	}
	if got := namesOf(findKeys(t, u, "?active_only=true&name=k*")); slices.Contains(got, "k1") ||
		!slices.Contains(got, "k2") {
		t.Errorf("active: %v", got)
	}
	invalidate(`{"name":"k2","owner":true}`, `{"invalidated_api_keys":["`+k2.ID+
		`"],"previously_invalidated_api_keys":[],"error_count":0}`)
	if a := nobody.Do("GET", "/api/v1/cluster/members", "", k2.header()); a.Status != 401 {
		t.Errorf("an invalidated key for the members: %v", a)
	}
}

// What is wrong with a request about keys is said word for word.
func TestAPIKeyRefusals(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	u := s.Root()
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
		golden(t, name, u.Do(x[0], apiKeyPath+x[1], x[2]))
	}
}

// TestAPIKeyPrivileges: a key has what its descriptors ask for as far as its maker has it, and keys make no more of
// themselves.
func TestAPIKeyPrivileges(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	u, nobody := s.Root(), s.Nobody()
	token := u.APIToken("enroller", "enroll")
	enroller := s.As(token.Token)
	const members, sql = "/api/v1/cluster/members", "/api/v1/api-tokens"
	for _, x := range []struct {
		by     *sole.User
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
		key := apiKey(t, x.by, `{"name":"p","role_descriptors":`+x.roles+`}`)
		for path, want := range x.status {
			a := nobody.Do("GET", path, "", key.header())
			if a.Status != want {
				t.Errorf("%s (made by the administrator: %v) for %s: %v, want %d", x.roles, x.by == u, path, a, want)
			}
			if a.Status == 200 && path == enrollNode {
				parseEnrolled(t, s, a)
			}
		}
	}
	key := apiKey(t, u, `{"name":"mother"}`)
	golden(t, "derived-with-privileges", nobody.Do("POST", apiKeyPath, `{"name":"child"}`, key.header()))
	if a := nobody.Do("POST", apiKeyPath, `{"name":"child","role_descriptors":{"r":{"cluster":[]}}}`,
		key.header()); a.Status != 200 {
		t.Errorf("a derived key without privileges: %v", a)
	}
	// Others' keys are the manager's business.
	own := apiKey(t, enroller, `{"name":"own"}`)
	golden(t, "keys-of-others", enroller.Do("GET", apiKeyPath, ""))
	golden(t, "invalidate-keys-of-others", enroller.Do("DELETE", apiKeyPath, `{"ids":["`+key.ID+`"]}`))
	enroller.Do("DELETE", apiKeyPath, `{"ids":["`+own.ID+`","`+key.ID+`"],"owner":true}`).Expect(t,
		"invalidate own", 200,
		`{"invalidated_api_keys":["`+own.ID+`"],"previously_invalidated_api_keys":[],"error_count":0}`)
	if a := nobody.Do("GET", apiKeyPath+"?id="+key.ID, "", key.header()); a.Status != 200 ||
		!strings.Contains(a.Body, `"name":"mother"`) {
		t.Errorf("a key about itself: %v", a)
	}
	var self struct {
		Username string
		Type     string                    `json:"authentication_type"`
		APIKey   struct{ ID, Name string } `json:"api_key"`
	}
	decode(t, nobody.Do("GET", "/_security/_authenticate", "", key.header()), &self)
	if self.Username != "admin" || self.Type != "api_key" || self.APIKey.ID != key.ID || self.APIKey.Name != "mother" {
		t.Errorf("it is %+v", self)
	}
}
