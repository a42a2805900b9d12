package handlers_test

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

	"muster/handlers"
	"muster/handlers/internal/sole"
)

var variable = regexp.MustCompile(`\{[^}]*\}`)

// somePath is one that the route answers; whether there is anything at it does not matter.
func somePath(rt *handlers.Route) string {
	if rt.Family.Name == "ui" {
		return strings.ReplaceAll(rt.Path, "{file}", "app.js")
	}
	return variable.ReplaceAllString(rt.Path, "1")
}

// TestHead walks every route of GET: HEAD has the same status and headers and no body, where no original says
// otherwise.
func TestHead(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	base := "http://" + s.Serving()
	ask := func(method, path string) (*http.Response, []byte) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, base+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+s.Admin)
		resp, err := (&http.Client{Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		}}).Do(r)
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
		if !slices.Equal(keys(get.Header), keys(head.Header)) ||
			get.Header.Get("Content-Type") != head.Header.Get("Content-Type") {
			t.Errorf("%s: GET has %v, HEAD %v", path, get.Header, head.Header)
		}
		if n, _ := strconv.Atoi(length); rt.Stream != (length == "") || !rt.Stream && (n == 0) != (len(body) == 0) {
			t.Errorf("%s: HEAD says %q, GET has %d bytes", path, length, len(body))
		}
	}
}

// TestSlash walks every route of every family: a slash behind the path changes nothing, where no original says
// otherwise.
func TestSlash(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	n := 0
	for name, listener := range map[string]http.Handler{"api": s.API(), "plain": s.Plain(), "internal": s.Internal()} {
		for _, rt := range s.Routes() {
			path := somePath(rt)
			if rt.Family.Name == "consul" || path == "/ui" || strings.HasSuffix(path, "/") || rt.Stream || name == "plain" &&
				!rt.Plain {
				continue
			}
			n++
			ask := func(target string) *httptest.ResponseRecorder {
				return s.Certain(rt, func() *httptest.ResponseRecorder {
					r := httptest.NewRequest(rt.Method, target, http.NoBody)
					r.RemoteAddr = "192.0.2." + strconv.Itoa(n%250+1) + ":1" // or the limit of failures would answer
					if rt.Method == "GET" && !rt.Keyed {
						r.Header.Set("Authorization", "Bearer "+s.Admin)
					}
					w := httptest.NewRecorder()
					listener.ServeHTTP(w, r)
					return w
				})
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
		"/api/v1/nothing/": "404 ", "/api/v1/status//": "404 ", "/v1/nothing/": "404 ",
		"/_nothing/":            `400 {"error":"no handler found for uri [/_nothing/] and method [GET]"}`,
		"/_security/api_key/x/": "400 ", "/v1/peerings/": "404 Invalid URL path: not a recognized HTTP API endpoint\n",
		"/v1/peering/x/":        `404 Peering not found for "x/"`,
		"/api/v1/api-tokens/1/": "405 ",
	} {
		w := s.Call("GET", path, s.Admin, "")
		if got := strconv.Itoa(w.Code) + " " + w.Body.String(); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

// TestRootAllows: the method that is not allowed is answered with those that are, HEAD among them.
func TestRootAllows(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	w := s.Call("POST", "/", s.Admin, "")
	want := `{"error":"Incorrect HTTP method for uri [/] and method [POST], allowed: [GET, HEAD]","status":405}`
	if w.Code != 405 || w.Body.String() != want {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
