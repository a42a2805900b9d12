package api

import "time"

// LoginMethods says where people sign in; Issuer is empty when nobody does.
type LoginMethods struct {
	Issuer                string   `json:"issuer"`
	ClientID              string   `json:"clientId,omitempty"`
	AuthorizationEndpoint string   `json:"authorizationEndpoint,omitempty"`
	Device                bool     `json:"device"` // the device flow is known there
	Scopes                []string `json:"scopes,omitempty"`
	Problem               string   `json:"problem,omitempty"` // why nobody can sign in now
}

// LoginPending says that the person has not decided yet. With Slower the questions come too often: the interval grows by
// five seconds (RFC 8628, section 3.5).
type LoginPending struct {
	Message string `json:"message"`
	Slower  bool   `json:"slower,omitempty"`
}

// DeviceLogin is a sign-in that goes on in a browser somewhere else (RFC 8628, section 3.2).
type DeviceLogin struct {
	DeviceCode              string    `json:"deviceCode"`
	UserCode                string    `json:"userCode"`
	VerificationURI         string    `json:"verificationUri"`
	VerificationURIComplete string    `json:"verificationUriComplete,omitempty"`
	Interval                int64     `json:"interval"` // seconds between two questions whether it is done
	ExpiresAt               time.Time `json:"expiresAt,omitzero"`
}
