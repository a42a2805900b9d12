package native_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"muster/api"
	"muster/handlers/internal/sole"
)

// TestLoginHostile: a provider that has gone wrong cannot send the member, or a browser, where it likes; nobody signs
// in, and tokens work.
func TestLoginHostile(t *testing.T) {
	asked := make(chan string, 100)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked <- r.URL.Path }))
	defer elsewhere.Close()
	for name, serve := range map[string]http.HandlerFunc{
		"redirects": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusTemporaryRedirect)
		},
		"is deep": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat("[", 200_000)) },
		"never ends": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"issuer":"`, strings.Repeat("x", 1<<20), `"}`)
		},
		"is no JSON": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
		"is null":    func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "null") },
		"is another issuer": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"issuer":"https://example.org"}`)
		},
		"is broken": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
	} {
		s := sole.New(t)
		p := httptest.NewServer(serve)
		set(t, s, fmt.Sprintf(`{"oidc.issuer":%q}`, p.URL))
		s.Call("GET", "/api/v1/login", "", "")
		w := s.Call("POST", "/api/v1/login", "", `{"deviceCode":"device-1"}`)
		if w.Code != 503 || w.Header().Get("Retry-After") == "" {
			t.Errorf("a provider that %s: %d %s", name, w.Code, w.Body)
		}
		if w := s.Call("GET", "/api/v1/whoami", s.Admin, ""); w.Code != 200 {
			t.Errorf("a provider that %s: a token: %d", name, w.Code)
		}
		p.Close()
	}
	for name, change := range map[string]map[string]any{
		"a script":        {"authorization_endpoint": "javascript:alert(1)"},
		"a page in clear": {"authorization_endpoint": "http://example.org/authorize"},
		"tokens in clear": {"token_endpoint": "http://192.0.2.1/token"},
		"keys in a file":  {"jwks_uri": "file:///etc/passwd"},
		"a user":          {"token_endpoint": "https://a:b@example.org/token"},
		"no token":        {"token_endpoint": ""},
		"another's info":  {"userinfo_endpoint": "http://169.254.169.254/latest"},
		"another's code":  {"device_authorization_endpoint": "ftp://example.org"},
	} {
		s, p := signedIn(t, map[string]any{"groups": []string{"ops"}})
		p.Say(change)
		how := resultOf[api.LoginMethods](t, s.Call("GET", "/api/v1/login", "", "").Body.String())
		if how.AuthorizationEndpoint != "" || how.Problem == "" {
			t.Errorf("%s: %+v", name, how)
		}
		if w := s.Call("POST", "/api/v1/login", "", fmt.Sprintf(`{"idToken":%q}`, p.IDToken(nil))); w.Code != 503 {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	// Metadata services are asked by nobody's setting.
	s, p := signedIn(t, map[string]any{"groups": []string{"ops"}})
	p.Say(map[string]any{"jwks_uri": "https://169.254.169.254/keys"})
	if w := s.Call("POST", "/api/v1/login", "", fmt.Sprintf(`{"idToken":%q}`, p.IDToken(nil))); w.Code == 201 {
		t.Errorf("keys of a metadata service: %d %s", w.Code, w.Body)
	}
	s, p = signedIn(t, map[string]any{"groups": []string{"ops"}})
	p.Say(map[string]any{"jwks_uri": p.URL + "/nothing"})
	if w := s.Call("POST", "/api/v1/login", "", fmt.Sprintf(`{"idToken":%q}`, p.IDToken(nil))); w.Code != 503 {
		t.Errorf("without keys: %d %s", w.Code, w.Body)
	}
	if len(asked) != 0 {
		t.Errorf("%d requests went elsewhere: %s", len(asked), <-asked)
	}
}

// TestLoginProvider: a new key of the provider is found; a provider that is away keeps nobody out who is in; a client
// with a secret shows it; settings that make no sense are refused.
func TestLoginProvider(t *testing.T) {
	s, p := signedIn(t, map[string]any{"groups": "ops"})
	login := func() (string, int) {
		w := s.Call("POST", "/api/v1/login", "", fmt.Sprintf(`{"idToken":%q}`, p.IDToken(nil)))
		return resultOf[api.APIToken](t, w.Body.String()).Token, w.Code
	}
	first, code := login()
	if code != 201 {
		t.Fatalf("the first sign-in: %d", code)
	}
	p.Rotate()
	if _, code := login(); code != 201 {
		t.Errorf("after a rotation of the provider's key: %d", code)
	}
	p.Secret = "hush"
	s.Call("PUT", "/api/v1/cluster/secrets/op", s.Admin, `{"value":"hush"}`)
	device := func() int { return s.Call("POST", "/api/v1/login", "", `{"deviceCode":"device-1"}`).Code }
	p.Approve()
	if code := device(); code != 401 {
		t.Errorf("without the client's secret: %d", code)
	}
	set(t, s, `{"oidc.client_secret":"op"}`)
	if code := device(); code != 201 {
		t.Errorf("with the client's secret: %d", code)
	}
	for range 12 {
		login()
	}
	list := resultOf[[]api.APIToken](t, s.Call("GET", "/api/v1/api-tokens", s.Admin, "").Body.String())
	if len(list) > 11 {
		t.Errorf("one person has %d tokens", len(list)-1)
	}
	last, _ := login()
	p.Close()
	set(t, s, `{"oidc.issuer":`+fmt.Sprintf("%q", p.URL+"/")+`}`) // not remembered
	if w := s.Call("POST", "/api/v1/login", "", fmt.Sprintf(`{"idToken":%q}`, p.IDToken(nil))); w.Code != 503 ||
		w.Header().Get("Retry-After") == "" {
		t.Errorf("while the provider is away: %d %s", w.Code, w.Body)
	}
	// A provider that takes connections and says nothing is asked once; others do not wait behind that.
	quiet, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer quiet.Close()
	set(t, s, fmt.Sprintf(`{"oidc.issuer":"http://%s"}`, quiet.Addr()))
	codes := make(chan int, 5)
	for range cap(codes) {
		go func() { codes <- s.Call("GET", "/api/v1/login", "", "").Code }()
	}
	got := map[int]int{}
	for range cap(codes) {
		got[<-codes]++
	}
	if got[429] == 0 || got[200]+got[429] != cap(codes) {
		t.Errorf("answers while one asks a provider that says nothing: %v", got)
	}
	sole.Until(t, "it is said that the provider does not answer", func() bool {
		return strings.Contains(s.Call("GET", "/api/v1/login", "", "").Body.String(), "does not answer")
	})
	if w := s.Call("GET", "/api/v1/whoami", last, ""); w.Code != 200 {
		t.Errorf("who is in while the provider is away: %d", w.Code)
	}
	if w := s.Call("GET", "/api/v1/whoami", first, ""); w.Code != 401 {
		t.Errorf("the oldest of many sign-ins: %d", w.Code)
	}
	refusesLoginSettings(t, s)
	set(t, s, `{"oidc.issuer":null}`)
	if w := s.Call("POST", "/api/v1/login", "", `{"deviceCode":"x"}`); w.Code != 404 {
		t.Errorf("with sign-in off: %d %s", w.Code, w.Body)
	}
}

// refusesLoginSettings checks that invalid settings of the sign-in are refused.
func refusesLoginSettings(t *testing.T, s *sole.Member) {
	t.Helper()
	for name, value := range map[string]string{
		"oidc.issuer":    `"http://example.org"`,
		"oidc.client_id": `"a b"`,
		"oidc.rules":     `[{"claim":"x","value":"y","scopes":["root"]}]`,
		"oidc.lifetime":  `"48h"`,
		"oidc.audience":  `7`,
	} {
		w := s.Call("PUT", "/api/v1/cluster/settings", s.Admin, fmt.Sprintf(`{%q:%s}`, name, value))
		if w.Code != 400 || !strings.Contains(w.Body.String(), name+" must be") {
			t.Errorf("%s=%s: %d %s", name, value, w.Code, w.Body)
		}
	}
	for _, issuer := range []string{"https://u:p@x/", "https://x/?q", "ftp://x/", "https:///", "//x", "https://x/#f",
		"http://[::1", " https://x/"} {
		body, _ := json.Marshal(map[string]string{"oidc.issuer": issuer})
		if w := s.Call("PUT", "/api/v1/cluster/settings", s.Admin, string(body)); w.Code != 400 {
			t.Errorf("issuer %q: %d", issuer, w.Code)
		}
	}
}
