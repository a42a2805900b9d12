package certs

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	signedVersion  = 1
	maxSignedToken = 16 << 10 // characters; the original's are about 500
)

// SignedClaims are the claims of ZLayer's signed join token, in wire order.
// Times are kept as text, because the signature covers that text; write them
// with [SignedTime].
type SignedClaims struct {
	APIEndpoint    string `json:"api_endpoint"`  // host:port, no scheme
	RaftEndpoint   string `json:"raft_endpoint"` // host:port
	LeaderWGPubkey string `json:"leader_wg_pubkey"`
	OverlayCIDR    string `json:"overlay_cidr"`
	Exp            string `json:"exp"` // RFC 3339
	Iat            string `json:"iat"` // RFC 3339, up to nanoseconds
	Iss            string `json:"iss"` // id of the minting node, opaque
}

// SignedTime formats a time as the original does (chrono's to_rfc3339 of a UTC
// time): "+00:00" instead of "Z", and 0, 3, 6 or 9 fractional digits.
func SignedTime(t time.Time) string {
	t = t.UTC()
	layout := "2006-01-02T15:04:05"
	switch ns := t.Nanosecond(); {
	case ns == 0:
	case ns%1_000_000 == 0:
		layout += ".000"
	case ns%1_000 == 0:
		layout += ".000000"
	default:
		layout += ".000000000"
	}
	return t.Format(layout) + "+00:00"
}

// KeyID returns the id of a signing key: the first 8 lower-case hex digits of
// the SHA-256 of the 32-byte public key.
func KeyID(pub ed25519.PublicKey) string {
	sum := sha256.Sum256(pub)
	return hex.EncodeToString(sum[:4])
}

// MintSignedToken makes a join token in ZLayer's default format
// (reference/zlayer_join.md 2.2 (a)): base64url without padding of
//
//	{"v":1,"kid":…,"claims":{…},"sig":…}
//
// with an Ed25519 signature over the compact JSON of claims. Ed25519 is
// deterministic: equal claims give an equal token, so vary Iat.
func MintSignedToken(key ed25519.PrivateKey, c SignedClaims) (string, error) {
	if len(key) != ed25519.PrivateKeySize {
		return "", fmt.Errorf("%w: not an Ed25519 private key", ErrWeakKey)
	}
	if _, _, err := c.times(); err != nil {
		return "", err
	}
	for _, s := range []string{c.APIEndpoint, c.RaftEndpoint, c.LeaderWGPubkey, c.OverlayCIDR, c.Iss} {
		if !utf8.ValidString(s) {
			return "", malformed("the claims must be UTF-8")
		}
	}
	t := SignedToken{
		claims: c,
		kid:    KeyID(key.Public().(ed25519.PublicKey)),
		sig:    ed25519.Sign(key, c.encode()),
	}
	s := t.encode()
	if len(s) > maxSignedToken {
		return "", malformed("the claims are too large")
	}
	return s, nil
}

// SignedToken is a parsed signed join token, not yet verified.
type SignedToken struct {
	claims   SignedClaims
	iat, exp time.Time
	kid      string
	sig      []byte
}

// TokenVersionError is the error for a version of signed tokens that muster
// does not read; it is an [ErrTokenMalformed]. The original also has a version 2,
// which its own tools never mint.
type TokenVersionError struct{ Got int64 }

func (e *TokenVersionError) Error() string {
	return fmt.Sprintf("unsupported signed token version: got v=%d, expected v=%d", e.Got, signedVersion)
}

// Is makes errors.Is(err, ErrTokenMalformed) hold.
func (e *TokenVersionError) Is(target error) bool { return target == ErrTokenMalformed }

// ParseSignedToken parses a signed token without verifying it. Stricter than
// the original, it accepts only the canonical spelling (encoding the token again
// must give s), because another spelling would escape a revocation by hash. Trim
// pasted white space before. Errors wrap [ErrTokenMalformed] or are a
// [*TokenVersionError].
func ParseSignedToken(s string) (*SignedToken, error) {
	if s == "" {
		return nil, malformed("the token is empty")
	}
	if len(s) > maxSignedToken {
		return nil, malformed("the token is too long")
	}
	if err := checkBase64URL(s); err != nil {
		return nil, err
	}
	raw, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return nil, malformed("the token looks truncated")
	}
	var env struct {
		V      *int64       `json:"v"`
		Kid    string       `json:"kid"`
		Claims SignedClaims `json:"claims"`
		Sig    string       `json:"sig"`
	}
	if err := json.Unmarshal(raw, &env); err != nil || env.V == nil {
		return nil, malformed("the token does not hold a signed envelope, or is truncated")
	}
	if *env.V != signedVersion {
		return nil, &TokenVersionError{Got: *env.V}
	}
	t := &SignedToken{claims: env.Claims, kid: env.Kid}
	if !isLowerHex(t.kid, 8) {
		return nil, malformed("kid must be 8 lower-case hex digits")
	}
	t.sig, err = base64.RawURLEncoding.Strict().DecodeString(env.Sig)
	if err != nil || len(t.sig) != ed25519.SignatureSize {
		return nil, malformed("sig must be an Ed25519 signature in base64url")
	}
	if t.iat, t.exp, err = t.claims.times(); err != nil {
		return nil, err
	}
	if t.encode() != s {
		return nil, malformed("the token is not in its canonical form")
	}
	return t, nil
}

// LooksSigned reports whether s decodes (base64url or standard base64) to a
// JSON object with the keys v, kid and sig. For such a token the original
// returns its error instead of trying the other formats.
func LooksSigned(s string) bool {
	s = strings.TrimRight(strings.TrimSpace(s), "=")
	if len(s) > maxSignedToken {
		return false
	}
	raw, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		if raw, err = base64.RawStdEncoding.DecodeString(s); err != nil {
			return false
		}
	}
	var m map[string]json.RawMessage
	if json.Unmarshal(raw, &m) != nil {
		return false
	}
	return m["v"] != nil && m["kid"] != nil && m["sig"] != nil
}

// Claims returns the token's claims, verified or not.
func (t *SignedToken) Claims() SignedClaims { return t.claims }

// KeyID returns the id of the key that the token claims to be signed with; use
// it to look up the public key for [SignedToken.Verify].
func (t *SignedToken) KeyID() string { return t.kid }

// IssuedAt and ExpiresAt are the claims iat and exp.
func (t *SignedToken) IssuedAt() time.Time  { return t.iat }
func (t *SignedToken) ExpiresAt() time.Time { return t.exp }

// ID identifies the token for revocation and single use: lower-case hex SHA-256
// over kid + "." + sig.
func (t *SignedToken) ID() string {
	sum := sha256.Sum256([]byte(t.kid + "." + base64.RawURLEncoding.EncodeToString(t.sig)))
	return hex.EncodeToString(sum[:])
}

// Verify checks the signature and then that now < exp, without leeway. Like the
// original it does not compare iat with the clock. Errors wrap
// [ErrTokenSignature] or [ErrTokenExpired].
func (t *SignedToken) Verify(pub ed25519.PublicKey, now time.Time) error {
	if len(pub) != ed25519.PublicKeySize || KeyID(pub) != t.kid {
		return fmt.Errorf("%w: it is signed with the key %s, not with the given key", ErrTokenSignature, t.kid)
	}
	if !ed25519.Verify(pub, t.claims.encode(), t.sig) {
		return fmt.Errorf("%w: Ed25519 signature is wrong", ErrTokenSignature)
	}
	if !now.Before(t.exp) {
		return fmt.Errorf("%w: signed token expired at %s (now %s)", ErrTokenExpired, stamp(t.exp), stamp(now))
	}
	return nil
}

// Hash returns ZLayer's revocation hash: lower-case hex SHA-256 of the trimmed
// token. It returns 64 lower-case hex digits, already a hash, unchanged.
func Hash(token string) string {
	token = strings.TrimSpace(token)
	if isLowerHex(token, 64) {
		return token
	}
	return HashSecret(token)
}

func (c SignedClaims) times() (iat, exp time.Time, err error) {
	if exp, err = time.Parse(time.RFC3339Nano, c.Exp); err != nil {
		return iat, exp, malformed("the claim exp must be an RFC 3339 time")
	}
	if iat, err = time.Parse(time.RFC3339Nano, c.Iat); err != nil {
		return iat, exp, malformed("the claim iat must be an RFC 3339 time")
	}
	return iat, exp, nil
}

func (t *SignedToken) encode() string {
	b := []byte(`{"v":1,"kid":`)
	b = appendJSONString(b, t.kid)
	b = append(append(b, `,"claims":`...), t.claims.encode()...)
	b = append(b, `,"sig":"`...)
	b = base64.RawURLEncoding.AppendEncode(b, t.sig)
	return base64.RawURLEncoding.EncodeToString(append(b, `"}`...))
}

func (c SignedClaims) encode() []byte {
	b := []byte{'{'}
	for i, f := range [...][2]string{
		{"api_endpoint", c.APIEndpoint}, {"raft_endpoint", c.RaftEndpoint},
		{"leader_wg_pubkey", c.LeaderWGPubkey}, {"overlay_cidr", c.OverlayCIDR},
		{"exp", c.Exp}, {"iat", c.Iat}, {"iss", c.Iss},
	} {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendJSONString(b, f[0]), ':')
		b = appendJSONString(b, f[1])
	}
	return append(b, '}')
}

// appendJSONString writes valid UTF-8 as serde_json does: only the quote, the
// backslash and control characters below 0x20 are escaped. encoding/json cannot
// be told to leave U+2028 and U+2029 alone, and the signature covers the bytes.
func appendJSONString(b []byte, s string) []byte {
	const hexDigits = "0123456789abcdef"
	const short = "btn\x00fr" // the letters for 0x08 to 0x0d; 0x0b has none
	b = append(b, '"')
	for _, c := range []byte(s) {
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c >= 0x08 && c <= 0x0d && c != 0x0b:
			b = append(b, '\\', short[c-0x08])
		case c < 0x20:
			b = append(b, `\u00`...)
			b = append(b, hexDigits[c>>4], hexDigits[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
