// Package certs holds the pure functions behind muster's trust: certificate
// authorities and leaves, fingerprints, the bytes of join tokens, sealed boxes,
// age wraps and envelope encryption.
//
// Nothing here reads a clock, a database or the network: the time is always an
// argument. Randomness (crypto/rand) is used only for keys, serial numbers and
// nonces. [WriteFile] is the only function with a side effect. No error text
// repeats a key, a token or a plaintext.
package certs

import "errors"

// ErrWeakKey means that a key is well formed but too weak to be used: an RSA
// key under 2048 bits, an unusual curve, a low-order X25519 point, a short HMAC
// key.
var ErrWeakKey = errors.New("certs: key is too weak")

// MaxNodeID is the largest Raft node id: 2^53-1, the largest integer that every
// JSON reader (including JavaScript) represents exactly.
const MaxNodeID = 1<<53 - 1
