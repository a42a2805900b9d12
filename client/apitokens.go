package client

import (
	"context"
	"net/url"
	"time"

	"muster/api"
)

const apiTokens = "/api/v1/api-tokens"

// Scopes lists what an API token can be for. "management" includes all others.
var Scopes = []string{"management", "cluster:read", "cluster:manage", "peering:read", "peering:write", "enroll",
	"keys:manage"}

// APITokenRequest says what a new API token is for.
type APITokenRequest struct {
	Name   string
	Scopes []string      // of Scopes
	TTL    time.Duration // sent in whole seconds, rounded up; 0: it does not expire
}

// APIToken is an API token as it is listed, without its secret.
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

// RevokeAPIToken makes an API token useless at once.
func (c *Client) RevokeAPIToken(ctx context.Context, id string) error {
	_, err := c.do(ctx, request{method: "DELETE", path: apiTokens + "/" + url.PathEscape(id), repeat: on503})
	return err
}

// WhoAmI is what the cluster knows of the Client's token.
type WhoAmI = api.Whoami

// WhoAmI says whose token the Client shows and what it allows. It fails with an *Error of status 401 when the cluster does not
// know it.
func (c *Client) WhoAmI(ctx context.Context) (WhoAmI, error) {
	return enveloped[WhoAmI](ctx, c, request{method: "GET", path: "/api/v1/whoami", repeat: always, stale: true})
}

// LoginMethods says where people sign in.
type LoginMethods = api.LoginMethods

// DeviceLogin is a sign-in that goes on in a browser somewhere else.
type DeviceLogin = api.DeviceLogin

// CodeLogin is what a browser brings back from the identity provider (RFC 7636).
type CodeLogin struct {
	Code        string `json:"code"`
	Verifier    string `json:"codeVerifier"`
	RedirectURI string `json:"redirectUri"`
	Nonce       string `json:"nonce,omitempty"`
}

const login = "/api/v1/login"

// LoginMethods returns where people sign in; its Issuer is empty when nobody does. It needs no token.
func (c *Client) LoginMethods(ctx context.Context) (LoginMethods, error) {
	return enveloped[LoginMethods](ctx, c, request{method: "GET", path: login, repeat: always})
}

// BeginDeviceLogin begins a sign-in without a browser here. It needs no token.
func (c *Client) BeginDeviceLogin(ctx context.Context) (DeviceLogin, error) {
	return enveloped[DeviceLogin](ctx, c, request{method: "POST", path: login + "/device"})
}

// PollDeviceLogin asks once whether the person has said yes. The token is empty while that has not happened;
// slower says that the next question is to come five seconds later than this one did.
func (c *Client) PollDeviceLogin(ctx context.Context, deviceCode string) (t NewAPIToken, slower bool, err error) {
	body := map[string]string{"deviceCode": deviceCode}
	answer, err := enveloped[struct {
		NewAPIToken
		api.LoginPending
	}](ctx, c, request{method: "POST", path: login, body: body})
	return answer.NewAPIToken, answer.Slower, err
}

// LogIn signs a person in with what a browser has brought back.
func (c *Client) LogIn(ctx context.Context, code CodeLogin) (NewAPIToken, error) {
	return enveloped[NewAPIToken](ctx, c, request{method: "POST", path: login, body: code})
}

// LogOut revokes the Client's own token, which must be that of a person who has signed in.
func (c *Client) LogOut(ctx context.Context) error {
	_, err := c.do(ctx, request{method: "DELETE", path: login, repeat: on503})
	return err
}
