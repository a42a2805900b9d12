// Package signin asks an OpenID provider who somebody is: authorization code with PKCE, device flow, and ID tokens that
// a caller brings (OpenID Connect Core 1.0; RFC 7636; RFC 8628). It stores nothing and decides nothing: what a person
// may do, and the token that says so, are the caller's.
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
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/time/rate"

	"muster/internal/addr"
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
	Secret   string   // of a confidential client, or empty
	Audience string   // that ID tokens must be for; empty: ClientID
	Scopes   []string // to be asked for besides those that always are
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
	ErrSlower  = fmt.Errorf("%w, and is asked for too often", ErrPending) // RFC 8628, section 3.5
)

// RefusedError is why somebody is not signed in.
type RefusedError struct{ Why string }

func (e *RefusedError) Error() string { return e.Why }

// Client asks providers. The zero value is not usable: New makes one.
type Client struct {
	http  *http.Client
	limit *rate.Limiter
	now   func() time.Time
	log   *slog.Logger

	asking sync.Mutex // held while the provider is asked what it says of itself
	found  atomic.Pointer[discovered]
}

type discovered struct {
	issuer   string
	at       time.Time
	provider *oidc.Provider // nil: it did not answer
	keys     oidc.KeySet    // its keys, as far as they were needed
	about    metadata
}

// New returns a client. now is the clock by which tokens end; log hears why a provider cannot be used, which strangers
// are not told.
//
// dials says where a provider may be. Proxies of the environment are the machine's own, and may be on loopback.
func New(now func() time.Time, log *slog.Logger, dials addr.DialPolicy) *Client {
	c := &Client{limit: rate.NewLimiter(perSecond, 2*perSecond), now: now, log: log}
	proxy := http.ProxyFromEnvironment
	c.http = &http.Client{
		Transport:     bounded{c.limit, transport(dials, nil), transport(anywhere, proxy), proxy},
		Timeout:       answerWithin,
		CheckRedirect: noRedirect,
	}
	return c
}

// bounded sends few requests, and reads little of each answer.
type bounded struct {
	limit        *rate.Limiter
	next, behind http.RoundTripper // without a proxy, and behind one
	proxy        func(*http.Request) (*url.URL, error)
}

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	if !b.limit.Allow() {
		return nil, ErrBusy
	}
	if err := allowed(r.URL.String(), r.URL.Scheme == "http"); err != nil {
		return nil, err
	}
	next := b.next
	if proxy, err := b.proxy(r); err != nil {
		return nil, err
	} else if proxy != nil { // which resolves names itself
		if err := anywhere.CheckLiteral(net.JoinHostPort(r.URL.Hostname(), "443")); err != nil {
			return nil, err
		}
		next = b.behind
	}
	resp, err := next.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	}
	return resp, err
}

// discover returns what the provider says of itself, which is remembered, as is that it did not answer. One request at
// a time asks; nobody waits behind it.
func (c *Client) discover(ctx context.Context, p Provider) (*discovered, error) {
	last := c.found.Load()
	if last != nil && last.issuer != p.Issuer {
		last = nil
	}
	if f := last; f != nil {
		switch age := time.Since(f.at); {
		case f.provider == nil && age < awayFor:
			return nil, ErrAway
		case f.provider != nil && age < remembered:
			return f, nil
		}
	}
	if !c.asking.TryLock() {
		return nil, ErrBusy
	}
	defer c.asking.Unlock()
	ctx, cancel := context.WithTimeout(oidc.ClientContext(ctx, c.http), answerWithin)
	defer cancel()
	now, err := learn(ctx, p.Issuer)
	switch {
	case err == nil:
		c.found.Store(now)
		return now, nil
	case errors.Is(err, ErrBusy):
		return nil, ErrBusy
	case last != nil && last.provider != nil: // as it was, for a while
		again := *last
		again.at = time.Now().Add(awayFor - remembered)
		c.found.Store(&again)
		return last, nil
	}
	c.found.Store(&discovered{issuer: p.Issuer, at: time.Now()})
	c.log.Warn("nobody can sign in: the identity provider cannot be used", "issuer", p.Issuer, "err", brief(err))
	return nil, fmt.Errorf("%w: %w", ErrAway, err)
}

// learn asks a provider what it says of itself. ctx has the HTTP client, for its keys too.
func learn(ctx context.Context, issuer string) (*discovered, error) {
	provider, err := oidc.NewProvider(ctx, issuer)
	if err != nil {
		return nil, err
	}
	d := &discovered{issuer: issuer, at: time.Now(), provider: provider}
	if err := provider.Claims(&d.about); err != nil {
		return nil, err
	}
	d.keys = oidc.NewRemoteKeySet(ctx, d.about.Keys)
	return d, d.usable()
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
	e := found.provider.Endpoint()
	return Endpoints{e.AuthURL, e.DeviceAuthURL != ""}, nil
}

func (c *Client) config(found *discovered, p Provider) *oauth2.Config {
	e := found.provider.Endpoint()
	e.AuthStyle = found.about.style(p.Secret)
	return &oauth2.Config{ClientID: p.ClientID, ClientSecret: p.Secret, Endpoint: e, Scopes: p.Asks()}
}

// Asks lists the scopes that are asked for.
func (p Provider) Asks() []string {
	return slices.Concat([]string{oidc.ScopeOpenID, "email", "profile"}, p.Scopes)
}

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
	if found.provider.Endpoint().DeviceAuthURL == "" {
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
	who, err := c.verify(ctx, found, p, raw, nonce)
	if err != nil {
		return who, err
	}
	return who, c.complete(ctx, found, token, &who)
}

// complete adds what the provider tells at its userinfo endpoint alone: most claims (OpenID Connect Core 1.0, section
// 5.4). What the ID token says stays. A provider that has no such endpoint, or refuses, has told all.
func (c *Client) complete(ctx context.Context, found *discovered, token *oauth2.Token, who *Person) error {
	if found.provider.UserInfoEndpoint() == "" || token.AccessToken == "" {
		return nil
	}
	info, err := found.provider.UserInfo(ctx, oauth2.StaticTokenSource(token))
	var unreachable *url.Error
	switch {
	case errors.As(err, &unreachable):
		return told(err)
	case err != nil:
		return nil
	case info.Subject != who.Subject: // section 5.3.2
		return &RefusedError{"the identity provider speaks of two different people"}
	}
	var more map[string]any
	if err := info.Claims(&more); err != nil {
		return &RefusedError{"the claims of the person cannot be read"}
	}
	for name, value := range who.Claims {
		more[name] = value
	}
	who.Claims = more
	return nil
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

func (c *Client) verify(ctx context.Context, found *discovered, p Provider, raw, nonce string) (Person, error) {
	audience := p.Audience
	if audience == "" {
		audience = p.ClientID
	}
	keys := &noting{KeySet: found.keys}
	token, err := oidc.NewVerifier(found.issuer, keys, &oidc.Config{ClientID: audience, Now: c.now,
		SupportedSigningAlgs: found.about.algorithms()}).Verify(ctx, raw)
	var expired *oidc.TokenExpiredError
	switch {
	case errors.As(err, &expired):
		return Person{}, &RefusedError{"the ID token has expired"}
	case keys.away():
		return Person{}, told(keys.err)
	case err != nil:
		return Person{}, &RefusedError{"the ID token is not one of the identity provider's for this cluster"}
	case nonce != "" && token.Nonce != nonce:
		return Person{}, &RefusedError{"the ID token is not for this sign-in: its nonce is another one"}
	}
	who := Person{Subject: token.Subject}
	if err := token.Claims(&who.Claims); err != nil {
		return who, &RefusedError{"the claims of the ID token cannot be read"}
	}
	if azp, given := who.Claims["azp"]; given && azp != p.ClientID && p.Audience == "" { // section 3.1.3.7
		return who, &RefusedError{"the ID token was given to another client"}
	}
	if !validSubject(who.Subject) {
		return who, &RefusedError{"the subject of the ID token must be a printable text of 1 to 240 bytes"}
	}
	return who, nil
}

// noting remembers why a signature could not be judged: the verifier says it in words alone.
type noting struct {
	oidc.KeySet
	err error
}

func (n *noting) VerifySignature(ctx context.Context, raw string) (payload []byte, err error) {
	payload, n.err = n.KeySet.VerifySignature(ctx, raw)
	return payload, n.err
}

// away reports whether the provider's keys could not be had, which the library says in words as well.
func (n *noting) away() bool {
	return n.err != nil &&
		(errors.Is(n.err, context.DeadlineExceeded) || strings.HasPrefix(n.err.Error(), "fetching keys "))
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
	case errors.As(err, &answer) && answer.ErrorCode == "authorization_pending":
		return ErrPending
	case errors.As(err, &answer) && answer.ErrorCode == "slow_down":
		return ErrSlower
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
