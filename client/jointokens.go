package client

import (
	"context"
	"net/url"
	"time"

	"muster/api"
)

const joinTokens = "/api/v1/cluster/join-tokens"

// JoinTokenRequest describes a new join token. Zero fields have the server's defaults.
type JoinTokenRequest struct {
	NodeID  uint64        // the Raft id that the new member will have; 0: the next free one
	TTL     time.Duration // how long it may be used, sent in whole seconds, rounded up
	MaxUses int           // how many machines may use it
	Mode    string        // "full", or "replicate" for members that never vote
	Format  string        // "muster", or "zlayer" for machines with ZLayer's join

	BindCIDR string            // only callers from this prefix may use it
	BindName string            // only machines with a name that matches this pattern, such as "web-*"
	BindKey  string            // only the public key with this SHA-256, 64 lower-case hexadecimal digits
	Hosts    []string          // host names, patterns, addresses and networks allowed in the certificates of new members
	Labels   map[string]string // of the new members; they take precedence over the joiner's own
}

// JoinToken is an entry of the list of join tokens, without its secret.
type JoinToken = api.JoinToken

// TokenUse is one member that was admitted by a join token.
type TokenUse = api.TokenUse

// NewJoinToken is a new join token with its secret. The secret is never shown again.
type NewJoinToken = api.JoinToken

// CreateJoinToken makes a token for a joining machine.
func (c *Client) CreateJoinToken(ctx context.Context, r JoinTokenRequest) (NewJoinToken, error) {
	body := struct {
		NodeID     uint64 `json:"nodeId,omitempty"`
		TTLSeconds int64  `json:"ttlSeconds,omitempty"`
		MaxUses    int    `json:"maxUses,omitempty"`
		Mode       string `json:"mode,omitempty"`

		Format   string            `json:"format,omitempty"`
		BindCIDR string            `json:"bindCidr,omitempty"`
		BindName string            `json:"bindName,omitempty"`
		BindKey  string            `json:"bindKey,omitempty"`
		Hosts    []string          `json:"hosts,omitempty"`
		Labels   map[string]string `json:"labels,omitempty"`
	}{r.NodeID, seconds(r.TTL), r.MaxUses, r.Mode, r.Format, r.BindCIDR, r.BindName, r.BindKey, r.Hosts, r.Labels}
	return enveloped[NewJoinToken](ctx, c, request{method: "POST", path: joinTokens, body: body, repeat: alwaysKeyed})
}

// JoinTokens lists the join tokens, used and expired ones included.
func (c *Client) JoinTokens(ctx context.Context) ([]JoinToken, error) {
	return enveloped[[]JoinToken](ctx, c, request{method: "GET", path: joinTokens, repeat: always, stale: true})
}

// RevokeJoinToken revokes a join token. Members that joined with it stay.
func (c *Client) RevokeJoinToken(ctx context.Context, id string) error {
	_, err := c.do(ctx, request{method: "DELETE", path: joinTokens + "/" + url.PathEscape(id), repeat: on503})
	return err
}
