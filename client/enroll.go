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

// EnrollTokenRequest describes a new enrollment token. Zero fields have the server's defaults.
type EnrollTokenRequest struct {
	Name    string
	Scope   string        // "node" or "kibana"
	TTL     time.Duration // how long it may be used, sent in whole seconds, rounded up
	MaxUses int           // how often it may be used
}

// EnrollToken is an entry of the list of enrollment tokens, without its secret.
type EnrollToken = api.EnrollToken

// NewEnrollToken is a new enrollment token with its text: Base64 of {"ver","adr","fgr","key"}, as printed by
// Elasticsearch's own tool. The text is never shown again.
type NewEnrollToken = api.EnrollToken

// Enrollment is the record of an enrollment, without its key material.
type Enrollment = api.Enrollment

// CreateEnrollToken makes a token for enrolling other software.
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

// RevokeEnrollToken revokes an enrollment token and, unless keepEnrollments is true, its enrollments. It returns the
// number of revoked enrollments.
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

// Enrollments lists the enrollments of other software.
func (c *Client) Enrollments(ctx context.Context) ([]Enrollment, error) {
	return enveloped[[]Enrollment](ctx, c, request{method: "GET", path: enrollments, repeat: always, stale: true})
}

// RevokeEnrollment revokes the certificates of an enrollment and deletes its service token.
func (c *Client) RevokeEnrollment(ctx context.Context, id string) error {
	_, err := c.do(ctx, request{method: "DELETE", path: enrollments + "/" + url.PathEscape(id), repeat: on503})
	return err
}
