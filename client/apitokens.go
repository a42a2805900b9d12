package client

import (
	"context"
	"net/url"
	"time"

	"muster/api"
)

const apiTokens = "/api/v1/api-tokens"

// Scopes lists the scopes of API tokens. "management" includes all others.
var Scopes = []string{"management", "cluster:read", "cluster:manage", "peering:read", "peering:write", "enroll",
	"keys:manage"}

// APITokenRequest describes a new API token.
type APITokenRequest struct {
	Name   string
	Scopes []string      // of Scopes
	TTL    time.Duration // sent in whole seconds, rounded up; 0: it does not expire
}

// APIToken is an entry of the list of API tokens, without its secret.
type APIToken = api.APIToken

// NewAPIToken is a new API token with its secret. The secret is never shown again.
type NewAPIToken = api.APIToken

// CreateAPIToken makes a token for calls to the API.
func (c *Client) CreateAPIToken(ctx context.Context, r APITokenRequest) (NewAPIToken, error) {
	body := struct {
		Name       string   `json:"name"`
		Scopes     []string `json:"scopes"`
		TTLSeconds int64    `json:"ttlSeconds,omitempty"`
	}{r.Name, append([]string{}, r.Scopes...), seconds(r.TTL)}
	return enveloped[NewAPIToken](ctx, c, request{method: "POST", path: apiTokens, body: body, repeat: alwaysKeyed})
}

// APITokens lists the API tokens.
func (c *Client) APITokens(ctx context.Context) ([]APIToken, error) {
	return enveloped[[]APIToken](ctx, c, request{method: "GET", path: apiTokens, repeat: always, stale: true})
}

// RevokeAPIToken revokes an API token. Every member refuses it at once.
func (c *Client) RevokeAPIToken(ctx context.Context, id string) error {
	_, err := c.do(ctx, request{method: "DELETE", path: apiTokens + "/" + url.PathEscape(id), repeat: on503})
	return err
}

// WhoAmI describes the Client's token.
type WhoAmI = api.Whoami

// WhoAmI returns the owner and the scopes of the Client's token. For an invalid token it fails with an *Error of status
// 401.
func (c *Client) WhoAmI(ctx context.Context) (WhoAmI, error) {
	return enveloped[WhoAmI](ctx, c, request{method: "GET", path: "/api/v1/whoami", repeat: always, stale: true})
}

// LoginMethods describes how people sign in.
type LoginMethods = api.LoginMethods

// DeviceLogin is a sign-in that is completed in a browser elsewhere.
type DeviceLogin = api.DeviceLogin

// CodeLogin is the identity provider's answer, delivered by a browser (RFC 7636).
type CodeLogin struct {
	Code        string `json:"code"`
	Verifier    string `json:"codeVerifier"`
	RedirectURI string `json:"redirectUri"`
	Nonce       string `json:"nonce,omitempty"`
}

const login = "/api/v1/login"

// LoginMethods returns the sign-in methods; Issuer is empty when sign-in is off. It needs no token.
func (c *Client) LoginMethods(ctx context.Context) (LoginMethods, error) {
	return enveloped[LoginMethods](ctx, c, request{method: "GET", path: login, repeat: always})
}

// BeginDeviceLogin begins a sign-in without a browser here. It needs no token.
func (c *Client) BeginDeviceLogin(ctx context.Context) (DeviceLogin, error) {
	return enveloped[DeviceLogin](ctx, c, request{method: "POST", path: login + "/device"})
}

// PollDeviceLogin asks once whether the person has confirmed the sign-in. Until then the token is empty; slower demands
// five more seconds between two polls (RFC 8628, section 3.5).
func (c *Client) PollDeviceLogin(ctx context.Context, deviceCode string) (t NewAPIToken, slower bool, err error) {
	body := map[string]string{"deviceCode": deviceCode}
	answer, err := enveloped[struct {
		NewAPIToken
		api.LoginPending
	}](ctx, c, request{method: "POST", path: login, body: body})
	return answer.NewAPIToken, answer.Slower, err
}

// LogIn signs a person in with the code from a browser.
func (c *Client) LogIn(ctx context.Context, code CodeLogin) (NewAPIToken, error) {
	return enveloped[NewAPIToken](ctx, c, request{method: "POST", path: login, body: code})
}

// LogOut revokes the Client's own token, which must come from a sign-in.
func (c *Client) LogOut(ctx context.Context) error {
	_, err := c.do(ctx, request{method: "DELETE", path: login, repeat: on503})
	return err
}
