package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
)

// maxCSR is generous: a request with an 8192-bit RSA key has about 3 KiB.
const maxCSR = 64 << 10

// NewCSR makes a PKCS#10 certificate request in DER. name is informative only:
// [CA.Sign] takes nothing but the public key from it.
func NewCSR(key crypto.Signer, name string) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader,
		&x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
	if err != nil {
		return nil, fmt.Errorf("certs: make a certificate request: %w", err)
	}
	return der, nil
}

// ParseCSR reads a certificate request (DER, or one PEM block) and checks that
// the requester holds the private key. RSA keys of 2048 to 8192 bits, ECDSA
// keys on P-256, P-384 and P-521, and Ed25519 keys are accepted; other keys
// give [ErrWeakKey].
func ParseCSR(der []byte) (*x509.CertificateRequest, error) {
	if len(der) > maxCSR {
		return nil, fmt.Errorf("certs: the certificate request is larger than %d bytes", maxCSR)
	}
	if bytes.HasPrefix(bytes.TrimSpace(der), []byte("-----BEGIN")) {
		block, rest := pem.Decode(der)
		if block == nil || len(bytes.TrimSpace(rest)) > 0 ||
			block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST" {
			return nil, errors.New("certs: the certificate request is not one PEM block CERTIFICATE REQUEST")
		}
		der = block.Bytes
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("certs: not a PKCS#10 certificate request: %w", err)
	}
	// Before the signature: verifying one made with an enormous key is
	// expensive.
	if err := checkPublicKey(csr.PublicKey); err != nil {
		return nil, err
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("certs: the signature of the certificate request does not verify: %w", err)
	}
	return csr, nil
}

func checkPublicKey(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return nil
		}
		return fmt.Errorf("%w: ECDSA keys must be on P-256, P-384 or P-521", ErrWeakKey)
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < 2048 || bits > 8192 {
			return fmt.Errorf("%w: RSA keys must have 2048 to 8192 bits, this one has %d", ErrWeakKey, bits)
		}
		return nil
	case ed25519.PublicKey:
		if len(k) == ed25519.PublicKeySize {
			return nil
		}
	}
	return fmt.Errorf("%w: only ECDSA, RSA and Ed25519 keys are accepted", ErrWeakKey)
}

// KeyHash is the SHA-256 of a public key's SubjectPublicKeyInfo in DER, as lower-case hex. A member's certificates are
// bound to it.
func KeyHash(pub crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}
