package native_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
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
	s, p := signedIn(t, map[string]any{"email": "ada@example.org", "email_verified": true,
		"groups": []string{"dev", "ops"}})
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
		if w := s.Call("PUT", "/api/v1/cluster/leases/l-"+way, made.Token,
			`{"nodeId":1,"kind":"x","ttlSeconds":60}`); w.Code >= 300 {
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
		"nothing":          {`{}`, 400, "one of code, deviceCode and idToken"},
		"two":              {`{"idToken":"x","deviceCode":"y"}`, 400, "one of code, deviceCode and idToken"},
		"no object":        {`[]`, 400, "JSON object"},
		"code alone":       {`{"code":"x"}`, 400, "codeVerifier and redirectUri"},
		"a short verifier": {`{"code":"x","codeVerifier":"y","redirectUri":"http://x/"}`, 400, "codeVerifier"},
		"a wrong type":     {`{"idToken":7}`, 400, "idToken"},
		"garbage":          {`{"idToken":"a.b.c"}`, 401, "not one of the identity provider's"},
		"no rule":          {token(nil), 403, "eve@example.org is known"},
		"expired":          {token(ops(map[string]any{"exp": time.Now().Add(-time.Hour).Unix()})), 401, "expired"},
		"another audience": {token(ops(map[string]any{"aud": "somebody"})), 401, "not one of the identity provider's"},
		"another issuer":   {token(ops(map[string]any{"iss": "https://example.org"})), 401, "not one of"},
		"another's key": {fmt.Sprintf(`{"idToken":%q}`, other.IDToken(ops(map[string]any{"iss": p.URL}))), 401,
			"not one of"},
		"claims of wrong types": {token(map[string]any{"groups": map[string]any{"ops": true}, "email": 7}), 403, "no rule"},
		"a list in a list":      {token(map[string]any{"groups": []any{[]string{"ops"}}}), 403, "no rule"},
		"another nonce": {strings.Replace(token(ops(map[string]any{"nonce": "a"})), "}", `,"nonce":"b"}`, 1), 401,
			"nonce"},
		"an unverified address": {token(map[string]any{"email": "ada@example.org", "email_verified": false}), 403, "no rule"},
		"an unknown code": {`{"code":"x","codeVerifier":"` + long + `","redirectUri":"http://x/"}`, 401,
			"invalid_grant"},
		"a pending device":  {`{"deviceCode":"device-1"}`, 202, "not said yes"},
		"an unknown device": {`{"deviceCode":"device-2"}`, 401, "invalid_grant"},
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

// signed makes a token of claims that the provider did not sign, or not as it signs.
func signed(t *testing.T, alg jose.SignatureAlgorithm, key any, header, claims map[string]any) string {
	t.Helper()
	o := &jose.SignerOptions{}
	for name, value := range header {
		o.WithHeader(jose.HeaderKey(name), value)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, o)
	if err != nil {
		t.Fatal(err)
	}
	text, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestLoginForged: tokens that look like the provider's, and are not, or say what no token says.
func TestLoginForged(t *testing.T) {
	s, p := signedIn(t, map[string]any{"groups": []string{"ops"}})
	now := time.Now()
	claims := map[string]any{"iss": p.URL, "sub": "1", "aud": "muster", "iat": now.Unix(),
		"exp":    now.Add(time.Minute).Unix(),
		"groups": []string{"ops"}}
	part := func(v any) string {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		token string
		words string
	}{
		"no signature":           {part(map[string]any{"alg": "none"}) + "." + part(claims) + ".", "not one of"},
		"the public key as HMAC": {signed(t, jose.HS256, p.Key(), map[string]any{"kid": "1"}, claims), "not one of"},
		"an unknown kid":         {signed(t, jose.RS256, key, map[string]any{"kid": "7"}, claims), "not one of"},
		"no kid":                 {signed(t, jose.RS256, key, nil, claims), "not one of"},
		"a key in the header": {signed(t, jose.RS256, key, map[string]any{"jwk": jose.JSONWebKey{Key: key.Public()}},
			claims), "not one of"},
		"not yet valid":          {p.IDToken(map[string]any{"nbf": now.Add(time.Hour).Unix()}), "not one of"},
		"no expiry":              {p.IDToken(map[string]any{"exp": nil}), "expired"},
		"an expiry that is text": {p.IDToken(map[string]any{"exp": "tomorrow"}), "not one of"},
		"an expiry beyond years": {p.IDToken(map[string]any{"exp": "1e400"}), "not one of"},
		"audiences":              {p.IDToken(map[string]any{"aud": []string{"a", "b"}}), "not one of"},
		"an audience, a number":  {p.IDToken(map[string]any{"aud": 7}), "not one of"},
		"an issuer, a list":      {p.IDToken(map[string]any{"iss": []string{p.URL}}), "not one of"},
		"a subject, a number":    {p.IDToken(map[string]any{"sub": 7}), "not one of"},
		"no subject":             {p.IDToken(map[string]any{"sub": nil}), "subject"},
		"a long subject":         {p.IDToken(map[string]any{"sub": strings.Repeat("x", 241)}), "subject"},
		"a subject of two lines": {p.IDToken(map[string]any{"sub": "a\nb"}), "subject"},
		"another client's":       {p.IDToken(map[string]any{"aud": []string{"muster", "x"}, "azp": "x"}), "another client"},
		"a client, a number":     {p.IDToken(map[string]any{"azp": 7}), "another client"},
		"a nonce, a list":        {p.IDToken(map[string]any{"nonce": []string{"n"}}), "not one of"},
		"five parts":             {"a.b.c.d.e", "not one of"},
		"claims, a list":         {part(map[string]any{"alg": "RS256"}) + "." + part([]int{1}) + ".x", "not one of"},
	} {
		w := s.Call("POST", "/api/v1/login", "", fmt.Sprintf(`{"idToken":%q}`, c.token))
		if w.Code != 401 || !strings.Contains(w.Body.String(), c.words) {
			t.Errorf("%s: %d %s, want 401 with %q", name, w.Code, w.Body, c.words)
		}
	}
	// Others that are the provider's, and large: bounded by the request.
	huge := p.IDToken(map[string]any{"extra": strings.Repeat("x", 20<<10)})
	if w := s.Call("POST", "/api/v1/login", "", fmt.Sprintf(`{"idToken":%q}`, huge)); w.Code != 400 ||
		!strings.Contains(w.Body.String(), "idToken") {
		t.Errorf("a huge token: %d %.200s", w.Code, w.Body)
	}
	many := make([]string, 500)
	for i := range many {
		many[i] = fmt.Sprint("group-", i)
	}
	token := p.IDToken(map[string]any{"groups": append(many, "ops"), "email": strings.Repeat("e", 1000)})
	w := s.Call("POST", "/api/v1/login", "", fmt.Sprintf(`{"idToken":%q}`, token))
	if made := resultOf[api.APIToken](t, w.Body.String()); w.Code != 201 || made.Name != "person-1" {
		t.Errorf("501 groups and a name of a thousand bytes: %d %s", w.Code, w.Body)
	}
}

// TestLoginUserinfo: claims that a provider tells at its userinfo endpoint alone count as well; those of somebody else
// do not.
func TestLoginUserinfo(t *testing.T) {
	s, p := signedIn(t, nil)
	p.Approve()
	device := func() (int, string) {
		w := s.Call("POST", "/api/v1/login", "", `{"deviceCode":"device-1"}`)
		return w.Code, w.Body.String()
	}
	if code, body := device(); code != 403 {
		t.Errorf("without claims: %d %s", code, body)
	}
	again := func(claims map[string]any) (int, string) { // what is said of the provider is asked for anew
		p.Tell(claims)
		set(t, s, `{"oidc.issuer":null}`)
		set(t, s, fmt.Sprintf(`{"oidc.issuer":"%s/"}`, p.URL))
		s.Call("GET", "/api/v1/login", "", "")
		set(t, s, fmt.Sprintf(`{"oidc.issuer":%q}`, p.URL))
		return device()
	}
	if code, body := again(map[string]any{"sub": "person-1", "email": "ada@example.org",
		"groups": []string{"ops"}}); code != 201 ||
		!strings.Contains(body, "ada@example.org") || !strings.Contains(body, "cluster:manage") {
		t.Errorf("with claims at the endpoint: %d %s", code, body)
	}
	if code, body := again(map[string]any{"sub": "person-2", "groups": []string{"ops"}}); code != 401 ||
		!strings.Contains(body, "two different people") {
		t.Errorf("with another's claims: %d %s", code, body)
	}
	if code, body := again(map[string]any{"sub": 7, "groups": []string{"ops"}}); code != 403 {
		t.Errorf("with claims that cannot be read: %d %s", code, body)
	}
	p.Slow(1)
	if code, body := device(); code != 202 || !strings.Contains(body, `"slower":true`) {
		t.Errorf("asked too often: %d %s", code, body)
	}
	set(t, s, `{"oidc.scopes":"groups,roles"}`)
	how := resultOf[api.LoginMethods](t, s.Call("GET", "/api/v1/login", "", "").Body.String())
	if fmt.Sprint(how.Scopes) != "[openid email profile groups roles]" {
		t.Errorf("asks for %v", how.Scopes)
	}
	for _, bad := range []string{`"a b"`, `","`, `"a,a"`, `"a,"`, `7`, `""`, `"\""`} {
		if w := s.Call("PUT", "/api/v1/cluster/settings", s.Admin, `{"oidc.scopes":`+bad+`}`); w.Code != 400 {
			t.Errorf("scopes %s: %d", bad, w.Code)
		}
	}
}

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
