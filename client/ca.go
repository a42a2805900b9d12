package client

import (
	"context"
	"net/url"
	"strconv"
	"time"
)

// CAKind is everything about the certificate authorities of one kind.
type CAKind struct {
	Kind            string         `json:"kind"`        // "http" or "transport"
	Generations     []CAGeneration `json:"generations"` // the oldest first
	Rotation        *CARotation    `json:"rotation,omitempty"`
	RotationAdvised string         `json:"rotationAdvised,omitempty"` // why the CA should be rotated
}

// CAGeneration is one certificate authority.
type CAGeneration struct {
	Generation  uint64    `json:"generation"`
	State       string    `json:"state"`  // "prepared", "active", "trusted" or "retired"
	Origin      string    `json:"origin"` // "muster", or "operator" for one that was brought
	Fingerprint string    `json:"fingerprint"`
	Subject     string    `json:"subject"`
	NotBefore   time.Time `json:"notBefore"`
	NotAfter    time.Time `json:"notAfter"`
	DaysLeft    int       `json:"daysLeft"`
	CreatedAt   time.Time `json:"createdAt"`
	Certificate string    `json:"certificate"` // PEM; an operator's with those that certify it
}

// CARotation is a rotation that is under way.
type CARotation struct {
	Phase      string      `json:"phase"` // "trust", "issue" or "overlap"
	Old        uint64      `json:"old"`   // generation that is to go
	New        uint64      `json:"new"`
	RolledBack bool        `json:"rolledBack"`
	StartedAt  time.Time   `json:"startedAt"`
	StartedBy  string      `json:"startedBy"`
	PhaseSince time.Time   `json:"phaseSince"`
	Overlap    string      `json:"overlap"` // a Go duration
	DropAt     *time.Time  `json:"dropAt,omitempty"`
	Pending    []CAPending `json:"pending"` // members that it waits for, or has left behind
}

// CAPending is a member that a rotation waits for.
type CAPending struct {
	NodeID uint64 `json:"nodeId"`
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// CARequest asks for a change of the certificate authorities. What is empty is left to the cluster.
type CARequest struct {
	Kind    string `json:"kind,omitempty"`   // "http", "transport" or "all", the default
	Action  string `json:"action,omitempty"` // "start", the default, "continue", "drop" or "rollback"
	DryRun  bool   `json:"dryRun,omitempty"`
	Force   bool   `json:"force,omitempty"`   // continue or drop without the members that hold the rotation back
	Overlap string `json:"overlap,omitempty"` // a Go duration, how long the old CA stays trusted
	CertPEM string `json:"certPEM,omitempty"` // an operator's own CA, for one kind
	KeyPEM  string `json:"keyPEM,omitempty"`
}

// CAChange says what a CARequest did, or would do.
type CAChange struct {
	DryRun   bool     `json:"dryRun"`
	Steps    []string `json:"steps"`
	Warnings []string `json:"warnings"`
}

// Certificate is a leaf that the cluster has issued.
type Certificate struct {
	Serial    string     `json:"serial"` // lower hex
	Kind      string     `json:"kind"`
	NodeID    uint64     `json:"nodeId,omitempty"`
	Node      string     `json:"node,omitempty"`      // name of the member, empty when it is none any more
	Authority uint64     `json:"authority,omitempty"` // generation of the CA of that kind
	IssuedAt  time.Time  `json:"issuedAt"`
	ExpiresAt time.Time  `json:"expiresAt"`
	DaysLeft  int        `json:"daysLeft"`
	RevokedAt *time.Time `json:"revokedAt,omitempty"`
	Current   bool       `json:"current"` // the newest of its kind that the member has
}

// CertificateFilter says which certificates are asked for; zero fields do not matter.
type CertificateFilter struct {
	NodeID        uint64
	Kind          string
	ExpiresWithin time.Duration
	Current       bool
	Limit         int // the cluster gives 1000 when it is 0, 10000 at the most
}

// CA shows the certificate authorities of both kinds and what is going on with them.
func (c *Client) CA(ctx context.Context) ([]CAKind, error) {
	return enveloped[[]CAKind](ctx, c, request{method: "GET", path: "/api/v1/cluster/ca", repeat: always, stale: true})
}

// RotateCA starts the rotation of a certificate authority or changes one that is under way. It does not wait: CA shows how
// far it is.
func (c *Client) RotateCA(ctx context.Context, r CARequest) (CAChange, error) {
	return enveloped[CAChange](ctx, c, request{method: "POST", path: "/api/v1/cluster/ca/rotate", body: r, repeat: alwaysKeyed})
}

// Certificates lists the leaves that the cluster has issued, those first that expire first.
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
	return enveloped[[]Certificate](ctx, c, request{method: "GET", path: "/api/v1/cluster/certificates", query: query, repeat: always, stale: true})
}
