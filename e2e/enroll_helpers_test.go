package e2e

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"muster/certs"
	"muster/client"
	"muster/internal/enrolled"
)

const (
	enrollNode   = "/_security/enroll/node"
	enrollKibana = "/_security/enroll/kibana"
	apiKeyPath   = "/_security/api_key"
	enrollTokens = "/api/v1/cluster/enrollment-tokens"
	settingsPath = "/api/v1/cluster/settings"
)

// parseEnrolled takes an answer apart, and remembers that its keys must not be found anywhere.
func parseEnrolled(t *testing.T, c *cluster, a answer) *enrolled.Material {
	t.Helper()
	if a.err != nil || a.status != 200 {
		t.Fatalf("enroll: %v", a)
	}
	e := enrolled.Parse(t, a.body)
	for what, key := range map[string][]byte{"an HTTP authority's key": e.HTTPCAKey, "a transport key": e.TransportKey} {
		c.secret(what+" in DER", string(key))
		c.secret(what, base64.StdEncoding.EncodeToString(key))
	}
	return e
}

// enrollToken makes an enrollment token and takes it apart.
func (u *user) enrollToken(t *testing.T, m *member, body string) (client.NewEnrollToken, certs.EnrollToken) {
	t.Helper()
	x := get[client.NewEnrollToken](t, u, m, "POST", enrollTokens, body)
	token, err := certs.ParseEnrollToken(x.Token)
	if err != nil {
		t.Fatal(err)
	}
	_, secret, _ := strings.Cut(token.Key, ":")
	u.cluster.secret("an enrollment token", x.Token)
	u.cluster.secret("the secret of an enrollment token", secret)
	return x, token
}

// apiKeyHeader is how the key of a token is shown.
func apiKeyHeader(key string) string {
	return "Authorization: ApiKey " + base64.StdEncoding.EncodeToString([]byte(key))
}

// createdKey is the answer of POST /_security/api_key.
type createdKey struct {
	ID, Name   string
	Expiration int64
	APIKey     string `json:"api_key"`
	Encoded    string
}

func (u *user) enrollments(t *testing.T, m *member) []client.Enrollment {
	t.Helper()
	return get[[]client.Enrollment](t, u, m, "GET", "/api/v1/cluster/enrollments", "")
}

func basicHeader(user, password string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func decode(t *testing.T, a answer, v any) {
	t.Helper()
	if a.err != nil || a.status != 200 {
		t.Fatalf("%v", a)
	}
	if err := json.Unmarshal([]byte(a.body), v); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
}

var errNotYet = errors.New("not yet")

func (u *user) enrollTokens(t *testing.T, m *member) []client.EnrollToken {
	t.Helper()
	return get[[]client.EnrollToken](t, u, m, "GET", enrollTokens, "")
}

func (u *user) apiKey(t *testing.T, m *member, body string) (k createdKey) {
	t.Helper()
	a := u.do(m, "POST", apiKeyPath, body)
	if err := json.Unmarshal([]byte(a.body), &k); a.err != nil || a.status != 200 || err != nil {
		t.Fatalf("create an API key: %v", a)
	}
	u.cluster.secret("the secret of an API key", k.APIKey)
	return k
}
