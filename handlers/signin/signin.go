// Package signin asks an OpenID provider who somebody is: authorization code with PKCE, device flow, and ID tokens that
// a caller brings (OpenID Connect Core 1.0; RFC 7636; RFC 8628). It stores nothing and decides nothing: what a person may
// do, and the token that says so, are the caller's.
//
// Whoever asks has shown no credential yet. So what goes out to the provider is few, small and short, and what the
// provider has said of itself is remembered.
package signin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/time/rate"

	"muster/dialpolicy"
)

const (
	answerWithin = 4 * time.Second // of the provider, for everything that one request takes
	maxAnswer    = 256 << 10       // bytes of one of its answers
	remembered   = 10 * time.Minute
	awayFor      = 2 * time.Second // a provider that did not answer is not asked again for so long
	perSecond    = 10              // requests to the provider, and twice as many at once
)

// Provider is where people sign in, as the settings have it.
type Provider struct {
	Issuer   string // URL
	ClientID string
	Secret   string // of a confidential client, or empty
	Audience string // that ID tokens must be for; empty: ClientID
}

// Person is somebody whom the provider knows.
type Person struct {
	Subject string
	Claims  map[string]any
}

// Errors that callers tell apart.
var (
	ErrAway    = errors.New("the identity provider does not answer")
	ErrBusy    = errors.New("too many people sign in at once; try again")
	ErrPending = errors.New("the person has not said yes yet")
)

// RefusedError is why somebody is not signed in.
type RefusedError struct{ Why string }

func (e *RefusedError) Error() string { return e.Why }

// Client asks providers. The zero value is not usable: New makes one.
type Client struct {
	http  *http.Client
	limit *rate.Limiter
	now   func() time.Time

	asking sync.Mutex // held while the provider is asked what it says of itself
	found  atomic.Pointer[discovered]
}

type discovered struct {
	issuer   string
	at       time.Time
	provider *oidc.Provider // nil: it did not answer
}

// New returns a client. now is the clock by which tokens end; dials says where a provider may be. Proxies of the
// environment are not judged: they are the machine's own.
func New(now func() time.Time, dials dialpolicy.Policy) *Client {
	c := &Client{limit: rate.NewLimiter(perSecond, 2*perSecond), now: now}
	direct := http.DefaultTransport.(*http.Transport).Clone()
	direct.Proxy, direct.DisableKeepAlives = nil, true
	direct.DialContext = (&net.Dialer{Timeout: answerWithin, Control: dials.Control}).DialContext
	c.http = &http.Client{Transport: bounded{c.limit, direct}, Timeout: answerWithin}
	return c
}

// bounded sends few requests, and reads little of each answer.
type bounded struct {
	limit  *rate.Limiter
	direct http.RoundTripper
}

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	if !b.limit.Allow() {
		return nil, ErrBusy
	}
	way := b.direct
	if proxy, err := http.ProxyFromEnvironment(r); err != nil {
		return nil, err
	} else if proxy != nil {
		way = http.DefaultTransport
	}
	resp, err := way.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	}
	return resp, err
}

// discover returns what the provider says of itself, which is remembered, as is that it did not answer. One request at a
// time asks; nobody waits behind it.
func (c *Client) discover(ctx context.Context, p Provider) (*oidc.Provider, error) {
	last := c.found.Load()
	if last != nil && last.issuer != p.Issuer {
		last = nil
	}
	if f := last; f != nil {
		switch age := time.Since(f.at); {
		case f.provider == nil && age < awayFor:
			return nil, ErrAway
		case f.provider != nil && age < remembered:
			return f.provider, nil
		}
	}
	if !c.asking.TryLock() {
		return nil, ErrBusy
	}
	defer c.asking.Unlock()
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	// Its keys are fetched with this context later.
	found, err := oidc.NewProvider(oidc.ClientContext(ctx, c.http), p.Issuer)
	switch {
	case err == nil:
		c.found.Store(&discovered{p.Issuer, time.Now(), found})
		return found, nil
	case errors.Is(err, ErrBusy):
		return nil, ErrBusy
	case last != nil && last.provider != nil: // as it was, for a while
		c.found.Store(&discovered{p.Issuer, time.Now().Add(awayFor - remembered), last.provider})
		return last.provider, nil
	}
	c.found.Store(&discovered{issuer: p.Issuer, at: time.Now()})
	return nil, fmt.Errorf("%w: %w", ErrAway, err)
}

// Endpoints are where a person goes.
type Endpoints struct {
	Authorization string
	Device        bool // the provider knows the device flow
}

// Endpoints returns them. It blocks for the provider when they are not remembered.
func (c *Client) Endpoints(ctx context.Context, p Provider) (Endpoints, error) {
	found, err := c.discover(ctx, p)
	if err != nil {
		return Endpoints{}, err
	}
	e := found.Endpoint()
	return Endpoints{e.AuthURL, e.DeviceAuthURL != ""}, nil
}

func (c *Client) config(found *oidc.Provider, p Provider) *oauth2.Config {
	return &oauth2.Config{ClientID: p.ClientID, ClientSecret: p.Secret, Endpoint: found.Endpoint(), Scopes: Scopes}
}

// Scopes are what is asked for of a person.
var Scopes = []string{oidc.ScopeOpenID, "email", "profile"}

// Code is what a browser brings back from the provider.
type Code struct{ Code, Verifier, RedirectURI, Nonce string }

// Exchange finds out whom a code is of.
func (c *Client) Exchange(ctx context.Context, p Provider, code Code) (Person, error) {
	return c.exchange(ctx, p, code.Nonce, func(ctx context.Context, cfg *oauth2.Config) (*oauth2.Token, error) {
		cfg.RedirectURL = code.RedirectURI
		return cfg.Exchange(ctx, code.Code, oauth2.VerifierOption(code.Verifier))
	})
}

// Device begins a device flow.
func (c *Client) Device(ctx context.Context, p Provider) (*oauth2.DeviceAuthResponse, error) {
	found, err := c.discover(ctx, p)
	if err != nil {
		return nil, err
	}
	if found.Endpoint().DeviceAuthURL == "" {
		return nil, &RefusedError{"the identity provider does not know the device flow"}
	}
	ctx, cancel := context.WithTimeout(oidc.ClientContext(ctx, c.http), answerWithin)
	defer cancel()
	d, err := c.config(found, p).DeviceAuth(ctx)
	return d, told(err)
}

const deviceGrant = "urn:ietf:params:oauth:grant-type:device_code"

// Poll asks once how a device flow stands; ErrPending while the person has not decided.
func (c *Client) Poll(ctx context.Context, p Provider, deviceCode string) (Person, error) {
	return c.exchange(ctx, p, "", func(ctx context.Context, cfg *oauth2.Config) (*oauth2.Token, error) {
		return cfg.Exchange(ctx, "", oauth2.SetAuthURLParam("grant_type", deviceGrant),
			oauth2.SetAuthURLParam("device_code", deviceCode))
	})
}

func (c *Client) exchange(ctx context.Context, p Provider, nonce string,
	ask func(context.Context, *oauth2.Config) (*oauth2.Token, error)) (Person, error) {
	found, err := c.discover(ctx, p)
	if err != nil {
		return Person{}, err
	}
	ctx, cancel := context.WithTimeout(oidc.ClientContext(ctx, c.http), answerWithin)
	defer cancel()
	token, err := ask(ctx, c.config(found, p))
	if err != nil {
		return Person{}, told(err)
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return Person{}, &RefusedError{"the identity provider gave no ID token"}
	}
	return c.verify(ctx, found, p, raw, nonce)
}

// Verify finds out whom an ID token is of.
func (c *Client) Verify(ctx context.Context, p Provider, idToken, nonce string) (Person, error) {
	found, err := c.discover(ctx, p)
	if err != nil {
		return Person{}, err
	}
	ctx, cancel := context.WithTimeout(oidc.ClientContext(ctx, c.http), answerWithin)
	defer cancel()
	return c.verify(ctx, found, p, idToken, nonce)
}

func (c *Client) verify(ctx context.Context, found *oidc.Provider, p Provider, raw, nonce string) (Person, error) {
	audience := p.Audience
	if audience == "" {
		audience = p.ClientID
	}
	token, err := found.VerifierContext(ctx, &oidc.Config{ClientID: audience, Now: c.now}).Verify(ctx, raw)
	var expired *oidc.TokenExpiredError
	switch {
	case errors.As(err, &expired):
		return Person{}, &RefusedError{"the ID token has expired"}
	case errors.Is(err, ErrBusy), errors.Is(err, context.DeadlineExceeded):
		return Person{}, told(err)
	case err != nil:
		return Person{}, &RefusedError{"the ID token is not one of the identity provider's for this cluster"}
	case nonce != "" && token.Nonce != nonce:
		return Person{}, &RefusedError{"the ID token is not for this sign-in: its nonce is another one"}
	}
	who := Person{Subject: token.Subject}
	if err := token.Claims(&who.Claims); err != nil {
		return who, &RefusedError{"the claims of the ID token cannot be read"}
	}
	return who, nil
}

// told sorts what went wrong with the provider.
func told(err error) error {
	var answer *oauth2.RetrieveError
	var syntax *json.SyntaxError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrBusy):
		return ErrBusy
	case errors.As(err, &answer) && (answer.ErrorCode == "authorization_pending" || answer.ErrorCode == "slow_down"):
		return ErrPending
	case errors.As(err, &answer) && answer.Response != nil && answer.Response.StatusCode < 500:
		return &RefusedError{"the identity provider refuses: " + word(answer.ErrorCode)}
	case errors.As(err, &syntax):
		return &RefusedError{"the identity provider's answer cannot be read"}
	}
	return ErrAway
}

// word returns an error code (RFC 6749, section 5.2), and nothing else that a provider may say.
func word(code string) string {
	if code == "" || len(code) > 64 {
		return "no reason was given"
	}
	for _, c := range code {
		if (c < 'a' || c > 'z') && c != '_' {
			return "no reason was given"
		}
	}
	return code
}
