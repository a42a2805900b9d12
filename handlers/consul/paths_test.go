package consul_test

import (
	"fmt"
	"strings"
	"testing"

	"muster/handlers/internal/sole"
)

// TestPaths: the answers to each path and method, word for word.
func TestPaths(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	u := s.Root()
	for _, x := range []struct {
		method, path string
		status       int
		body, header string
	}{
		{"GET", "/v1/peering/", 400, "Must specify a name to fetch.", ""},
		{"DELETE", "/v1/peering/", 400, "Must specify a name to fetch.", ""},
		{"GET", "/v1/peering", 307, "", "Location: /v1/peering/"},
		{"POST", "/v1/peering?x=1", 307, "", "Location: /v1/peering/?x=1"},
		{"GET", "//v1/peerings", 307, "", "Location: /v1/peerings"},
		{"GET", "/v1/peerings/", 404, "Invalid URL path: not a recognized HTTP API endpoint\n",
			"X-Consul-Default-Acl-Policy: "},
		{"GET", "/v1/peering/foo/", 404, `Peering not found for "foo/"`, "X-Consul-Index: "},
		{"GET", "/v1/peering/foo/bar", 404, `Peering not found for "foo/bar"`, ""},
		{"GET", "/v1/peering/foo%2Fbar", 404, `Peering not found for "foo/bar"`, ""},
		{"GET", "/v1/peering/NOBODY", 404, `Peering not found for "NOBODY"`, "X-Consul-Default-Acl-Policy: deny"},
		{"GET", "/v1/peering/foo%01", 400, "", ""},
		{"GET", "/v1/peerings?token=%zz", 400, "", ""},
		{"PUT", "/v1/peering/foo", 405, "method PUT not allowed", "Allow: OPTIONS,GET,DELETE"},
		{"GET", "/v1/peering/token", 405, "method GET not allowed", "Allow: OPTIONS,POST"},
		{"DELETE", "/v1/peering/establish", 405, "method DELETE not allowed", "Allow: OPTIONS,POST"},
		{"POST", "/v1/peerings", 405, "method POST not allowed", "Allow: OPTIONS,GET"},
		{"OPTIONS", "/v1/peering/token", 200, "", "Allow: OPTIONS,POST"},
		{"OPTIONS", "/v1/peering/foo", 200, "", "Allow: OPTIONS,GET,DELETE"},
		{"OPTIONS", "/v1/peerings", 200, "", "Allow: OPTIONS,GET"},
		{"HEAD", "/v1/peerings", 405, "", "Allow: OPTIONS,GET"},
		{"DELETE", "/v1/peering/nobody", 200, "", "Content-Length: 0"},
		{"GET", "/v1/peerings", 200, "[]", "Content-Type: application/json"},
		{"GET", "/v1/peerings?pretty", 200, "[]\n", "Vary: Accept-Encoding"},
		{"GET", "/v1/peerings?stale&consistent", 400, "Cannot specify ?stale with ?consistent, conflicting semantics.",
			"Content-Type: text/plain; charset=utf-8"},
		{"GET", "/v1/peerings?stale&dc=nowhere&near=x&ns=y&cached&leader", 200, "[]",
			"X-Consul-Query-Backend: blocking-query"},
		{"GET", "/v1/peerings?wait=x", 400, "Invalid wait time", "X-Consul-Default-Acl-Policy: deny"},
		{"GET", "/v1/peering/foo?index=-1", 400, "Invalid index", ""},
		{"GET", "/v1/peerings?max_stale=zz", 400, `Invalid max_stale value "zz"`, ""},
		{"GET", "/v1/peerings?partition=default", 400,
			`Invalid query parameter: "partition" - Partitions are a Consul Enterprise feature`, ""},
		{"DELETE", "/v1/peering/foo?partition=foo", 400,
			`Invalid query parameter: "partition" - Partitions are a Consul Enterprise feature`, ""},
		{"GET", "/v1/peerings?partition=", 200, "[]", "X-Consul-Knownleader: true"},
	} {
		for range 2 {
			got := u.Do(x.method, x.path, "")
			what := x.method + " " + x.path
			got.Expect(t, what, x.status, x.body)
			if name, want, _ := strings.Cut(x.header, ": "); name != "" && got.Header.Get(name) != want {
				t.Errorf("%s: %s is %q, want %q", what, name, got.Header.Get(name), want)
			}
		}
	}
	for header, want := range map[string]string{
		"X-Consul-Partition: default": `Invalid header: "X-Consul-Partition" - Partitions are a Consul Enterprise feature`,
		"Cache-Control: max-age=x":    "Invalid Cache-Control header.",
	} {
		u.Do("GET", "/v1/peerings", "", header).Expect(t, header, 400, want)
	}
	if got := u.Do("GET", "/v1/peerings?filter=Name+==", ""); got.Status != 400 {
		t.Errorf("a filter with a mistake: %v", got)
	}
}

// TestRights: who may read and write peerings, and what the others are told.
func TestRights(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	u := s.Root()
	reader := u.APIToken("reader", "peering:read")
	writer := u.APIToken("writer", "peering:write")
	other := u.APIToken("other", "cluster:manage")
	anonymous := "Permission denied: anonymous token lacks permission '%s'. The anonymous token is used implicitly when " +
		"a request does not specify a token."
	lacks := "Permission denied: token with AccessorID '%s' lacks permission '%s'"
	read, write := "GET /v1/peering/nobody", "DELETE /v1/peering/nobody"
	for _, x := range []struct {
		what, call, header, query string
		status                    int
		body                      string
	}{
		{"nobody reads", read, "", "", 403, fmt.Sprintf(anonymous, "peering:read")},
		{"nobody writes", write, "", "", 403, fmt.Sprintf(anonymous, "peering:write")},
		{"anonymous", read, "X-Consul-Token: anonymous", "", 403, fmt.Sprintf(anonymous, "peering:read")},
		{"basic", read, "Authorization: Basic YTpi", "", 403, fmt.Sprintf(anonymous, "peering:read")},
		{"unknown", read, "X-Consul-Token: nope", "", 403, "ACL not found"},
		{"reader reads", read, "X-Consul-Token: " + reader.Token, "", 404, `Peering not found for "nobody"`},
		{"reader writes", write, "X-Consul-Token: " + reader.Token, "", 403, fmt.Sprintf(lacks, reader.ID, "peering:write")},
		{"writer reads", read, "Authorization: bearer   " + writer.Token + " more", "", 404,
			`Peering not found for "nobody"`},
		{"writer writes", write, "X-Consul-Token: " + writer.Token, "", 200, ""},
		{"another right", read, "X-Consul-Token: " + other.Token, "", 403, fmt.Sprintf(lacks, other.ID, "peering:read")},
		{"in the query", read, "", "?token=" + reader.Token, 404, `Peering not found for "nobody"`},
		{"the query counts first", read, "X-Consul-Token: " + reader.Token, "?token=nope", 403, "ACL not found"},
		{"the header counts before bearer", read, "X-Consul-Token: nope", "", 403, "ACL not found"},
	} {
		method, path, _ := strings.Cut(x.call, " ")
		u := s.Nobody()
		var headers []string
		if x.header != "" {
			headers = append(headers, x.header)
		}
		u.Do(method, path+x.query, "", headers...).Expect(t, x.what, x.status, x.body)
	}
	// The query is for this family alone.
	if got := s.Nobody().Do("GET", "/api/v1/cluster/members?token="+s.Admin, ""); got.Status != 401 {
		t.Errorf("a token in the query of another family: %v", got)
	}
}
