package store

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"fmt"

	"muster/certs"
)

// NewKeys makes a key for each purpose.
func NewKeys(purposes ...string) (list []NewKey, err error) {
	for _, p := range purposes {
		k, err := newKey(p)
		if err != nil {
			return nil, err
		}
		list = append(list, k)
	}
	return list, nil
}

// newKey makes a key for a purpose: an Ed25519 seed, 32 random bytes, or their hexadecimal text.
func newKey(purpose string) (k NewKey, err error) {
	k = NewKey{Purpose: purpose, Secret: make([]byte, 32)}
	if _, err := rand.Read(k.Secret); err != nil {
		return k, err
	}
	switch purpose {
	case KeyJoinSigning, KeyJWT:
		k.Public = ed25519.NewKeyFromSeed(k.Secret).Public().(ed25519.PublicKey)
		k.KID = certs.KeyID(ed25519.PublicKey(k.Public))
	case KeyJoinSecret:
		k.Secret = []byte(hex.EncodeToString(k.Secret))
		k.KID = certs.HashSecret(string(k.Secret))[:8]
	case KeyJoinHMAC:
		k.KID = certs.HashSecret(string(k.Secret))[:8]
	default:
		return k, fmt.Errorf("there is no key for %q", purpose)
	}
	return k, nil
}
