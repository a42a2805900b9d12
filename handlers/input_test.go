package handlers_test

import (
	"fmt"
	"strings"
	"testing"

	"muster/handlers/internal/sole"
)

// TestPathsAndMethods: what nobody serves is refused in the envelope of the family whose prefix it bears.
func TestPathsAndMethods(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	for _, x := range []struct {
		method, path string
		status       int
		body         string // "*": plain text, whatever it says
		allow        string
	}{
		{"GET", "/_security", 400, `{"error":"no handler found for uri [/_security] and method [GET]"}`, ""},
		{"GET", "/_nothing?x", 400, `{"error":"no handler found for uri [/_nothing?x] and method [GET]"}`, ""},
		{"POST", "/", 405,
			`{"error":"Incorrect HTTP method for uri [/] and method [POST], allowed: [GET, HEAD]","status":405}`, "GET"},
		{"GET", "/api/v1/nothing", 404, `{"error":"there is nothing at this path"}`, ""},
		{"GET", "/api/v1/cluster", 404, `{"error":"there is nothing at this path"}`, ""},
		{"GET", "/api/v1/cluster/members//", 404, `{"error":"there is nothing at this path"}`, ""},
		{"GET", "/api/v1//cluster/members", 404, `{"error":"there is nothing at this path"}`, ""},
		{"GET", "/api/v1/cluster/../cluster/members", 404, `{"error":"there is nothing at this path"}`, ""},
		{"GET", "/API/V1/STATUS", 404, `{"error":"there is nothing at this path"}`, ""},
		{"GET", "/internal/probe", 404, `{"error":"there is nothing at this path"}`, ""},
		{"DELETE", "/api/v1/cluster/join-tokens/a/b", 404, `{"error":"there is nothing at this path"}`, ""},
		{"POST", "/api/v1/cluster/join/x", 404, `{"error":"not_found","message":"Not found: there is nothing at this path"}`,
			""},
		{"GET", "/v1/nothing", 404, "*", ""},
		{"GET", "/v1/operator/raft/nothing", 404, "*", ""},
		{"POST", "/api/v1/status", 405, `{"error":"the method POST is not allowed here"}`, "GET"},
		{"DELETE", "/api/v1/cluster/members", 405, `{"error":"the method DELETE is not allowed here"}`, "GET"},
		{"PUT", "/api/v1/cluster/join-tokens", 405, `{"error":"the method PUT is not allowed here"}`, "POST"},
		{"GET", "/api/v1/cluster/pki/join-tokens", 405, `{"error":"the method GET is not allowed here"}`, "POST"},
		{"PATCH", "/api/v1/api-tokens", 405, `{"error":"the method PATCH is not allowed here"}`, "POST"},
		{"GET", "/api/v1/sql", 405, `{"error":"the method GET is not allowed here"}`, "POST"},
		{"GET", "/api/v1/cluster/join", 405,
			`{"error":"method_not_allowed","message":"Method not allowed: the method GET is not allowed here"}`, "POST"},
		{"POST", "/v1/operator/raft/configuration", 405, "*", "GET"},
		{"DELETE", "/v1/operator/raft/configuration", 405, "*", "GET"},
		{"PUT", "/v1/operator/raft/configuration", 405, "*", "GET"},
	} {
		for _, u := range []*sole.User{s.Root(), s.Nobody()} {
			got := u.Do(x.method, x.path, "")
			what := x.method + " " + x.path
			if x.body != "*" {
				got.Expect(t, what, x.status, x.body)
				if kind := got.Header.Get("Content-Type"); kind != "application/json" {
					t.Errorf("%s: Content-Type %q", what, kind)
				}
			} else if kind := got.Header.Get("Content-Type"); got.Status != x.status || kind != "" &&
				!strings.HasPrefix(kind, "text/plain") || strings.HasPrefix(got.Body, "{") {
				t.Errorf("%s: %v (%s), want %d in plain text", what, got, kind, x.status)
			}
			if x.allow != "" && !strings.Contains(strings.Join(got.Header.Values("Allow"), ","), x.allow) {
				t.Errorf("%s: Allow is %q, want %s in it", what, got.Header.Values("Allow"), x.allow)
			}
		}
	}
}

// TestQueries: the documented texts for malformed parameters; they come before the question of who is asking.
func TestQueries(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	const path = "/v1/operator/raft/configuration"
	for _, x := range []struct {
		query  string
		status int
		body   string
	}{
		{"stale=random", 400, "Expect `true` or `false` for `stale` query string parameter"},
		{"wait=abc", 400, "Invalid wait time"},
		{"index=abc", 400, "Invalid index"},
		{"per_page=x", 400, "Expect a number for `per_page` query string parameter"},
		{"region=nope", 500, "No path to region"},
	} {
		for _, u := range []*sole.User{s.Root(), s.Nobody()} {
			a := u.Do("GET", path+"?"+x.query, "")
			a.Expect(t, x.query, x.status, x.body)
			if kind := a.Header.Get("Content-Type"); kind != "text/plain; charset=utf-8" {
				t.Errorf("%s: Content-Type %q", x.query, kind)
			}
		}
	}
	u := s.Root()
	for _, query := range []string{"stale", "stale=", "stale=true", "stale=1", "stale=t", "stale=false", "region=",
		"region=global", "namespace=x",
		"index=0&wait=10ms", "per_page=5&next_token=x&reverse=true&prefix=a&filter=b", "pretty=0"} {
		for range 2 {
			if a := u.Do("GET", path+"?"+query, ""); a.Status != 200 || !strings.HasPrefix(a.Body, `{"Index":`) {
				t.Errorf("?%s: %v", query, a)
			}
		}
	}
	for _, query := range []string{"pretty", "pretty=", "pretty=1", "pretty=false"} {
		if a := u.Do("GET", path+"?"+query, ""); !strings.HasPrefix(a.Body, "{\n    \"Index\": ") ||
			!strings.HasSuffix(a.Body, "}\n") {
			t.Errorf("?%s: %v", query, a)
		}
	}
}

// bodied lists endpoints with a body, and their families.
var bodied = []struct{ path, family string }{
	{"/api/v1/cluster/join", "zlayer"},
	{"/api/v1/cluster/pki/join-tokens", "ella"},
	{"/api/v1/cluster/join-tokens", "ella"},
	{"/api/v1/api-tokens", "ella"},
	{"/api/v1/sql", "ella"},
}

// TestBodies: bodies that are no JSON object.
func TestBodies(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	bodies := map[string]string{
		"nothing": "", "blanks": " \n\t ", "a brace": "{", "half an object": `{"nodeID":`, "a word": "hello", "a number": "1",
		"a string": `"x"`,
		"null":     "null", "an array": "[]", "an array of objects": `[{"nodeID":5}]`, "broken UTF-8": "\xff\xfe{}",
		"a NUL":         "\x00",
		"single quotes": `{'nodeID':5}`, "a comment": `{/* */}`, "a very deep one": strings.Repeat(`{"a":`, 20_000) + "1" +
			strings.Repeat("}", 20_000),
		"XML": "<nodeID>5</nodeID>", "a form": "nodeID=5&ttlSeconds=300", "a lone surrogate key": `{"\ud800":`,
	}
	s.Unchanged(func(u *sole.User) {
		for _, x := range bodied {
			for name, body := range bodies {
				for range 2 {
					what := fmt.Sprintf("%s to %s", name, x.path)
					a := u.Do("POST", x.path, body, "Content-Type: application/json")
					if a.Status != 400 && !(x.family == "zlayer" && a.Status == 422) {
						t.Errorf("%s: %v", what, a)
						continue
					}
					a.Envelope(t, what, x.family)
					if strings.HasSuffix(x.path, "/pki/join-tokens") && name != "a very deep one" &&
						a.Body != `{"error":"decode body: the body must be a JSON object"}` {
						t.Errorf("%s: %v, want the documented `decode body` and why", what, a)
					}
				}
			}
		}
	})
}

// TestTooLarge: a body over 1 MiB is refused without being read to its end.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	large := `{"query":"` + strings.Repeat("x", 1<<20) + `"}`
	s.Unchanged(func(u *sole.User) {
		for _, x := range bodied {
			for range 2 {
				a := u.Do("POST", x.path, large)
				if a.Status != 413 && a.Status != 400 {
					t.Errorf("%s: %v", x.path, a)
					continue
				}
				a.Envelope(t, x.path, x.family)
			}
		}
		// Just below the limit it is the content that counts.
		a := u.Do("POST", "/api/v1/api-tokens", `{"name":"`+strings.Repeat("x", 1<<20-100)+
			`","scopes":["enroll"]}`)
		a.Expect(t, "a name of nearly 1 MiB", 400, `{"error":"name must be a string of 1 to 64 bytes"}`)
	})
}
