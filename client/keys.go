package client

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"time"

	"muster/api"
)

// Generation is one generation of the cluster's data-encryption key.
type Generation = api.Generation

// JoinKeys is the result of a rotation of the join keys.
type JoinKeys = api.JoinKeys

// NodeToken is the identity of a node, a JSON Web Token (EdDSA).
type NodeToken = api.NodeToken

// NodeKey is a public key for verifying node identities, a JSON Web Key (RFC 8037).
type NodeKey struct {
	KeyID     string `json:"kid"`
	Type      string `json:"kty"` // "OKP"
	Curve     string `json:"crv"` // "Ed25519"
	Algorithm string `json:"alg"` // "EdDSA"
	Use       string `json:"use"` // "sig"
	X         string `json:"x"`   // the key, base64url without padding
}

// PublicKey decodes the key. It fails if that is not an Ed25519 key.
func (k NodeKey) PublicKey() (ed25519.PublicKey, error) {
	raw, err := base64.RawURLEncoding.DecodeString(k.X)
	if err != nil || k.Type != "OKP" || k.Curve != "Ed25519" || len(raw) != ed25519.PublicKeySize {
		return nil, errors.New("the key " + k.KeyID + " is not an Ed25519 public key")
	}
	return ed25519.PublicKey(raw), nil
}

// Generations lists the generations of the data-encryption key, the oldest first.
func (c *Client) Generations(ctx context.Context) ([]Generation, error) {
	return enveloped[[]Generation](ctx, c, request{method: "GET", path: "/api/v1/cluster/keys", repeat: always,
		stale: true})
}

// RotateDEK makes a new generation of the data-encryption key and returns its number. It does not wait for the
// re-encryption; Generations returns the progress. If maxAge is not nil, it also sets the age for automatic rotations,
// sent in whole seconds, rounded up: 0 for never, otherwise at least an hour.
func (c *Client) RotateDEK(ctx context.Context, maxAge *time.Duration) (generation uint64, err error) {
	r := request{method: "POST", path: "/api/v1/cluster/keys/rotate", repeat: alwaysKeyed}
	if maxAge != nil {
		r.body = map[string]int64{"maxAgeSeconds": seconds(*maxAge)}
	}
	made, err := enveloped[struct {
		Generation uint64 `json:"generation"`
	}](ctx, c, r)
	return made.Generation, err
}

// RotateJoinKeys makes new keys for join tokens. Older tokens remain valid during the grace, sent in whole seconds,
// rounded up, at most 90 days; with 0 they end at once.
func (c *Client) RotateJoinKeys(ctx context.Context, grace time.Duration) (JoinKeys, error) {
	body := map[string]int64{"graceSeconds": seconds(grace)}
	return enveloped[JoinKeys](ctx, c, request{method: "POST", path: "/api/v1/cluster/join-keys/rotate", body: body,
		repeat: alwaysKeyed})
}

// RenewNodeToken gets a new identity for the node whose identity is this Client's token (node_jwt of the join).
func (c *Client) RenewNodeToken(ctx context.Context) (NodeToken, error) {
	return enveloped[NodeToken](ctx, c, request{method: "POST", path: "/api/v1/cluster/node-token", repeat: always})
}

// JWKS returns the keys for verifying node identities, the newest first. It needs no token.
func (c *Client) JWKS(ctx context.Context) ([]NodeKey, error) {
	set, err := plain[struct {
		Keys []NodeKey `json:"keys"`
	}](ctx, c, request{method: "GET", path: "/.well-known/jwks.json", repeat: always})
	return set.Keys, err
}
