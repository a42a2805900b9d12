package signin

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"golang.org/x/time/rate"
)

// The fuzz targets of this package are the ID tokens that strangers bring, and what a provider that went wrong says of
// itself. Neither panics, and what is refused is refused in words of muster.

const fuzzIssuer = "https://id.example.org"

var fuzzNow = time.Unix(1_900_000_000, 0)

func FuzzIDToken(f *testing.F) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: key}, nil)
	if err != nil {
		f.Fatal(err)
	}
	signed := func(payload []byte) string {
		o, err := signer.Sign(payload)
		if err != nil {
			f.Fatal(err)
		}
		text, err := o.CompactSerialize()
		if err != nil {
			f.Fatal(err)
		}
		return text
	}
	const good = `{"iss":"https://id.example.org","aud":"muster","sub":"a","exp":1900000060,"nonce":"n","azp":"muster"}`
	for _, payload := range []string{good, `{}`, `null`, `[]`, good + "x",
		`{"iss":"https://id.example.org","aud":["muster",1],"sub":"a","exp":1e30}`,
		`{"iss":"https://id.example.org","aud":"muster","sub":"\u0000","exp":1900000060}`,
		`{"iss":"https://id.example.org","aud":"muster","sub":"a","exp":1900000060,"azp":{}}`,
		`{"iss":"https://id.example.org","aud":"muster","sub":"a","exp":1900000060,"_claim_names":{"x":"y"},` +
			`"_claim_sources":{"y":{"endpoint":"http://127.0.0.1:1"}}}`} {
		f.Add("", []byte(payload), "n")
		f.Add(signed([]byte(payload)), []byte(nil), "")
	}
	f.Add("eyJhbGciOiJub25lIn0.e30.", []byte(nil), "")
	f.Add("a.b.c.d.e", []byte(nil), "")
	c := &Client{now: func() time.Time { return fuzzNow }, log: slog.New(slog.DiscardHandler)}
	found := &discovered{
		issuer: fuzzIssuer,
		keys:   &oidc.StaticKeySet{PublicKeys: []crypto.PublicKey{key.Public()}},
		about:  metadata{Algorithms: []string{oidc.EdDSA, "none", "HS256"}},
	}
	f.Fuzz(func(t *testing.T, raw string, payload []byte, nonce string) {
		if raw == "" {
			raw = signed(payload)
		}
		who, err := c.verify(t.Context(), found, Provider{ClientID: "muster"}, raw, nonce)
		var refused *RefusedError
		switch {
		case err == nil && (!validSubject(who.Subject) || nonce != "" && who.Claims["nonce"] != nonce):
			t.Fatalf("accepted %+v", who)
		case err != nil && (!errors.As(err, &refused) || refused.Why == ""):
			t.Fatalf("no refusal: %v", err)
		}
	})
}

// says is a provider that answers every request alike.
type says []byte

func (s says) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK,
		Header:     http.Header{"Content-Type": {"application/json"}},
		Body:       io.NopCloser(bytes.NewReader(s)),
		Request:    r,
	}, nil
}

func direct(*http.Request) (*url.URL, error) { return nil, nil }

func FuzzProvider(f *testing.F) {
	const begin = `{"issuer":"https://id.example.org",`
	f.Add([]byte(begin + `"authorization_endpoint":"https://a/","token_endpoint":"https://b/",` +
		`"jwks_uri":"https://c/","id_token_signing_alg_values_supported":["RS256"],` +
		`"device_authorization_endpoint":"https://d",` +
		`"device_code":"x","user_code":"y","verification_uri":"javascript:x","expires_in":-1,"interval":99999999999}`))
	f.Add([]byte(begin + `"authorization_endpoint":"http://169.254.169.254/","jwks_uri":"file:///"}`))
	f.Add([]byte(begin + `"token_endpoint":"https://u:p@x/","error":"` + "\x1b" + `"}`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		c := &Client{
			http:  &http.Client{Transport: bounded{rate.NewLimiter(rate.Inf, 0), says(answer), says(answer), direct}},
			limit: rate.NewLimiter(rate.Inf, 0),
			now:   func() time.Time { return fuzzNow },
			log:   slog.New(slog.DiscardHandler),
		}
		p := Provider{Issuer: fuzzIssuer, ClientID: "muster"}
		found, err := c.discover(t.Context(), p)
		if err != nil {
			if !errors.Is(err, ErrAway) {
				t.Fatalf("no refusal: %v", err)
			}
			return
		}
		e := found.provider.Endpoint()
		for _, text := range []string{e.AuthURL, e.TokenURL, found.about.Keys} {
			if allowed(text, false) != nil {
				t.Fatalf("%q is an endpoint", text)
			}
		}
		for name, ask := range map[string]func() error{
			"device": func() error { _, err := c.Device(t.Context(), p); return err },
			"poll":   func() error { _, err := c.Poll(t.Context(), p, "x"); return err },
		} {
			refusedKindly(t, name, ask())
		}
	})
}

// refusedKindly fails unless an error is one that callers tell apart.
func refusedKindly(t *testing.T, what string, err error) {
	t.Helper()
	var refused *RefusedError
	switch {
	case err == nil, errors.As(err, &refused), errors.Is(err, ErrAway), errors.Is(err, ErrBusy):
	case errors.Is(err, ErrPending), errors.Is(err, context.DeadlineExceeded):
	default:
		t.Fatalf("%s: no refusal: %v", what, err)
	}
}
