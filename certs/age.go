package certs

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"filippo.io/age"
	"filippo.io/age/plugin"
	"golang.org/x/crypto/nacl/box"
)

// ErrUnwrap means that a wrap or a sealed box does not open with this key. It
// does not say why.
var ErrUnwrap = errors.New("certs: cannot be opened with this key")

// maxUnwrapped bounds what Unwrap returns: it is for keys, not for files.
const maxUnwrapped = 64 << 10 // bytes

// NewIdentity makes a member's X25519 identity.
func NewIdentity() (*age.X25519Identity, error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, errors.New("certs: cannot make an age identity")
	}
	return id, nil
}

// EncodeIdentity writes an identity file as age-keygen does; `age -d -i FILE`
// reads it. It is secret: store it with [WriteFile] and 0600.
func EncodeIdentity(id *age.X25519Identity, now time.Time) []byte {
	return fmt.Appendf(nil, "# created: %s\n# public key: %s\n%s\n", stamp(now), id.Recipient(), id)
}

// ParseIdentity reads an identity file with exactly one X25519 identity;
// comments and blank lines are skipped.
func ParseIdentity(file []byte) (*age.X25519Identity, error) {
	var found *age.X25519Identity
	for line := range strings.Lines(string(file)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		id, err := age.ParseX25519Identity(line)
		if err != nil || found != nil { // age's error may quote the key
			return nil, errors.New("certs: an identity file holds exactly one AGE-SECRET-KEY-1… line")
		}
		found = id
	}
	if found == nil {
		return nil, errors.New("certs: the identity file holds no key")
	}
	return found, nil
}

// bech32Data decodes the data part of Bech32: 32 bytes are 52 characters of this
// alphabet, followed by six of checksum. age verifies the checksum but does not
// export the bytes; encoding/base32 packs bits in the same order.
var bech32Data = base32.NewEncoding("qpzry9x8gf2tvdw0s3jn54khce6mua7l").WithPadding(base32.NoPadding)

const bech32Len, bech32Check = 52, 6

func bech32Bytes(s, prefix string) (raw [32]byte, err error) {
	data, ok := strings.CutPrefix(s, prefix)
	if !ok || len(data) != bech32Len+bech32Check {
		return raw, errors.New("wrong prefix or length")
	}
	b, err := bech32Data.DecodeString(data[:bech32Len])
	if err != nil || copy(raw[:], b) != len(raw) {
		return raw, errors.New("wrong alphabet")
	}
	clear(b)
	return raw, nil
}

// PublicKey returns the raw X25519 public key of an "age1…" recipient, as the
// join request carries it (secrets_pubkey). It rejects the keys that [Recipient]
// rejects.
func PublicKey(recipient string) (pub [32]byte, err error) {
	// Checks prefix and checksum; its error quotes the input, which may be a
	// private key put in the wrong place.
	if _, err := age.ParseX25519Recipient(recipient); err != nil {
		return pub, errors.New("certs: not an age X25519 recipient (age1…)")
	}
	if pub, err = bech32Bytes(recipient, "age1"); err != nil {
		return pub, errors.New("certs: not an age X25519 recipient (age1…)")
	}
	if again, err := Recipient(pub); err != nil {
		return [32]byte{}, err
	} else if again != recipient {
		return [32]byte{}, errors.New("certs: the age recipient is not in its canonical form")
	}
	return pub, nil
}

// Recipient writes a raw X25519 public key as an "age1…" recipient. The zero
// key and the other low-order points (anybody could decrypt) and non-canonical
// encodings give [ErrWeakKey].
func Recipient(pub [32]byte) (string, error) {
	key, err := checkX25519(pub)
	if err != nil {
		return "", err
	}
	s, err := plugin.EncodeX25519Recipient(key)
	if err != nil {
		return "", fmt.Errorf("certs: encode an age recipient: %w", err)
	}
	return s, nil
}

func checkX25519(pub [32]byte) (*ecdh.PublicKey, error) {
	// A number of 2^255-19 or more is a non-canonical encoding of a smaller
	// one. age and sealed boxes hash the encoding into the key, so the owner,
	// who has the canonical one, could not open the result.
	high := pub[31] >= 0x80
	if pub[31] == 0x7f && pub[0] >= 0xed {
		high = true
		for _, b := range pub[1:31] {
			high = high && b == 0xff
		}
	}
	if high {
		return nil, fmt.Errorf("%w: not a canonical X25519 public key", ErrWeakKey)
	}
	key, err := ecdh.X25519().NewPublicKey(pub[:])
	if err != nil {
		return nil, fmt.Errorf("%w: not an X25519 public key", ErrWeakKey)
	}
	// Every X25519 scalar is a multiple of 8, the order of the small subgroup,
	// so any of them maps a low-order point to zero, which ECDH rejects.
	probe, err := ecdh.X25519().NewPrivateKey(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		return nil, err
	}
	if _, err := probe.ECDH(key); err != nil {
		return nil, fmt.Errorf("%w: low-order X25519 public key", ErrWeakKey)
	}
	return key, nil
}

// PrivateKey returns the raw X25519 private key of an identity. Clear it after
// use.
func PrivateKey(id *age.X25519Identity) ([32]byte, error) {
	raw, err := bech32Bytes(strings.ToLower(id.String()), "age-secret-key-1")
	if err != nil {
		return raw, errors.New("certs: cannot read the age identity")
	}
	return raw, nil
}

// Wrap encrypts a key to a recipient ("age1…") as a binary age file.
func Wrap(dek []byte, recipient string) ([]byte, error) {
	if _, err := PublicKey(recipient); err != nil {
		return nil, err
	}
	to, err := age.ParseX25519Recipient(recipient)
	if err != nil {
		return nil, errors.New("certs: not an age X25519 recipient (age1…)")
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to)
	if err != nil {
		return nil, fmt.Errorf("certs: wrap a key: %w", err)
	}
	if _, err := w.Write(dek); err != nil {
		return nil, fmt.Errorf("certs: wrap a key: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("certs: wrap a key: %w", err)
	}
	return out.Bytes(), nil
}

// Unwrap opens what [Wrap] made, or any binary age file for this identity of up
// to 64 KiB. Failure is [ErrUnwrap].
func Unwrap(wrapped []byte, id *age.X25519Identity) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(wrapped), id)
	if err != nil {
		return nil, ErrUnwrap
	}
	out, err := io.ReadAll(io.LimitReader(r, maxUnwrapped+1))
	if err != nil || len(out) > maxUnwrapped {
		clear(out)
		return nil, ErrUnwrap
	}
	return out, nil
}

// SealBox encrypts msg to a raw X25519 public key as a libsodium sealed box
// (crypto_box_seal): 48 bytes longer than msg, so 80 for a data encryption key.
// This is the wrapped_dek of the join answer (reference/zlayer_join.md 3).
// Weak keys give [ErrWeakKey].
func SealBox(msg []byte, pub [32]byte) ([]byte, error) {
	if _, err := checkX25519(pub); err != nil {
		return nil, err
	}
	out, err := box.SealAnonymous(nil, msg, &pub, rand.Reader)
	if err != nil {
		return nil, errors.New("certs: cannot seal a box")
	}
	return out, nil
}

// OpenBox opens a sealed box with the raw X25519 private key of its recipient,
// see [PrivateKey]. Failure is [ErrUnwrap].
func OpenBox(sealed []byte, priv [32]byte) ([]byte, error) {
	key, err := ecdh.X25519().NewPrivateKey(priv[:])
	if err != nil {
		return nil, ErrUnwrap
	}
	pub := [32]byte(key.PublicKey().Bytes())
	out, ok := box.OpenAnonymous(nil, sealed, &pub, &priv)
	if !ok {
		return nil, ErrUnwrap
	}
	return out, nil
}
