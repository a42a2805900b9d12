package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"muster/api"
)

// The states of Member.DrainState.
const (
	DrainActive   = api.DrainActive
	DrainDraining = api.DrainDraining
	DrainDrained  = api.DrainDrained
)

// Member is one machine of the cluster.
type Member = api.Member

// HookOutcome is the result of one drain or resume hook on its member.
type HookOutcome = api.HookOutcome

// Members lists the cluster's members by ascending NodeID.
func (c *Client) Members(ctx context.Context) ([]Member, error) {
	return enveloped[[]Member](ctx, c, request{method: "GET", path: "/api/v1/cluster/members", repeat: always,
		stale: true})
}

// Member returns one member. It fails with an *Error of status 404 for an unknown id.
func (c *Client) Member(ctx context.Context, nodeID uint64) (Member, error) {
	return enveloped[Member](ctx, c, request{method: "GET", path: memberPath(nodeID, ""), repeat: always, stale: true})
}

// DrainMember takes work away from a member: its drain hooks run, the drain waits for its leases until the deadline,
// and it hands leadership over. The deadline is sent in whole seconds, rounded up, at most an hour. With a deadline of
// 0 the call blocks until the member is drained (give the context more than the default timeout); otherwise it returns
// at once. It returns the state, DrainDraining or DrainDrained. Repeating a drain changes nothing.
func (c *Client) DrainMember(ctx context.Context, nodeID uint64, deadline time.Duration) (state string, err error) {
	body := map[string]int64{"deadlineSeconds": seconds(deadline)}
	result, err := enveloped[api.Drain](ctx, c, request{
		method: "POST",
		path:   memberPath(nodeID, "/drain"),
		body:   body,
		repeat: on503,
		slow:   true,
	})
	if err == nil && result.DrainState == "" {
		err = fmt.Errorf("the answer to the drain of member %d names no state", nodeID)
	}
	return result.DrainState, err
}

// ResumeMember ends or cancels the drain of a member. Without a drain it does nothing.
func (c *Client) ResumeMember(ctx context.Context, nodeID uint64) error {
	_, err := c.do(ctx, request{method: "POST", path: memberPath(nodeID, "/resume"), repeat: on503, slow: true})
	return err
}

// PromoteMember makes a member a voter at once. For a voter it is refused (409).
func (c *Client) PromoteMember(ctx context.Context, nodeID uint64) error {
	_, err := c.do(ctx, request{method: "POST", path: memberPath(nodeID, "/promote"), slow: true})
	return err
}

// RemoveMember removes a member for good: its identity is revoked and the keys change. It is refused (409) for the
// leader and, unless forced, for a member that is not drained. It returns the number of valid join tokens that the new
// keys end.
func (c *Client) RemoveMember(ctx context.Context, nodeID uint64, force bool) (tokensEnded int, err error) {
	r := request{
		method: "DELETE",
		path:   memberPath(nodeID, ""),
		repeat: on503,
		slow:   true,
		header: func(h http.Header) { tokensEnded, _ = strconv.Atoi(h.Get("X-Muster-Tokens-Ended")) },
	}
	if force {
		r.query = url.Values{"force": {"true"}}
	}
	_, err = c.do(ctx, r)
	return tokensEnded, err
}

func memberPath(nodeID uint64, action string) string {
	return "/api/v1/cluster/members/" + strconv.FormatUint(nodeID, 10) + action
}

const leases = "/api/v1/cluster/leases"

// Lease records work that runs on a member; a drain waits for it.
type Lease = api.Lease

// PutLease grants a lease on a member, or renews it. ttl is sent in whole seconds, rounded up, at most a day. A new
// lease on a draining member is refused (409).
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
