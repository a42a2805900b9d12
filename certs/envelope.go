package certs

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/chacha20poly1305"
)

// ErrSealed is the only error for a value that does not open: wrong key, name
// or generation, damaged or foreign bytes.
var ErrSealed = errors.New("certs: the sealed value does not open")

const (
	sealVersion  = 1
	sealHeader   = 1 + chacha20poly1305.NonceSizeX
	sealOverhead = sealHeader + chacha20poly1305.Overhead
	redactedDEK  = "DEK(redacted)"
)

// DEK is a data-encryption key, 32 random bytes. It prints as "DEK(redacted)"
// with every verb.
type DEK [32]byte

// NewDEK makes a fresh key.
func NewDEK() DEK {
	var d DEK
	rand.Read(d[:]) // never fails
	return d
}

// Seal encrypts a value under the key. name and generation are authenticated
// with it, so that one row of the database cannot be put in the place of
// another. The result is
//
//	0x01 | nonce (24 random bytes) | XChaCha20-Poly1305 ciphertext and tag
//
// 41 bytes longer than the plaintext.
func (d DEK) Seal(name string, generation uint64, plaintext []byte) ([]byte, error) {
	aead, err := chacha20poly1305.NewX(d[:])
	if err != nil {
		return nil, fmt.Errorf("certs: seal: %w", err)
	}
	out := make([]byte, sealHeader, sealOverhead+len(plaintext))
	out[0] = sealVersion
	rand.Read(out[1:]) // never fails
	return aead.Seal(out, out[1:sealHeader], plaintext, sealAAD(name, generation)), nil
}

// Open decrypts what [DEK.Seal] made under the same key, name and generation.
// Every failure is [ErrSealed].
func (d DEK) Open(name string, generation uint64, sealed []byte) ([]byte, error) {
	if len(sealed) < sealOverhead || sealed[0] != sealVersion {
		return nil, ErrSealed
	}
	aead, err := chacha20poly1305.NewX(d[:])
	if err != nil {
		return nil, ErrSealed
	}
	out, err := aead.Open(nil, sealed[1:sealHeader], sealed[sealHeader:], sealAAD(name, generation))
	if err != nil {
		return nil, ErrSealed
	}
	return out, nil
}

// sealAAD is version, length of the name (64 bits, big endian), name,
// generation (the same): no two different triples give the same bytes.
func sealAAD(name string, generation uint64) []byte {
	b := []byte{sealVersion}
	b = binary.BigEndian.AppendUint64(b, uint64(len(name)))
	b = append(b, name...)
	return binary.BigEndian.AppendUint64(b, generation)
}

// String keeps the key out of logs.
func (d DEK) String() string { return redactedDEK }

// GoString keeps the key out of logs (%#v).
func (d DEK) GoString() string { return redactedDEK }

// Format keeps the key out of logs: with String alone, %d would still print the
// bytes.
func (d DEK) Format(w fmt.State, _ rune) { io.WriteString(w, redactedDEK) }

// MarshalText keeps the key out of JSON and structured logs. There is no
// UnmarshalText: store a key with [Wrap].
func (d DEK) MarshalText() ([]byte, error) { return []byte(redactedDEK), nil }
