package native_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
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
