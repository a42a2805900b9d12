package handlers

import (
	"bufio"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var variable = regexp.MustCompile(`\{[^}]*\}`)

// somePath is one that the route answers; whether there is anything at it does not matter.
func somePath(rt *Route) string {
	if rt.Family.Name == "ui" {
		return strings.ReplaceAll(rt.Path, "{file}", "app.js")
	}
	return variable.ReplaceAllString(rt.Path, "1")
}

// TestHead walks every route of GET: HEAD has the same status and headers and no body, where no original says otherwise.
func TestHead(t *testing.T) {
	s := newTestServer(t)
	base := "http://" + s.serving()
	ask := func(method, path string) (*http.Response, []byte) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, base+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+s.admin)
		resp, err := (&http.Client{Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(r)
		if err != nil {
			t.Fatal(method, path, err)
		}
		defer resp.Body.Close()
		if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") && method == "GET" {
			line, err := bufio.NewReader(resp.Body).ReadString('\n')
			if err != nil {
				t.Error(method, path, err)
			}
			return resp, []byte(line)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Error(method, path, err)
		}
		return resp, body
	}
	for _, rt := range s.Routes() {
		if rt.Method != "GET" {
			continue
		}
		path := somePath(rt)
		head, none := ask("HEAD", path)
		if len(none) != 0 {
			t.Errorf("HEAD %s has a body", path)
		}
		if !rt.Heads() {
			if head.StatusCode != 405 {
				t.Errorf("HEAD %s: %d, as the reference says 405", path, head.StatusCode)
			}
			continue
		}
		get, body := ask("GET", path)
		if get.StatusCode != head.StatusCode {
			t.Errorf("%s: GET %d, HEAD %d", path, get.StatusCode, head.StatusCode)
		}
		for _, h := range []http.Header{get.Header, head.Header} {
			h.Del("Date")
		}
		length := head.Header.Get("Content-Length")
		get.Header.Del("Content-Length")
		head.Header.Del("Content-Length")
		keys := func(h http.Header) []string { return slices.Sorted(maps.Keys(h)) }
		if !slices.Equal(keys(get.Header), keys(head.Header)) || get.Header.Get("Content-Type") != head.Header.Get("Content-Type") {
			t.Errorf("%s: GET has %v, HEAD %v", path, get.Header, head.Header)
		}
		if n, _ := strconv.Atoi(length); rt.Stream != (length == "") || !rt.Stream && (n == 0) != (len(body) == 0) {
			t.Errorf("%s: HEAD says %q, GET has %d bytes", path, length, len(body))
		}
	}
}

// TestSlash walks every route of every family: a slash behind the path changes nothing, where no original says otherwise.
func TestSlash(t *testing.T) {
	s := newTestServer(t)
	n := 0
	for name, listener := range map[string]http.Handler{"api": s.API(), "plain": s.Plain(), "internal": s.Internal()} {
		for _, rt := range s.Routes() {
			path := somePath(rt)
			if rt.Family.Name == "consul" || path == "/ui" || strings.HasSuffix(path, "/") || rt.Stream || name == "plain" && !rt.Plain {
				continue
			}
			n++
			ask := func(target string) *httptest.ResponseRecorder {
				r := httptest.NewRequest(rt.Method, target, http.NoBody)
				r.RemoteAddr = "192.0.2." + strconv.Itoa(n%250+1) + ":1" // or the limit of failures would answer
				if rt.Method == "GET" && !rt.Keyed {
					r.Header.Set("Authorization", "Bearer "+s.admin)
				}
				w := httptest.NewRecorder()
				listener.ServeHTTP(w, r)
				return w
			}
			bare, slash := ask(path+"?x=1"), ask(path+"/?x=1")
			if bare.Code != slash.Code || bare.Header().Get("Content-Type") != slash.Header().Get("Content-Type") {
				t.Errorf("%s: %s %s: %d, with a slash %d %s", name, rt.Method, path, bare.Code, slash.Code, slash.Body)
			}
			if rt.Method != "GET" && bare.Body.String() != slash.Body.String() {
				t.Errorf("%s: %s %s: %s, with a slash %s", name, rt.Method, path, bare.Body, slash.Body)
			}
		}
	}
	for path, want := range map[string]string{
		"/api/v1/nothing/": "404 ", "/api/v1/status//": "404 ", "/v1/nothing/": "404 ", "/_nothing/": `400 {"error":"no handler found for uri [/_nothing/] and method [GET]"}`,
		"/_security/api_key/x/": "400 ", "/v1/peerings/": "404 Invalid URL path: not a recognized HTTP API endpoint\n", "/v1/peering/x/": `404 Peering not found for "x/"`,
		"/api/v1/api-tokens/1/": "405 ",
	} {
		w := s.call("GET", path, s.admin, "")
		if got := strconv.Itoa(w.Code) + " " + w.Body.String(); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

// TestRootAllows: the method that is not allowed is answered with those that are, HEAD among them.
func TestRootAllows(t *testing.T) {
	s := newTestServer(t)
	w := s.call("POST", "/", s.admin, "")
	if want := `{"error":"Incorrect HTTP method for uri [/] and method [POST], allowed: [GET, HEAD]","status":405}`; w.Code != 405 || w.Body.String() != want {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestMintedBodies: what cannot be decoded is refused with the documented words, the field and the rule.
func TestMintedBodies(t *testing.T) {
	s := newTestServer(t)
	const (
		object = "the body must be a JSON object"
		node   = "nodeID must be a whole number between 1 and 9007199254740991"
		ttl    = "ttlSeconds must be a whole number between 300 and 86400"
	)
	for body, why := range map[string]string{"": object, " ": object, "{": object, "null": object, "[]": object, "1": object, `"x"`: object, "\xff": object,
		`{"nodeID":"12"}`: node, `{"NODEID":"12"}`: node, `{"nodeID":1.5}`: node, `{"nodeID":[1]}`: node, `{"nodeID":{}}`: node, `{"nodeID":true}`: node,
		`{"nodeID":1e400}`: node, `{"nodeID":"12","ttlSeconds":"x"}`: node, `{"nodeID":12,"ttlSeconds":"600"}`: ttl, `{"ttlSeconds":{}}`: ttl, `{"nodeID":12,"ttlSeconds":1e99}`: ttl} {
		w := s.call("POST", "/api/v1/cluster/pki/join-tokens", s.admin, body)
		if want := `{"error":"decode body: ` + why + `"}`; w.Code != 400 || w.Body.String() != want {
			t.Errorf("%s: %d %s, want %s", body, w.Code, w.Body, want)
		}
	}
}

// TestElasticVersions: every endpoint of the family names the version that it does not speak, where it reads one.
func TestElasticVersions(t *testing.T) {
	s := newTestServer(t)
	for _, rt := range s.Routes() {
		if rt.Family.Name != "elastic" {
			continue
		}
		method, path, name := rt.Method, rt.Path, rt.Method+" "+rt.Path
		for _, version := range []string{"6", "10", "99", "x"} {
			kind := "application/vnd.elasticsearch+json;compatible-with=" + version
			w := s.call(method, path, s.admin, "", "Accept", kind)
			if why := `"reason":"Accept version must be either version 9 or 8, but found ` + version + ". Accept=" + kind + `"`; w.Code != 400 || strings.Count(w.Body.String(), why) < 2 {
				t.Errorf("%s: %d %s", name, w.Code, w.Body)
			}
			if !rt.Changes() {
				continue
			}
			w = s.call(method, path, s.admin, "{}", "Content-Type", kind)
			if why := `"reason":"Content-Type version must be either version 9 or 8, but found ` + version + ". Content-Type=" + kind + `"`; w.Code != 400 || strings.Count(w.Body.String(), why) < 2 {
				t.Errorf("%s: %d %s", name, w.Code, w.Body)
			}
		}
	}
}
