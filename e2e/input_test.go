package e2e

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"muster/client"
)

// TestInput: every request gets an answer of its family, however wrong it is.
func TestInput(t *testing.T) {
	t.Parallel()
	onThree(t,
		part{"paths and methods", testPathsAndMethods},
		part{"queries", testQueries},
		part{"bodies", testBodies},
		part{"too large", testTooLarge},
		part{"raw requests", testRawRequests},
	)
}

// state is what a refused request must leave as it is: the members and the join tokens with their uses.
func (u *user) state(t *testing.T, m *member) string {
	t.Helper()
	tokens, err := json.Marshal(u.tokens(t, m))
	if err != nil {
		t.Fatal(err)
	}
	list := u.members(t, m)
	for i := range list {
		list[i] = steady(list[i])
	}
	members, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	apiTokens := u.do(m, "GET", "/api/v1/api-tokens", "")
	return string(members) + "\n" + string(tokens) + "\n" + apiTokens.body
}

// steady is a member without what changes by itself.
func steady(m client.Member) client.Member {
	m.Status, m.Role, m.Suffrage, m.IsLeader, m.DownSince, m.ZoneCost = "", "", "", false, time.Time{}, ""
	return m
}

// unchanged runs requests that must change nothing.
func unchanged(t *testing.T, c *cluster, run func(u *user)) {
	t.Helper()
	u := c.admin(t)
	m := c.leader(t)
	before := u.state(t, m)
	run(u)
	if after := u.state(t, m); after != before {
		t.Errorf("requests that were refused have changed something; before:\n%s\nafter:\n%s", before, after)
	}
}

// testPathsAndMethods: what nobody serves is refused in the envelope of the family whose prefix it bears.
func testPathsAndMethods(t *testing.T, c *cluster) {
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
		for _, u := range []*user{c.admin(t), c.nobody(t)} {
			m := c.members[len(x.path)%3]
			got := u.do(m, x.method, x.path, "")
			what := x.method + " " + x.path
			if x.body != "*" {
				got.expect(t, what, x.status, x.body)
				if kind := got.header.Get("Content-Type"); kind != "application/json" {
					t.Errorf("%s: Content-Type %q", what, kind)
				}
			} else if kind := got.header.Get("Content-Type"); got.status != x.status || kind != "" &&
				!strings.HasPrefix(kind, "text/plain") || strings.HasPrefix(got.body, "{") {
				t.Errorf("%s: %v (%s), want %d in plain text", what, got, kind, x.status)
			}
			if x.allow != "" && !strings.Contains(strings.Join(got.header.Values("Allow"), ","), x.allow) {
				t.Errorf("%s: Allow is %q, want %s in it", what, got.header.Values("Allow"), x.allow)
			}
		}
	}
}

// testQueries: the documented texts for malformed parameters; they come before the question of who is asking.
func testQueries(t *testing.T, c *cluster) {
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
		for i, u := range []*user{c.admin(t), c.nobody(t)} {
			a := u.do(c.members[i], "GET", path+"?"+x.query, "")
			a.expect(t, x.query, x.status, x.body)
			if kind := a.header.Get("Content-Type"); kind != "text/plain; charset=utf-8" {
				t.Errorf("%s: Content-Type %q", x.query, kind)
			}
		}
	}
	u := c.admin(t)
	for _, query := range []string{"stale", "stale=", "stale=true", "stale=1", "stale=t", "stale=false", "region=",
		"region=global", "namespace=x",
		"index=0&wait=10ms", "per_page=5&next_token=x&reverse=true&prefix=a&filter=b", "pretty=0"} {
		for _, m := range c.members {
			if a := u.do(m, "GET", path+"?"+query, ""); a.status != 200 || !strings.HasPrefix(a.body, `{"Index":`) {
				t.Errorf("?%s on node %d: %v", query, m.n, a)
			}
		}
	}
	for _, query := range []string{"pretty", "pretty=", "pretty=1", "pretty=false"} {
		if a := u.do(c.members[0], "GET", path+"?"+query, ""); !strings.HasPrefix(a.body, "{\n    \"Index\": ") ||
			!strings.HasSuffix(a.body, "}\n") {
			t.Errorf("?%s: %v", query, a)
		}
	}
}

// post lists the endpoints with a body, and what each says to one that is none.
var post = []struct{ path, family string }{
	{"/api/v1/cluster/join", "zlayer"},
	{"/api/v1/cluster/pki/join-tokens", "ella"},
	{"/api/v1/cluster/join-tokens", "ella"},
	{"/api/v1/api-tokens", "ella"},
	{"/api/v1/sql", "ella"},
}

// envelope checks that an error is in the shape of its family and gives nothing away.
func (a answer) envelope(t *testing.T, what, family string) string {
	t.Helper()
	var e struct{ Error, Message string }
	decoder := json.NewDecoder(strings.NewReader(a.body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&e); a.err != nil || err != nil || e.Error == "" ||
		(e.Message != "") != (family == "zlayer") {
		t.Errorf("%s: %v is not an error of the %s family", what, a, family)
	}
	for _, bad := range []string{"/tmp", "SELECT", "sqlite", "goroutine", "json:", "unmarshal", "strconv", ".go:"} {
		if strings.Contains(a.body, bad) {
			t.Errorf("%s: the text says too much: %s", what, a.body)
		}
	}
	if family == "zlayer" {
		return e.Message
	}
	return e.Error
}

// testBodies: bodies that are no JSON object.
func testBodies(t *testing.T, c *cluster) {
	bodies := map[string]string{
		"nothing": "", "blanks": " \n\t ", "a brace": "{", "half an object": `{"nodeID":`, "a word": "hello", "a number": "1",
		"a string": `"x"`,
		"null":     "null", "an array": "[]", "an array of objects": `[{"nodeID":5}]`, "broken UTF-8": "\xff\xfe{}",
		"a NUL":         "\x00",
		"single quotes": `{'nodeID':5}`, "a comment": `{/* */}`, "a very deep one": strings.Repeat(`{"a":`, 20_000) + "1" +
			strings.Repeat("}", 20_000),
		"XML": "<nodeID>5</nodeID>", "a form": "nodeID=5&ttlSeconds=300", "a lone surrogate key": `{"\ud800":`,
	}
	unchanged(t, c, func(u *user) {
		for _, x := range post {
			for name, body := range bodies {
				for _, m := range c.members[:2] {
					what := fmt.Sprintf("%s to %s on node %d", name, x.path, m.n)
					a := u.do(m, "POST", x.path, body, "Content-Type: application/json")
					if a.status != 400 && !(x.family == "zlayer" && a.status == 422) {
						t.Errorf("%s: %v", what, a)
						continue
					}
					a.envelope(t, what, x.family)
					if strings.HasSuffix(x.path, "/pki/join-tokens") && name != "a very deep one" &&
						a.body != `{"error":"decode body: the body must be a JSON object"}` {
						t.Errorf("%s: %v, want the documented `decode body` and why", what, a)
					}
				}
			}
		}
	})
}

// testTooLarge: a body over 1 MiB is refused without being read to its end, over either protocol.
func testTooLarge(t *testing.T, c *cluster) {
	large := `{"query":"` + strings.Repeat("x", 1<<20) + `"}`
	endless := func() io.Reader { return io.MultiReader(strings.NewReader(`{"query":"`), &zeros{left: 64 << 20}) }
	unchanged(t, c, func(u *user) {
		for _, x := range post {
			for _, m := range c.members[:2] {
				a := u.do(m, "POST", x.path, large)
				if a.status != 413 && a.status != 400 {
					t.Errorf("%s on node %d: %v", x.path, m.n, a)
					continue
				}
				a.envelope(t, x.path, x.family)
			}
		}
		old := c.admin(t)
		old.http.Transport.(*http.Transport).TLSClientConfig.NextProtos = []string{"http/1.1"}
		old.http.Transport.(*http.Transport).ForceAttemptHTTP2 = false
		for _, u := range []*user{u, old} {
			begin := time.Now()
			req, _ := http.NewRequest("POST", "https://"+c.members[0].api+"/api/v1/sql", endless())
			req.Header.Set("Authorization", "Bearer "+c.token)
			resp, err := u.http.Do(req)
			if err != nil {
				t.Errorf("64 MiB: %v", err)
				continue
			}
			resp.Body.Close()
			if resp.StatusCode != 413 && resp.StatusCode != 400 || late(begin, time.Since(begin), 5*time.Second) {
				t.Errorf("64 MiB over %s: %s after %v", resp.Proto, resp.Status, time.Since(begin))
			}
		}
		// Just below the limit it is the content that counts.
		a := u.do(c.members[0], "POST", "/api/v1/api-tokens", `{"name":"`+strings.Repeat("x", 1<<20-100)+
			`","scopes":["enroll"]}`)
		a.expect(t, "a name of nearly 1 MiB", 400, `{"error":"name must be a string of 1 to 64 bytes"}`)
	})
}

// zeros is a body that takes its time.
type zeros struct{ left int }

func (z *zeros) Read(p []byte) (int, error) {
	if z.left <= 0 {
		return 0, io.EOF
	}
	n := min(len(p), z.left)
	for i := range p[:n] {
		p[i] = '0'
	}
	z.left -= n
	return n, nil
}

// testRawRequests: what no HTTP client would send.
func testRawRequests(t *testing.T, c *cluster) {
	m := c.members[1]
	for _, x := range []struct {
		name, request string
		status        string // "": closed without an answer, or any 4xx
	}{
		{"no HTTP", "hello\r\n\r\n", "400"},
		{"a bad request line", "GET\r\n\r\n", "400"},
		{"no host", "GET /api/v1/status HTTP/1.1\r\n\r\n", "400"},
		{"two hosts", "GET /api/v1/status HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"},
		{"a header without a colon", "GET /api/v1/status HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n", "400"},
		{"a blank before the colon", "GET /api/v1/status HTTP/1.1\r\nHost: a\r\nX-Nomad-Token : a\r\n\r\n", "400"},
		{"a NUL in a header", "GET /api/v1/status HTTP/1.1\r\nHost: a\r\nX-Nomad-Token: a\x00b\r\n\r\n", "400"},
		{"a negative length", "POST /api/v1/sql HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", "400"},
		{"two lengths", "POST /api/v1/sql HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", "400"},
		{"a bad chunk",
			"POST /api/v1/cluster/join HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: " +
				"chunked\r\n\r\nzz\r\n", "400"},
		{"an unknown transfer encoding", "POST /api/v1/sql HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", "501"},
		{"huge headers", "GET /api/v1/status HTTP/1.1\r\nHost: a\r\nX-Large: " + strings.Repeat("a", 200_000) + "\r\n\r\n",
			"431"},
		{"a path that does not decode", "GET /api/v1/%zz HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		{"HTTP/0.9", "GET /api/v1/status\r\n\r\n", "400"},
		{"HTTP/1.0", "GET /api/v1/status HTTP/1.0\r\n\r\n", "200"},
		{"an absolute path", "GET https://elsewhere/api/v1/status HTTP/1.1\r\nHost: elsewhere\r\nConnection: close\r\n\r\n",
			"200"},
		{"a body that ends early",
			"POST /api/v1/cluster/join HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: " +
				"10\r\nConnection: close\r\n\r\n{}", ""},
	} {
		conn, err := tls.Dial("tcp", m.api,
			&tls.Config{RootCAs: pool(t, m.read(t, "ca.crt")), NextProtos: []string{"http/1.1"}})
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(8 * time.Second))
		_, _ = io.WriteString(conn, x.request)
		if x.status == "" {
			_ = conn.CloseWrite()
		}
		line := make([]byte, 12)
		_, err = io.ReadFull(conn, line)
		conn.Close()
		switch {
		case x.status == "" && err == nil && !strings.HasPrefix(string(line), "HTTP/1.1 4"),
			x.status != "" && (err != nil || string(line[9:]) != x.status):
			t.Errorf("%s: %q (%v), want %s", x.name, line, err, x.status)
		}
	}
	if !m.status(t).Ready {
		t.Error("the member is not ready any more")
	}
}
