package client

import (
	"context"
	"net/url"
	"strconv"
	"time"

	"muster/api"
)

// CAKind is everything about the certificate authorities of one kind.
type CAKind = api.CAKind

// CAGeneration is one certificate authority.
type CAGeneration = api.CAGeneration

// CARotation is a running rotation.
type CARotation = api.CARotation

// CAPending is a member that a rotation waits for.
type CAPending = api.CAPending

// CARequest requests a change of the certificate authorities. Empty fields have defaults.
type CARequest struct {
	Kind    string `json:"kind,omitempty"`   // "http", "transport", "workload" or "all", the default
	Action  string `json:"action,omitempty"` // "start", the default, "continue", "drop" or "rollback"
	DryRun  bool   `json:"dryRun,omitempty"`
	Force   bool   `json:"force,omitempty"`   // continue or drop without the members that hold the rotation back
	Overlap string `json:"overlap,omitempty"` // a Go duration, how long the old CA stays trusted
	CertPEM string `json:"certPEM,omitempty"` // an operator's own CA, for one kind
	KeyPEM  string `json:"keyPEM,omitempty"`
}

// CAChange is the effect of a CARequest, done or planned.
type CAChange = api.CAChange

// Certificate is a leaf that the cluster has issued.
type Certificate = api.Certificate

// CertificateFilter selects certificates; zero fields select everything.
type CertificateFilter struct {
	NodeID        uint64
	Kind          string
	ExpiresWithin time.Duration
	Current       bool
	Limit         int // 0: 1000; at most 10000
}

// CA returns the certificate authorities of every kind and their rotations.
func (c *Client) CA(ctx context.Context) ([]CAKind, error) {
	return enveloped[[]CAKind](ctx, c, request{method: "GET", path: "/api/v1/cluster/ca", repeat: always, stale: true})
}

// RotateCA starts the rotation of a certificate authority or changes a running one. It does not wait: CA returns the
// progress.
func (c *Client) RotateCA(ctx context.Context, r CARequest) (CAChange, error) {
	return enveloped[CAChange](ctx, c, request{method: "POST", path: "/api/v1/cluster/ca/rotate", body: r,
		repeat: alwaysKeyed})
}

// Certificates lists the leaves that the cluster has issued, ordered by expiry.
func (c *Client) Certificates(ctx context.Context, f CertificateFilter) ([]Certificate, error) {
	query := url.Values{}
	set := func(name, value string, given bool) {
		if given {
			query.Set(name, value)
		}
	}
	set("nodeId", strconv.FormatUint(f.NodeID, 10), f.NodeID != 0)
	set("kind", f.Kind, f.Kind != "")
	set("expiresWithin", f.ExpiresWithin.String(), f.ExpiresWithin != 0)
	set("current", "true", f.Current)
	set("limit", strconv.Itoa(f.Limit), f.Limit != 0)
	return enveloped[[]Certificate](ctx, c, request{
		method: "GET",
		path:   "/api/v1/cluster/certificates",
		query:  query,
		repeat: always,
		stale:  true,
	})
}
