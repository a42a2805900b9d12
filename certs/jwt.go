package certs

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// NodeClaims are the claims of a node identity (RFC 7519; `roles` and `node_id` from reference zlayer_join, section
// 5.1).
type NodeClaims struct {
	jwt.Claims
	Roles      []string `json:"roles"`
	NodeID     string   `json:"node_id"` // UUID
	RaftNodeID uint64   `json:"raft_node_id"`
}

// NodeJWTLifetime is how long a node identity is valid.
const NodeJWTLifetime = 24 * time.Hour

// ErrNodeJWT is the only error for a node identity that is not accepted.
var ErrNodeJWT = errors.New("certs: the node identity is not valid")

// MintNodeJWT signs the identity of a node with EdDSA (RFC 8037).
func MintNodeJWT(key ed25519.PrivateKey, kid, clusterID, nodeID string, raftNodeID uint64,
	now time.Time) (string, error) {
	with := jose.SigningKey{Algorithm: jose.EdDSA, Key: jose.JSONWebKey{Key: key, KeyID: kid}}
	signer, err := jose.NewSigner(with, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", fmt.Errorf("certs: sign a node identity: %w", err)
	}
	text, err := jwt.Signed(signer).Claims(NodeClaims{
		Claims: jwt.Claims{
			Issuer:    "muster:" + clusterID,
			Subject:   "node:" + nodeID,
			IssuedAt:  jwt.NewNumericDate(now),
			NotBefore: jwt.NewNumericDate(now),
			Expiry:    jwt.NewNumericDate(now.Add(NodeJWTLifetime)),
		},
		Roles: []string{"node"}, NodeID: nodeID, RaftNodeID: raftNodeID,
	}).Serialize()
	if err != nil {
		return "", fmt.Errorf("certs: sign a node identity: %w", err)
	}
	return text, nil
}

// DecodeNodeJWT returns the key id and the expiry of a node identity without verifying it.
func DecodeNodeJWT(text string) (kid string, expires time.Time, err error) {
	token, err := jwt.ParseSigned(text, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil || len(token.Headers) != 1 {
		return "", time.Time{}, ErrNodeJWT
	}
	var c NodeClaims
	if err := token.UnsafeClaimsWithoutVerification(&c); err != nil || c.Expiry == nil {
		return "", time.Time{}, ErrNodeJWT
	}
	return token.Headers[0].KeyID, c.Expiry.Time(), nil
}

// VerifyNodeJWT verifies a node identity with the public keys, by key id. It tolerates a minute of clock skew before
// the start of its validity, none after its end. The caller must check that the node is still a member.
func VerifyNodeJWT(text, clusterID string, keys map[string]ed25519.PublicKey, now time.Time) (*NodeClaims, error) {
	token, err := jwt.ParseSigned(text, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil || len(token.Headers) != 1 {
		return nil, ErrNodeJWT
	}
	key, ok := keys[token.Headers[0].KeyID]
	if !ok {
		return nil, ErrNodeJWT
	}
	var c NodeClaims
	if err := token.Claims(key, &c); err != nil {
		return nil, ErrNodeJWT
	}
	// Validate has a minute of leeway on both sides; expiry must have none.
	if err := c.Validate(jwt.Expected{Issuer: "muster:" + clusterID, Time: now}); err != nil || c.NodeID == "" ||
		c.RaftNodeID == 0 || c.Expiry == nil || now.After(c.Expiry.Time()) {
		return nil, ErrNodeJWT
	}
	return &c, nil
}

// JWKS returns the public keys that verify node identities (RFC 7517).
func JWKS(keys map[string]ed25519.PublicKey, order []string) jose.JSONWebKeySet {
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, kid := range order {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: keys[kid], KeyID: kid, Algorithm: string(jose.EdDSA), Use: "sig"})
	}
	return set
}
