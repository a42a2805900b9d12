package native_test

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"muster/api"
	"muster/handlers/internal/sole"
	"muster/handlers/signin/signintest"
)

const rules = `[{"claim":"groups","value":"ops","scopes":["cluster:manage"]},` +
	`{"claim":"email","value":"ada@example.org","scopes":["cluster:read"]}]`

// signedIn is a member whose people sign in at a provider.
func signedIn(t *testing.T, claims map[string]any) (*sole.Member, *signintest.Provider) {
	t.Helper()
	s, p := sole.New(t), signintest.New(t, claims)
	set(t, s, fmt.Sprintf(`{"oidc.issuer":%q,"oidc.rules":%s}`, p.URL, rules))
	return s, p
}

func set(t *testing.T, s *sole.Member, settings string) {
	t.Helper()
	if w := s.Call("PUT", "/api/v1/cluster/settings", s.Admin, settings); w.Code != 200 {
		t.Fatalf("settings: %d %s", w.Code, w.Body)
	}
}

func resultOf[T any](t *testing.T, body string) (v T) {
	t.Helper()
	var e struct{ Result T }
	if err := json.Unmarshal([]byte(body), &e); err != nil {
		t.Errorf("%v: %s", err, body)
	}
	return e.Result
}

// TestLogin: who has a rule gets a token with its scopes, in each of the three ways; the audit has the person's name.
func TestLogin(t *testing.T) {
	s, p := signedIn(t, map[string]any{"email": "ada@example.org", "email_verified": true, "groups": []string{"dev", "ops"}})
	how := resultOf[api.LoginMethods](t, s.Call("GET", "/api/v1/login", "", "").Body.String())
	if how.Issuer != p.URL || how.ClientID != "muster" || !how.Device || how.AuthorizationEndpoint != p.URL+"/authorize" {
		t.Fatalf("%+v", how)
	}
	code := func() string {
		cfg := oauth2.Config{ClientID: how.ClientID, RedirectURL: "http://127.0.0.1:1/callback", Scopes: how.Scopes,
			Endpoint: oauth2.Endpoint{AuthURL: how.AuthorizationEndpoint}}
		verifier := oauth2.GenerateVerifier()
		back, err := p.Visit(cfg.AuthCodeURL("s", oauth2.S256ChallengeOption(verifier), oauth2.SetAuthURLParam("nonce", "n")))
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf(`{"code":%q,"codeVerifier":%q,"redirectUri":%q,"nonce":"n"}`, back.Get("code"), verifier,
			cfg.RedirectURL)
	}
	p.Approve()
	for way, body := range map[string]string{
		"code":   code(),
		"device": `{"deviceCode":"device-1"}`,
		"token":  fmt.Sprintf(`{"idToken":%q}`, p.IDToken(nil)),
	} {
		w := s.Call("POST", "/api/v1/login", "", body)
		made := resultOf[api.APIToken](t, w.Body.String())
		if w.Code != 201 || made.Name != "ada@example.org" || fmt.Sprint(made.Scopes) != "[cluster:manage cluster:read]" ||
			time.Until(made.ExpiresAt) > time.Hour {
			t.Errorf("%s: %d %s", way, w.Code, w.Body)
			continue
		}
		if w := s.Call("PUT", "/api/v1/cluster/leases/l-"+way, made.Token, `{"nodeId":1,"kind":"x","ttlSeconds":60}`); w.Code >= 300 {
			t.Errorf("%s: a lease: %d %s", way, w.Code, w.Body)
		}
		if w := s.Call("GET", "/api/v1/api-tokens", made.Token, ""); w.Code != 403 {
			t.Errorf("%s: the list of tokens: %d", way, w.Code)
		}
		if w := s.Call("DELETE", "/api/v1/login", made.Token, ""); w.Code != 200 {
			t.Errorf("%s: logout: %d %s", way, w.Code, w.Body)
		}
		if w := s.Call("GET", "/api/v1/whoami", made.Token, ""); w.Code != 401 {
			t.Errorf("%s: after the logout: %d", way, w.Code)
		}
	}
	if w := s.Call("GET", "/api/v1/audit", s.Admin, ""); !strings.Contains(w.Body.String(), "ada@example.org") ||
		!strings.Contains(w.Body.String(), "api_token.login") {
		t.Errorf("the audit: %s", w.Body)
	}
	if w := s.Call("DELETE", "/api/v1/login", s.Admin, ""); w.Code != 409 {
		t.Errorf("logout of a token of no sign-in: %d %s", w.Code, w.Body)
	}
}

// TestLoginRefused: what is not this provider's word for this cluster, now, signs nobody in.
func TestLoginRefused(t *testing.T) {
	s, p := signedIn(t, map[string]any{"email": "eve@example.org", "groups": []string{"dev"}})
	other := signintest.New(t, map[string]any{"groups": []string{"ops"}})
	token := func(change map[string]any) string { return fmt.Sprintf(`{"idToken":%q}`, p.IDToken(change)) }
	ops := func(change map[string]any) map[string]any {
		change["groups"] = []string{"ops"}
		return change
	}
	long := strings.Repeat("x", 43)
	for name, c := range map[string]struct {
		body  string
		code  int
		words string
	}{
		"nothing":               {`{}`, 400, "one of code, deviceCode and idToken"},
		"two":                   {`{"idToken":"x","deviceCode":"y"}`, 400, "one of code, deviceCode and idToken"},
		"no object":             {`[]`, 400, "JSON object"},
		"code alone":            {`{"code":"x"}`, 400, "codeVerifier and redirectUri"},
		"a short verifier":      {`{"code":"x","codeVerifier":"y","redirectUri":"http://x/"}`, 400, "codeVerifier"},
		"a wrong type":          {`{"idToken":7}`, 400, "idToken"},
		"garbage":               {`{"idToken":"a.b.c"}`, 401, "not one of the identity provider's"},
		"no rule":               {token(nil), 403, "eve@example.org is known"},
		"expired":               {token(ops(map[string]any{"exp": time.Now().Add(-time.Hour).Unix()})), 401, "expired"},
		"another audience":      {token(ops(map[string]any{"aud": "somebody"})), 401, "not one of the identity provider's"},
		"another issuer":        {token(ops(map[string]any{"iss": "https://example.org"})), 401, "not one of"},
		"another's key":         {fmt.Sprintf(`{"idToken":%q}`, other.IDToken(ops(map[string]any{"iss": p.URL}))), 401, "not one of"},
		"claims of wrong types": {token(map[string]any{"groups": map[string]any{"ops": true}, "email": 7}), 403, "no rule"},
		"a list in a list":      {token(map[string]any{"groups": []any{[]string{"ops"}}}), 403, "no rule"},
		"another nonce":         {strings.Replace(token(ops(map[string]any{"nonce": "a"})), "}", `,"nonce":"b"}`, 1), 401, "nonce"},
		"an unverified address": {token(map[string]any{"email": "ada@example.org", "email_verified": false}), 403, "no rule"},
		"an unknown code":       {`{"code":"x","codeVerifier":"` + long + `","redirectUri":"http://x/"}`, 401, "invalid_grant"},
		"a pending device":      {`{"deviceCode":"device-1"}`, 202, "not said yes"},
		"an unknown device":     {`{"deviceCode":"device-2"}`, 401, "invalid_grant"},
	} {
		w := s.Call("POST", "/api/v1/login", "", c.body)
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.words) {
			t.Errorf("%s: %d %s, want %d with %q", name, w.Code, w.Body, c.code, c.words)
		}
	}
	list := resultOf[[]api.APIToken](t, s.Call("GET", "/api/v1/api-tokens", s.Admin, "").Body.String())
	if len(list) != 1 {
		t.Errorf("there are %d tokens", len(list))
	}
}

// TestLoginProvider: a new key of the provider is found; a provider that is away keeps nobody out who is in; a client with a
// secret shows it; settings that make no sense are refused.
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
	if w := s.Call("POST", "/api/v1/login", "", fmt.Sprintf(`{"idToken":%q}`, p.IDToken(nil))); w.Code != 503 || w.Header().Get("Retry-After") == "" {
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
	for _, issuer := range []string{"https://u:p@x/", "https://x/?q", "ftp://x/", "https:///", "//x", "https://x/#f", "http://[::1", " https://x/"} {
		body, _ := json.Marshal(map[string]string{"oidc.issuer": issuer})
		if w := s.Call("PUT", "/api/v1/cluster/settings", s.Admin, string(body)); w.Code != 400 {
			t.Errorf("issuer %q: %d", issuer, w.Code)
		}
	}
	set(t, s, `{"oidc.issuer":null}`)
	if w := s.Call("POST", "/api/v1/login", "", `{"deviceCode":"x"}`); w.Code != 404 {
		t.Errorf("where nobody signs in: %d %s", w.Code, w.Body)
	}
}
