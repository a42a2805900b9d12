// Package signintest is a strict OpenID provider for tests: it refuses whatever differs from what a client must send
// (OpenID Connect Core 1.0, sections 3.1.2 and 3.1.3; RFC 7636, section 4; RFC 8628, section 3).
package signintest

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// Provider is a running provider with one client and one person, who says yes to everything.
type Provider struct {
	*httptest.Server
	ClientID, Secret string

	t      testing.TB
	mu     sync.Mutex
	key    *rsa.PrivateKey
	kid    int
	claims map[string]any
	codes  map[string]grant
	yes    bool           // to device flows
	often  int            // how many questions of a device flow come too often
	told   map[string]any // at the userinfo endpoint; nil: there is none
	says   map[string]any // what discovery says otherwise
}

type grant struct{ challenge, redirect, nonce string }

// New starts a provider on loopback. claims are those of the person, besides the standard ones.
func New(t testing.TB, claims map[string]any) *Provider {
	t.Helper()
	p := made(t, claims)
	p.Start()
	return p
}

// NewTLS starts a provider that speaks HTTPS. Its certificate is of an authority that Certificate returns.
func NewTLS(t testing.TB, claims map[string]any) *Provider {
	t.Helper()
	p := made(t, claims)
	p.StartTLS()
	return p
}

func made(t testing.TB, claims map[string]any) *Provider {
	p := &Provider{
		ClientID: "muster",
		t:        t,
		claims:   claims,
		codes:    map[string]grant{},
	}
	p.Rotate()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", p.discovery)
	mux.HandleFunc("GET /keys", p.keys)
	mux.HandleFunc("GET /authorize", p.authorize)
	mux.HandleFunc("POST /token", p.token)
	mux.HandleFunc("GET /userinfo", p.userinfo)
	mux.HandleFunc("POST /device", p.device)
	p.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

// Rotate replaces the provider's key.
func (p *Provider) Rotate() {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.key, p.kid = key, p.kid+1
}

// Tell has the provider tell claims at a userinfo endpoint (OpenID Connect Core 1.0, section 5.3).
func (p *Provider) Tell(claims map[string]any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = claims
}

// Say changes what discovery says.
func (p *Provider) Say(change map[string]any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.says = change
}

// Slow has the provider say slow_down n times to a device flow.
func (p *Provider) Slow(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.often = n
}

// Key is the provider's public key, in PEM, which somebody may take for the secret of a HMAC.
func (p *Provider) Key() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	der, err := x509.MarshalPKIXPublicKey(p.key.Public())
	if err != nil {
		p.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// Approve has the person say yes to device flows.
func (p *Provider) Approve() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.yes = true
}

// Visit is what a browser does at an authorization address: it returns the query that the person comes back with.
func (p *Provider) Visit(address string) (url.Values, error) {
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Get(address)
	if err != nil {
		return nil, err
	}
	resp.Body.Close()
	to, err := url.Parse(resp.Header.Get("Location"))
	if err != nil || resp.StatusCode != http.StatusFound {
		return nil, fmt.Errorf("%s: %v", resp.Status, err)
	}
	return to.Query(), nil
}

// IDToken signs a token with some claims changed; nil takes one away.
func (p *Provider) IDToken(change map[string]any) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sign(change)
}

func (p *Provider) sign(change map[string]any) string {
	now := time.Now()
	claims := map[string]any{
		"iss": p.URL, "sub": "person-1", "aud": p.ClientID, "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(),
	}
	maps.Copy(claims, p.claims)
	for name, value := range change {
		if claims[name] = value; value == nil {
			delete(claims, name)
		}
	}
	options := (&jose.SignerOptions{}).WithHeader("kid", fmt.Sprint(p.kid))
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: p.key}, options)
	if err != nil {
		p.t.Fatal(err)
	}
	text, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		p.t.Fatal(err)
	}
	return text
}

func (p *Provider) discovery(w http.ResponseWriter, _ *http.Request) {
	all := map[string]any{
		"issuer":                                p.URL,
		"authorization_endpoint":                p.URL + "/authorize",
		"token_endpoint":                        p.URL + "/token",
		"device_authorization_endpoint":         p.URL + "/device",
		"jwks_uri":                              p.URL + "/keys",
		"id_token_signing_alg_values_supported": []string{"RS256"},
	}
	if p.told != nil {
		all["userinfo_endpoint"] = p.URL + "/userinfo"
	}
	maps.Copy(all, p.says)
	answer(w, http.StatusOK, all)
}

func (p *Provider) userinfo(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer opaque" {
		http.Error(w, "invalid_token", http.StatusUnauthorized)
		return
	}
	answer(w, http.StatusOK, p.told)
}

func (p *Provider) keys(w http.ResponseWriter, _ *http.Request) {
	key := jose.JSONWebKey{Key: p.key.Public(), KeyID: fmt.Sprint(p.kid), Algorithm: "RS256", Use: "sig"}
	answer(w, http.StatusOK, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{key}})
}

func (p *Provider) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	to, err := url.Parse(q.Get("redirect_uri"))
	if err != nil || !to.IsAbs() || q.Get("client_id") != p.ClientID || q.Get("response_type") != "code" ||
		q.Get("state") == "" ||
		q.Get("code_challenge_method") != "S256" || len(q.Get("code_challenge")) != 43 ||
		!strings.Contains(" "+q.Get("scope")+" ", " openid ") {
		http.Error(w, "invalid_request", http.StatusBadRequest)
		return
	}
	code := fmt.Sprintf("code-%d", len(p.codes)+1)
	p.codes[code] = grant{q.Get("code_challenge"), q.Get("redirect_uri"), q.Get("nonce")}
	to.RawQuery = url.Values{"code": {code}, "state": {q.Get("state")}}.Encode()
	http.Redirect(w, r, to.String(), http.StatusFound)
}

func (p *Provider) token(w http.ResponseWriter, r *http.Request) {
	id, secret, basic := r.BasicAuth()
	if !basic {
		id, secret = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
	}
	if id != p.ClientID || secret != p.Secret {
		refuse(w, http.StatusUnauthorized, "invalid_client")
		return
	}
	switch r.PostFormValue("grant_type") {
	case "authorization_code":
		code := r.PostFormValue("code")
		g, ok := p.codes[code]
		if ok {
			p.codes[code] = grant{} // it serves once
		}
		sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
		if !ok || g.challenge != base64.RawURLEncoding.EncodeToString(sum[:]) ||
			g.redirect != r.PostFormValue("redirect_uri") {
			refuse(w, http.StatusBadRequest, "invalid_grant")
			return
		}
		change := map[string]any{}
		if g.nonce != "" {
			change["nonce"] = g.nonce
		}
		p.grant(w, change)
	case "urn:ietf:params:oauth:grant-type:device_code":
		switch {
		case r.PostFormValue("device_code") != "device-1":
			refuse(w, http.StatusBadRequest, "invalid_grant")
		case p.often > 0:
			p.often--
			refuse(w, http.StatusBadRequest, "slow_down")
		case !p.yes:
			refuse(w, http.StatusBadRequest, "authorization_pending")
		default:
			p.grant(w, nil)
		}
	default:
		refuse(w, http.StatusBadRequest, "unsupported_grant_type")
	}
}

func (p *Provider) grant(w http.ResponseWriter, change map[string]any) {
	answer(w, http.StatusOK, map[string]any{
		"access_token": "opaque", "token_type": "Bearer", "expires_in": 60, "id_token": p.sign(change),
	})
}

func (p *Provider) device(w http.ResponseWriter, r *http.Request) {
	if r.PostFormValue("client_id") != p.ClientID || !strings.Contains(" "+r.PostFormValue("scope")+" ", " openid ") {
		refuse(w, http.StatusBadRequest, "invalid_request")
		return
	}
	answer(w, http.StatusOK, map[string]any{
		"device_code": "device-1", "user_code": "WDJB-MJHT", "verification_uri": p.URL + "/go",
		"verification_uri_complete": p.URL + "/go?code=WDJB-MJHT", "expires_in": 60, "interval": 1,
	})
}

func refuse(w http.ResponseWriter, status int, code string) {
	answer(w, status, map[string]string{"error": code})
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}
