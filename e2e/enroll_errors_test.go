package e2e

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"log"
	"strings"
	"testing"

	"muster/client"
)

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

func discardLog() *log.Logger { return log.New(io.Discard, "", 0) }

// enrollCredentials are those that the refusals are asked with.
type enrollCredentials struct {
	expired, revoked, revokedID string
	good, kibana                createdKey
	reader, enroller            client.NewAPIToken
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

// testEnrollErrors: each documented refusal, word for word, through the leader and through others. None of them enrolls
// anybody.
func testEnrollErrors(t *testing.T, c *cluster) {
	admin := c.admin(t)
	before := len(admin.enrollments(t, c.members[0]))
	// The expired one is made first, so that it has expired when it is asked for.
	expired, expiredKey := admin.enrollToken(t, c.members[0], `{"ttlSeconds":1}`)
	revoked, revokedKey := admin.enrollToken(t, c.members[1], "")
	if a := admin.do(c.members[0], "DELETE", enrollTokens+"/"+revoked.ID, ""); a.status != 200 ||
		a.body != `{"result":{"message":"Enrollment token revoked","enrollments":0}}` {
		t.Errorf("revoke: %v", a)
	}
	kibana := admin.apiKey(t, c.members[0],
		`{"name":"kibana","role_descriptors":{"r":{"cluster":["cluster:admin/xpack/security/enroll/kibana"]}}}`)
	reader := admin.apiToken(t, c.members[0], "bob", "cluster:read")
	enroller := admin.apiToken(t, c.members[0], "alice", "enroll")
	good := admin.apiKey(t, c.members[0],
		`{"name":"good","role_descriptors":{"r":{"cluster":["cluster:admin/xpack/security/enroll/node"]}}}`)
	eventually(t, formed, "the token expires", func() error {
		for _, x := range admin.enrollTokens(t, c.members[0]) {
			if x.ID == expired.ID && x.State != "expired" {
				return errNotYet
			}
		}
		return nil
	})
	for _, x := range enrollErrors(c.token,
		enrollCredentials{expiredKey.Key, revokedKey.Key, revoked.ID, good, kibana, reader, enroller}) {
		u := c.nobody(t)
		for _, m := range c.members {
			a := u.do(m, x.method, x.path, x.body, x.headers...)
			golden(t, x.name, a, x.ids...)
			if a.status == 405 || x.method == "OPTIONS" {
				if allow := a.header.Get("Allow"); allow != "GET" && allow != "POST,PUT,GET,DELETE" {
					t.Errorf("%s: Allow is %q", x.name, allow)
				}
			}
		}
	}
	if a := c.nobody(t).do(c.members[1], "HEAD", enrollNode, ""); a.status != 405 || a.header.Get("Allow") != "GET" {
		t.Errorf("HEAD: %v", a)
	}
	// Off is off for everybody that is somebody, before it is asked who may.
	admin.set(t, c.members[0], `{"enrollment.enabled":false}`)
	for _, path := range []string{enrollNode, enrollKibana} {
		for i, header := range []string{good.header(), kibana.header(), basicHeader("bob", reader.Token)} {
			golden(t, "disabled", c.nobody(t).do(c.members[i], "GET", path, "", header))
		}
		golden(t, "disabled-parameter-"+path[len("/_security/enroll/"):],
			c.nobody(t).do(c.members[0], "GET", path+"?foo", "", good.header()))
	}
	admin.set(t, c.members[0], `{"enrollment.enabled":true}`)
	if after := len(admin.enrollments(t, c.members[0])); after != before {
		t.Errorf("%d refused requests have enrolled somebody", after-before)
	}
	for i, scheme := range []string{"APIKey", "ApiKey", "apikey", "APIKEY"} {
		parseEnrolled(t, c, c.nobody(t).do(c.members[i%3], "GET", enrollNode, "", "Authorization: "+scheme+" "+good.Encoded))
	}
	parseEnrolled(t, c, c.nobody(t).do(c.members[1], "GET", enrollNode, "", basicHeader("alice", enroller.Token)))
	if n := strings.Count(strings.Join(c.nobody(t).do(c.members[1], "GET", enrollNode,
		"").header.Values("WWW-Authenticate"), "|"), "|"); n != 2 {
		t.Errorf("%d challenges", n+1)
	}
}
