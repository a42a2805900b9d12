package client

import (
	"context"
	"net/url"
	"time"

	"muster/api"
)

const (
	enrollTokens = "/api/v1/cluster/enrollment-tokens"
	enrollments  = "/api/v1/cluster/enrollments"
)

// EnrollTokenRequest says what a new enrollment token is for. Zero values leave the choice to the server.
type EnrollTokenRequest struct {
	Name    string
	Scope   string        // "node" or "kibana"
	TTL     time.Duration // how long it may be used, sent in whole seconds, rounded up
	MaxUses int           // how often it may be used
}

// EnrollToken is an enrollment token as it is listed, without its secret.
type EnrollToken = api.EnrollToken

// NewEnrollToken is an enrollment token that was just made, with its text, which is never shown again: Base64 of
// {"ver","adr","fgr","key"}, as Elasticsearch's own tool prints it.
type NewEnrollToken = api.EnrollToken

// Enrollment is the record of key material that was handed to other software, without that material.
type Enrollment = api.Enrollment

// CreateEnrollToken makes a token with which other software enrolls.
func (c *Client) CreateEnrollToken(ctx context.Context, r EnrollTokenRequest) (NewEnrollToken, error) {
	body := struct {
		Name       string `json:"name,omitempty"`
		Scope      string `json:"scope,omitempty"`
		TTLSeconds int64  `json:"ttlSeconds,omitempty"`
		MaxUses    int    `json:"maxUses,omitempty"`
	}{r.Name, r.Scope, seconds(r.TTL), r.MaxUses}
	return enveloped[NewEnrollToken](ctx, c, request{method: "POST", path: enrollTokens, body: body,
		repeat: alwaysKeyed})
}

// EnrollTokens lists the enrollment tokens, used and expired ones included.
func (c *Client) EnrollTokens(ctx context.Context) ([]EnrollToken, error) {
	return enveloped[[]EnrollToken](ctx, c, request{method: "GET", path: enrollTokens, repeat: always, stale: true})
}

// RevokeEnrollToken makes an enrollment token useless, and unless keepEnrollments is true also what was enrolled with it.
// It returns how many enrollments it has revoked.
func (c *Client) RevokeEnrollToken(ctx context.Context, id string, keepEnrollments bool) (int, error) {
	r := request{method: "DELETE", path: enrollTokens + "/" + url.PathEscape(id), repeat: on503}
	if keepEnrollments {
		r.query = url.Values{"keepEnrollments": {"true"}}
	}
	answer, err := enveloped[struct {
		Enrollments int `json:"enrollments"`
	}](ctx, c, r)
	return answer.Enrollments, err
}

// Enrollments lists what was handed to other software.
func (c *Client) Enrollments(ctx context.Context) ([]Enrollment, error) {
	return enveloped[[]Enrollment](ctx, c, request{method: "GET", path: enrollments, repeat: always, stale: true})
}

// RevokeEnrollment marks the certificates of an enrollment as revoked and deletes its service token.
func (c *Client) RevokeEnrollment(ctx context.Context, id string) error {
	_, err := c.do(ctx, request{method: "DELETE", path: enrollments + "/" + url.PathEscape(id), repeat: on503})
	return err
}
