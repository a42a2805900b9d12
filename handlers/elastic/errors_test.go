package elastic_test

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"muster/api"
	"muster/handlers/internal/sole"
	"muster/internal/await"
)

// enrollCredentials are those that the refusals are asked with.
type enrollCredentials struct {
	expired, revoked, revokedID string
	good, kibana                createdKey
	reader, enroller            api.APIToken
}

// enrollError is a request that is refused; the file of its name has the answer, in which ids are left out.
type enrollError struct {
	name, method, path, body string
	headers                  []string
	ids                      []string
}

func enrollErrors(admin string, k enrollCredentials) []enrollError {
	const vnd = "Accept: application/vnd.elasticsearch+json;compatible-with="
	return []enrollError{
		{"no-credentials", "GET", enrollNode, "", nil, nil},
		{"no-credentials-query", "GET", enrollNode + "?pretty=false&a=<b>", "", nil, nil},
		{"no-credentials-pretty", "GET", enrollNode + "?pretty", "", nil, nil},
		{"no-credentials-filtered", "GET", enrollNode + "?filter_path=status", "", nil, nil},
		{"no-credentials-vnd", "GET", enrollNode, "", []string{vnd + "8"}, nil},
		{"unknown-scheme", "GET", enrollNode, "", []string{"Authorization: Digest x"}, nil},
		{"empty-bearer", "GET", enrollNode, "", []string{"Authorization: Bearer"}, nil},
		{"wrong-bearer", "GET", enrollNode, "", []string{"Authorization: Bearer nonsense"}, nil},
		{"wrong-user", "GET", enrollNode, "", []string{basicHeader("bob", "nonsense")}, nil},
		{"wrong-user-right-password", "GET", enrollNode, "", []string{basicHeader("bob", admin)}, nil},
		{"key-expired", "GET", enrollNode, "", []string{apiKeyHeader(k.expired)}, nil},
		{"key-revoked", "GET", enrollNode, "", []string{apiKeyHeader(k.revoked)}, []string{k.revokedID}},
		{"key-unknown", "GET", enrollNode, "", []string{apiKeyHeader("nobody:x")}, nil},
		{"key-wrong-secret", "GET", enrollNode, "", []string{apiKeyHeader(k.good.ID + ":x")}, []string{k.good.ID}},
		{"key-wrong-secret-of-a-token", "GET", enrollNode, "", []string{apiKeyHeader(k.reader.ID + ":x")},
			[]string{k.reader.ID}},
		{"key-not-base64", "GET", enrollNode, "", []string{"Authorization: ApiKey a:b"}, nil},
		{"key-cut-off", "GET", enrollNode, "", []string{"Authorization: ApiKey YTpiY"}, nil},
		{"key-without-colon", "GET", enrollNode, "",
			[]string{"Authorization: apikey " + base64.StdEncoding.EncodeToString([]byte("abc"))}, nil},
		{"key-empty", "GET", enrollNode, "", []string{"Authorization: ApiKey"}, nil},
		{"user-not-privileged", "GET", enrollNode, "", []string{basicHeader(k.reader.ID, k.reader.Token)}, nil},
		{"key-not-privileged", "GET", enrollNode, "", []string{k.kibana.header()}, []string{k.kibana.ID}},
		{"unknown-parameter", "GET", enrollNode + "?foo=1", "", []string{k.good.header()}, nil},
		{"unknown-parameters", "GET", enrollNode + "?foo=1&bar", "", []string{k.good.header()}, nil},
		{"bad-flag", "GET", enrollNode + "?pretty=yes", "", []string{k.good.header()}, nil},
		{"parameter-before-privilege", "GET", enrollNode + "?foo=1", "", []string{k.kibana.header()}, nil},
		{"credentials-before-parameter", "GET", enrollNode + "?foo=1", "", nil, nil},
		{"body", "GET", enrollNode, "{}", []string{k.good.header()}, nil},
		{"body-type", "GET", enrollNode, "x", []string{k.good.header(), "Content-Type: text/plain"}, nil},
		{"body-no-type", "GET", enrollNode, "x", []string{k.good.header(), "Content-Type: "}, nil},
		{"accept-10", "GET", enrollNode, "", []string{k.good.header(), vnd + "10"}, nil},
		{"accept-6-nobody", "GET", enrollNode, "", []string{"Accept: application/vnd.elasticsearch+json; compatible-with=6"},
			nil},
		{"content-type-6", "POST", apiKeyPath, `{"name":"x"}`,
			[]string{k.good.header(), "Content-Type: application/vnd.elasticsearch+json;compatible-with=6"}, nil},
		{"post", "POST", enrollNode, "", nil, nil},
		{"put-with-query", "PUT", enrollNode + "?pretty=false", "{}", []string{k.good.header()}, nil},
		{"delete-pretty", "DELETE", enrollNode + "?pretty", "", nil, nil},
		{"api-key-patch", "PATCH", apiKeyPath, "", nil, nil},
		{"options", "OPTIONS", enrollNode, "", nil, nil},
		{"options-api-key", "OPTIONS", apiKeyPath, "", nil, nil},
		{"no-handler", "GET", "/_security/nothing?x=1", "", []string{k.good.header()}, nil},
		{"no-handler-slash", "GET", enrollNode + "//", "", []string{k.good.header()}, nil},
		{"root-nobody", "GET", "/", "", nil, nil},
		{"health-not-privileged", "GET", "/_cluster/health", "", []string{basicHeader("alice", k.enroller.Token)}, nil},
		{"health-parameter", "GET", "/_cluster/health?index=x", "", []string{basicHeader("admin", admin)}, nil},
	}
}

// TestEnrollErrors: each documented refusal, word for word, through the leader and through others. None of them enrolls
// anybody.
func TestEnrollErrors(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	admin := s.Root()
	before := len(enrollments(t, admin))
	// The expired one is made first, so that it has expired when it is asked for.
	expired, expiredKey := enrollToken(t, admin, `{"ttlSeconds":1}`)
	revoked, revokedKey := enrollToken(t, admin, "")
	if a := admin.Do("DELETE", enrollTokens+"/"+revoked.ID, ""); a.Status != 200 ||
		a.Body != `{"result":{"message":"Enrollment token revoked","enrollments":0}}` {
		t.Errorf("revoke: %v", a)
	}
	kibana := apiKey(t, admin,
		`{"name":"kibana","role_descriptors":{"r":{"cluster":["cluster:admin/xpack/security/enroll/kibana"]}}}`)
	reader := admin.APIToken("bob", "cluster:read")
	enroller := admin.APIToken("alice", "enroll")
	good := apiKey(t, admin,
		`{"name":"good","role_descriptors":{"r":{"cluster":["cluster:admin/xpack/security/enroll/node"]}}}`)
	await.NoError(t, "the token expires", func() error {
		for _, x := range listEnrollTokens(t, admin) {
			if x.ID == expired.ID && x.State != "expired" {
				return errors.New("not yet")
			}
		}
		return nil
	})
	for _, x := range enrollErrors(s.Admin,
		enrollCredentials{expiredKey.Key, revokedKey.Key, revoked.ID, good, kibana, reader, enroller}) {
		u := s.Nobody()
		for range 2 { // each of the pair
			a := u.Do(x.method, x.path, x.body, x.headers...)
			golden(t, x.name, a, x.ids...)
			if a.Status == 405 || x.method == "OPTIONS" {
				if allow := a.Header.Get("Allow"); allow != "GET" && allow != "POST,PUT,GET,DELETE" {
					t.Errorf("%s: Allow is %q", x.name, allow)
				}
			}
		}
	}
	if a := s.Nobody().Do("HEAD", enrollNode, ""); a.Status != 405 || a.Header.Get("Allow") != "GET" {
		t.Errorf("HEAD: %v", a)
	}
	// Off is off for everybody that is somebody, before it is asked who may.
	set(t, admin, `{"enrollment.enabled":false}`)
	for _, path := range []string{enrollNode, enrollKibana} {
		for _, header := range []string{good.header(), kibana.header(), basicHeader("bob", reader.Token)} {
			golden(t, "disabled", s.Nobody().Do("GET", path, "", header))
		}
		golden(t, "disabled-parameter-"+path[len("/_security/enroll/"):],
			s.Nobody().Do("GET", path+"?foo", "", good.header()))
	}
	set(t, admin, `{"enrollment.enabled":true}`)
	if after := len(enrollments(t, admin)); after != before {
		t.Errorf("%d refused requests have enrolled somebody", after-before)
	}
	for _, scheme := range []string{"APIKey", "ApiKey", "apikey", "APIKEY"} {
		parseEnrolled(t, s, s.Nobody().Do("GET", enrollNode, "", "Authorization: "+scheme+" "+good.Encoded))
	}
	parseEnrolled(t, s, s.Nobody().Do("GET", enrollNode, "", basicHeader("alice", enroller.Token)))
	if n := strings.Count(strings.Join(s.Nobody().Do("GET", enrollNode,
		"").Header.Values("WWW-Authenticate"), "|"), "|"); n != 2 {
		t.Errorf("%d challenges", n+1)
	}
}
