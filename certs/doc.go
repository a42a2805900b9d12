// Package certs holds the pure functions behind muster's trust: certificate
// authorities and leaves, fingerprints, the bytes of join tokens, sealed boxes,
// age wraps and envelope encryption.
//
// Nothing here reads a clock, a database or the network: the time is always an
// argument. Randomness (crypto/rand) is used only where a key, serial number or
// nonce has to be fresh. [WriteFile] is the one function with an effect outside
// its results. No error text repeats a key, a token or a plaintext.
package certs

import "errors"

// ErrWeakKey says that a key was well formed but too weak to be used: an RSA
// key under 2048 bits, an unusual curve, a low-order X25519 point, a short HMAC
// key.
var ErrWeakKey = errors.New("certs: key is too weak")

// MaxNodeID is the largest Raft node id: 2^53-1, the largest whole number that
// every JSON reader (JavaScript among them) keeps exactly.
const MaxNodeID = 1<<53 - 1
