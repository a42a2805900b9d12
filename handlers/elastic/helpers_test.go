package elastic_test

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"muster/api"
	"muster/certs"
	"muster/handlers/internal/sole"
	"muster/internal/enrolled"
)

const (
	enrollNode   = "/_security/enroll/node"
	enrollKibana = "/_security/enroll/kibana"
	apiKeyPath   = "/_security/api_key"
	enrollTokens = "/api/v1/cluster/enrollment-tokens"
	settingsPath = "/api/v1/cluster/settings"

	ellaForbidden = `{"error":"Forbidden"}` // of our own endpoints
)

// parseEnrolled takes an answer apart, and remembers that its keys must be in no file.
func parseEnrolled(t *testing.T, s *sole.Member, a sole.Answer) *enrolled.Material {
	t.Helper()
	if a.Status != 200 {
		t.Fatalf("enroll: %v", a)
	}
	e := enrolled.Parse(t, a.Body)
	for what, key := range map[string][]byte{"an HTTP authority's key": e.HTTPCAKey, "a transport key": e.TransportKey} {
		s.Secret(what+" in DER", string(key))
		s.Secret(what, base64.StdEncoding.EncodeToString(key))
	}
	return e
}

// enrollToken makes an enrollment token and takes it apart.
func enrollToken(t *testing.T, u *sole.User, body string) (api.EnrollToken, certs.EnrollToken) {
	t.Helper()
	x := sole.Get[api.EnrollToken](u, "POST", enrollTokens, body)
	token, err := certs.ParseEnrollToken(x.Token)
	if err != nil {
		t.Fatal(err)
	}
	_, secret, _ := strings.Cut(token.Key, ":")
	u.Secret("an enrollment token", x.Token)
	u.Secret("the secret of an enrollment token", secret)
	return x, token
}

// apiKeyHeader is how the key of a token is shown.
func apiKeyHeader(key string) string {
	return "Authorization: ApiKey " + base64.StdEncoding.EncodeToString([]byte(key))
}

func basicHeader(user, password string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func decode(t *testing.T, a sole.Answer, v any) {
	t.Helper()
	if a.Status != 200 {
		t.Fatalf("%v", a)
	}
	if err := json.Unmarshal([]byte(a.Body), v); err != nil {
		t.Fatalf("%v: %s", err, a.Body)
	}
}

// createdKey is the answer of POST /_security/api_key.
type createdKey struct {
	ID, Name   string
	Expiration int64
	APIKey     string `json:"api_key"`
	Encoded    string
}

func (k createdKey) header() string { return "Authorization: ApiKey " + k.Encoded }

func apiKey(t *testing.T, u *sole.User, body string) (k createdKey) {
	t.Helper()
	a := u.Do("POST", apiKeyPath, body)
	if err := json.Unmarshal([]byte(a.Body), &k); a.Status != 200 || err != nil {
		t.Fatalf("create an API key: %v", a)
	}
	u.Secret("the secret of an API key", k.APIKey)
	return k
}

func set(t *testing.T, u *sole.User, body string) {
	t.Helper()
	if a := u.Do("PUT", settingsPath, body); a.Status != 200 {
		t.Fatalf("settings %s: %v", body, a)
	}
}

func enrollments(t *testing.T, u *sole.User) []api.Enrollment {
	t.Helper()
	return sole.Get[[]api.Enrollment](u, "GET", "/api/v1/cluster/enrollments", "")
}

func listEnrollTokens(t *testing.T, u *sole.User) []api.EnrollToken {
	t.Helper()
	return sole.Get[[]api.EnrollToken](u, "GET", enrollTokens, "")
}

func oneEnrollToken(t *testing.T, u *sole.User, id string) api.EnrollToken {
	t.Helper()
	list := listEnrollTokens(t, u)
	i := slices.IndexFunc(list, func(x api.EnrollToken) bool { return x.ID == id })
	if i < 0 {
		t.Fatalf("enrollment token %s is not listed", id)
	}
	return list[i]
}

// why is what a 401 says of an API key.
func why(a sole.Answer) string {
	var e struct {
		Error struct {
			Type, Reason string
			Additional   string `json:"additional_unsuccessful_credentials"`
		}
	}
	_ = json.Unmarshal([]byte(a.Body), &e)
	if a.Status != 401 || e.Error.Type != "security_exception" ||
		e.Error.Reason != "unable to authenticate with provided credentials and anonymous access is not allowed for this "+
			"request" {
		return a.String()
	}
	return e.Error.Additional
}

// rootCA is the cluster's HTTP authority.
func rootCA(t *testing.T, s *sole.Member) *x509.Certificate {
	t.Helper()
	list, err := certs.ParseCerts([]byte(s.Query("SELECT cert_pem FROM authorities WHERE kind = 'http'")))
	if err != nil {
		t.Fatal(err)
	}
	return list[0]
}

// golden compares an answer with the file of that name; ids in it are {id}. MUSTER_GOLDEN=write writes the files again.
func golden(t *testing.T, name string, a sole.Answer, ids ...string) {
	t.Helper()
	got := a.Body
	for i, id := range ids {
		got = strings.ReplaceAll(got, id, fmt.Sprintf("{id%d}", i+1))
	}
	got = fmt.Sprintf("%d %s\n%s", a.Status, a.Header.Get("Content-Type"), got)
	file := filepath.Join("testdata", name+".txt")
	if os.Getenv("MUSTER_GOLDEN") == "write" {
		if err := os.WriteFile(file, []byte(got+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got+"\n" != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
	if p := a.Header.Get("X-Elastic-Product"); p != "Elasticsearch" {
		t.Errorf("%s: X-Elastic-Product is %q", name, p)
	}
	if a.Status == 401 {
		challenges := strings.Join(a.Header.Values("WWW-Authenticate"), "; ")
		if challenges != `Basic realm="security", charset="UTF-8"; Bearer realm="security"; ApiKey` {
			t.Errorf("%s: WWW-Authenticate is %s", name, challenges)
		}
	}
}
