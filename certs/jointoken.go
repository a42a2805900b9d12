package certs

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// The reasons for rejecting a token of either format; test with errors.Is. The
// wrapping error describes the problem in a sentence, without quoting the token.
var (
	ErrTokenMalformed   = errors.New("malformed token")
	ErrTokenSignature   = errors.New("token signature does not verify")
	ErrTokenExpired     = errors.New("token has expired")
	ErrTokenNotYetValid = errors.New("token is not valid yet")
)

const (
	joinTokenVersion = 1
	joinHeader       = 1 + 4        // version byte, payload length
	maxJoinPayload   = 64 << 10     // bytes, as in the original
	minJoinKey       = 16           // bytes, as in the original
	maxUnixTime      = 253402300799 // 9999-12-31T23:59:59Z, the last that RFC 3339 can write

	// JoinSkew is how far the clock of the verifying member may be behind the
	// clock of the minting member. Expiry has no tolerance: a token that is
	// listed as expired admits nobody.
	JoinSkew = 60 * time.Second
)

// JoinClaims is the payload of a join token. The fields are in wire order:
// first Ella Core's, then muster's.
type JoinClaims struct {
	ID        string `json:"id"`      // 32 lower-case hex digits, unique per token
	NodeID    uint64 `json:"node_id"` // Raft node id, at most MaxNodeID; 0 = any
	IssuedAt  int64  `json:"iat"`     // Unix seconds
	ExpiresAt int64  `json:"exp"`     // Unix seconds, inclusive
	// LCP is the fingerprint of the minting leader's certificate.
	LCP       string `json:"lcp"`
	ClusterID string `json:"cid"` // UUID, lower case
	// CAFingerprint is the fingerprint of the cluster's HTTP CA, see
	// [VerifyPinned]. May be empty.
	CAFingerprint string `json:"caf,omitempty"`
	// Addresses are API addresses, host:port, that a joiner can try. May be
	// empty.
	Addresses []string `json:"adr,omitempty"`
}

// MintJoinToken makes a join token in the byte format of Ella Core
// (reference/ella_members.md 2.1):
//
//	base64url( 0x01 | uint32_be(len(P)) | P | HMAC-SHA256(key, 0x01 | P) )
//
// without padding, P being the claims as compact JSON. key has at least 16
// bytes, else [ErrWeakKey]; claims that [ParseJoinToken] would reject give
// [ErrTokenMalformed].
func MintJoinToken(key []byte, c JoinClaims) (string, error) {
	if len(key) < minJoinKey {
		return "", fmt.Errorf("%w: the join key has under %d bytes", ErrWeakKey, minJoinKey)
	}
	if err := c.check(); err != nil {
		return "", err
	}
	payload, err := compactJSON(c)
	if err != nil {
		return "", err
	}
	if len(payload) > maxJoinPayload {
		return "", malformed("the claims are larger than 64 KiB")
	}
	raw := []byte{joinTokenVersion}
	raw = binary.BigEndian.AppendUint32(raw, uint32(len(payload)))
	raw = append(raw, payload...)
	raw = append(raw, joinMAC(key, payload)...)
	return base64.RawURLEncoding.EncodeToString(raw), nil
}

// JoinToken is a parsed join token. Its claims are unverified until
// [JoinToken.Verify] has returned nil.
type JoinToken struct {
	claims  JoinClaims
	payload []byte // as received: the MAC covers these bytes, not a re-encoding
	mac     []byte
}

// ParseJoinToken parses a join token without verifying it: a joiner has no key.
// It accepts only the canonical spelling: no padding, no stray bits, no white
// space (trim pasted text before). It ignores unknown claims, so that newer
// members can add some. Errors wrap [ErrTokenMalformed].
func ParseJoinToken(token string) (*JoinToken, error) {
	const maxLen = (joinHeader+maxJoinPayload+sha256.Size)*4/3 + 1
	if token == "" {
		return nil, malformed("the token is empty")
	}
	if len(token) > maxLen {
		return nil, malformed("the token is too long")
	}
	if err := checkBase64URL(token); err != nil {
		return nil, err
	}
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) < joinHeader {
		// The alphabet is right, so the length must be wrong.
		return nil, malformed("the token looks truncated")
	}
	if raw[0] != joinTokenVersion {
		return nil, malformed("this is not a join token of version 1")
	}
	size := binary.BigEndian.Uint32(raw[1:joinHeader])
	if size > maxJoinPayload {
		return nil, malformed("the token's length field exceeds 64 KiB")
	}
	want := joinHeader + int(size) + sha256.Size
	switch {
	case len(raw) < want:
		return nil, malformed("the token looks truncated: %d of %d bytes", len(raw), want)
	case len(raw) > want:
		return nil, malformed("the token has %d bytes too many at its end", len(raw)-want)
	case base64.RawURLEncoding.EncodeToString(raw) != token:
		return nil, malformed("the token's last character is not the canonical one")
	}
	t := &JoinToken{payload: raw[joinHeader : want-sha256.Size], mac: raw[want-sha256.Size:]}
	if t.claims, err = readJoinClaims(t.payload); err != nil {
		return nil, err
	}
	if err := t.claims.check(); err != nil {
		return nil, err
	}
	return t, nil
}

// Claims returns the token's claims, verified or not.
func (t *JoinToken) Claims() JoinClaims {
	c := t.claims
	c.Addresses = append([]string(nil), c.Addresses...)
	return c
}

// Verify checks the token's MAC (in constant time, and before anything else)
// and then its time: iat - 60 s <= now <= exp, see [JoinSkew]. Errors
// wrap [ErrWeakKey], [ErrTokenSignature], [ErrTokenNotYetValid] or
// [ErrTokenExpired].
func (t *JoinToken) Verify(key []byte, now time.Time) error {
	if len(key) < minJoinKey {
		return fmt.Errorf("%w: the join key has under %d bytes", ErrWeakKey, minJoinKey)
	}
	if !hmac.Equal(t.mac, joinMAC(key, t.payload)) {
		return fmt.Errorf("%w: it was altered, or minted by another cluster or before the keys were rotated",
			ErrTokenSignature)
	}
	iat, exp := time.Unix(t.claims.IssuedAt, 0), time.Unix(t.claims.ExpiresAt, 0)
	switch {
	case now.Before(iat.Add(-JoinSkew)):
		return fmt.Errorf("%w: issued at %s (now %s)", ErrTokenNotYetValid, stamp(iat), stamp(now))
	case now.After(exp):
		return fmt.Errorf("%w: at %s (now %s)", ErrTokenExpired, stamp(exp), stamp(now))
	}
	return nil
}

func joinMAC(key, payload []byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte{joinTokenVersion})
	m.Write(payload)
	return m.Sum(nil)
}

// readJoinClaims decodes through a map of exact key names: encoding/json alone
// would match keys in any case, and take a missing node_id for 0, "any node".
func readJoinClaims(payload []byte) (c JoinClaims, err error) {
	var m map[string]json.RawMessage
	if json.Unmarshal(payload, &m) != nil || m == nil {
		return c, malformed("the claims are not a JSON object")
	}
	for _, f := range []struct {
		key      string
		dst      any
		optional bool
	}{
		{"id", &c.ID, false}, {"node_id", &c.NodeID, false},
		{"iat", &c.IssuedAt, false}, {"exp", &c.ExpiresAt, false},
		{"lcp", &c.LCP, false}, {"cid", &c.ClusterID, false},
		{"caf", &c.CAFingerprint, true}, {"adr", &c.Addresses, true},
	} {
		raw, ok := m[f.key]
		if !ok && f.optional {
			continue
		}
		if !ok || string(raw) == "null" || json.Unmarshal(raw, f.dst) != nil {
			return c, malformed("the claim %s is missing or has the wrong type", f.key)
		}
	}
	return c, nil
}

func (c JoinClaims) check() error {
	switch {
	case !isLowerHex(c.ID, 32):
		return malformed("the claim id must be 32 lower-case hex digits")
	case c.NodeID > MaxNodeID:
		return malformed("the claim node_id must be 0..%d", uint64(MaxNodeID))
	case c.IssuedAt < 0 || c.ExpiresAt > maxUnixTime || c.IssuedAt > c.ExpiresAt:
		return malformed("the claims iat and exp must be Unix seconds with iat <= exp")
	case !isUUID(c.ClusterID):
		return malformed("the claim cid must be a lower-case UUID")
	}
	if _, err := ParseFingerprint(c.LCP); err != nil {
		return malformed("the claim lcp must be sha256: and 64 lower-case hex digits")
	}
	if c.CAFingerprint != "" {
		if _, err := ParseFingerprint(c.CAFingerprint); err != nil {
			return malformed("the claim caf must be sha256: and 64 lower-case hex digits")
		}
	}
	for _, a := range c.Addresses {
		if checkHostPort(a) != nil {
			return malformed("the claim adr must hold addresses of the form host:port")
		}
	}
	return nil
}

// checkBase64URL finds what Go's decoder accepts (line breaks) or reports by
// position only, and describes it in words.
func checkBase64URL(s string) error {
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_':
		case strings.IndexByte(" \t\r\n", c) >= 0:
			return malformed("the token contains white space")
		case c == '=':
			return malformed("the token contains padding (=)")
		default:
			return malformed("the token contains a character that is not base64url")
		}
	}
	return nil
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrTokenMalformed, fmt.Sprintf(format, args...))
}

// compactJSON is encoding/json without HTML escaping and without the newline.
func compactJSON(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}
