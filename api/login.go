package api

import "time"

// LoginMethods describes the OpenID provider for sign-in; Issuer is empty when sign-in is not configured.
type LoginMethods struct {
	Issuer                string   `json:"issuer"`
	ClientID              string   `json:"clientId,omitempty"`
	AuthorizationEndpoint string   `json:"authorizationEndpoint,omitempty"`
	Device                bool     `json:"device"` // the provider supports the device flow
	Scopes                []string `json:"scopes,omitempty"`
	Problem               string   `json:"problem,omitempty"` // why sign-in does not work now
}

// LoginPending means that the person has not decided yet. Slower means that the client polls too often: it must add
// five seconds to its interval (RFC 8628, section 3.5).
type LoginPending struct {
	Message string `json:"message"`
	Slower  bool   `json:"slower,omitempty"`
}

// DeviceLogin is a sign-in that is completed in a browser on another device (RFC 8628, section 3.2).
type DeviceLogin struct {
	DeviceCode              string    `json:"deviceCode"`
	UserCode                string    `json:"userCode"`
	VerificationURI         string    `json:"verificationUri"`
	VerificationURIComplete string    `json:"verificationUriComplete,omitempty"`
	Interval                int64     `json:"interval"` // seconds between two polls
	ExpiresAt               time.Time `json:"expiresAt,omitzero"`
}
