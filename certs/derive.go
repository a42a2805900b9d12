package certs

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
)

// The domain-separation tags for keys derived from a join secret. They are
// ZLayer's (reference/zlayer_join.md 2.2 (b) and 5.2), the zero byte included.
const (
	tagInternalBearer = "zlayer-raft-internal-token-v1\x00"
	tagHS256JoinKey   = "zlayer-join-token-v1\x00"
)

// InternalBearer derives ZLayer's internal bearer token from the join secret:
// 64 lower-case hex digits. The secret is hashed as the string it is, not
// decoded from hex.
func InternalBearer(joinSecret string) string {
	sum := sha256.Sum256([]byte(tagInternalBearer + joinSecret))
	return hex.EncodeToString(sum[:])
}

// HS256JoinKey derives the key of ZLayer's HS256 join tokens (JWT) from the
// join secret.
func HS256JoinKey(joinSecret string) [32]byte {
	return sha256.Sum256([]byte(tagHS256JoinKey + joinSecret))
}

// HashSecret returns the hash of an API token's secret that the database
// stores: SHA-256 in lower-case hex. A plain hash is enough because secrets are
// 256 random bits (see [NewSecret]); it would not be for passwords.
func HashSecret(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// NewSecret makes a secret of 32 random bytes: 43 characters of base64url
// without padding.
func NewSecret() string {
	var b [32]byte
	rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}
