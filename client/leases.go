package client

import (
	"context"
	"net/url"
	"strconv"
	"time"

	"muster/api"
)

const leases = "/api/v1/cluster/leases"

// Lease says that something still runs on a member: a drain waits for it.
type Lease = api.Lease

// PutLease grants a lease on a member or renews it for ttl, sent in whole seconds, rounded up, at most a day. A new lease on
// a member that is being drained is refused (409).
func (c *Client) PutLease(ctx context.Context, id string, nodeID uint64, kind string, ttl time.Duration) (Lease,
	error) {
	body := struct {
		NodeID     uint64 `json:"nodeId"`
		TTLSeconds int64  `json:"ttlSeconds"`
		Kind       string `json:"kind,omitempty"`
	}{nodeID, seconds(ttl), kind}
	return enveloped[Lease](ctx, c, request{method: "PUT", path: leases + "/" + url.PathEscape(id), body: body,
		repeat: on503})
}

// DeleteLease releases a lease before it expires.
func (c *Client) DeleteLease(ctx context.Context, id string) error {
	_, err := c.do(ctx, request{method: "DELETE", path: leases + "/" + url.PathEscape(id), repeat: on503})
	return err
}

// Leases lists the leases of a member, or of all with nodeID 0.
func (c *Client) Leases(ctx context.Context, nodeID uint64) ([]Lease, error) {
	r := request{method: "GET", path: leases, repeat: always, stale: true}
	if nodeID != 0 {
		r.query = url.Values{"nodeId": {strconv.FormatUint(nodeID, 10)}}
	}
	return enveloped[[]Lease](ctx, c, r)
}
