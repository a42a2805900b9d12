package certs

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

const fingerprintPrefix = "sha256:"

// Fingerprint returns "sha256:" and the lower-case hex SHA-256 of a
// certificate's DER, as Ella Core's pins (reference/ella_members.md 2.1).
func Fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return fingerprintPrefix + hex.EncodeToString(sum[:])
}

// ParseFingerprint reads what [Fingerprint] writes, and nothing else: no upper
// case, no colons between the bytes.
func ParseFingerprint(s string) (sum [32]byte, err error) {
	digits, ok := strings.CutPrefix(s, fingerprintPrefix)
	if !ok || !isLowerHex(digits, 64) {
		return sum, errors.New("certs: a fingerprint is sha256: and 64 lower-case hex digits")
	}
	_, err = hex.Decode(sum[:], []byte(digits))
	return sum, err
}

// isLowerHex reports whether s is n lower-case hex digits.
func isLowerHex(s string, n int) bool {
	return len(s) == n && strings.Trim(s, "0123456789abcdef") == ""
}

// EncodeCert writes certificates (DER) as PEM, in the order given; put the leaf
// first.
func EncodeCert(ders ...[]byte) []byte {
	var out []byte
	for _, der := range ders {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return out
}

// EncodeKey writes a private key as PKCS#8 in PEM ("PRIVATE KEY"), unencrypted:
// store it with [WriteFile] and 0600, or sealed.
func EncodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("certs: a key of type %T cannot be written as PKCS#8", key)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// ParseCerts reads one or more PEM certificates. Other blocks, damaged blocks
// and text after the last block are errors, because a bundle that silently lost
// a certificate fails much later and elsewhere; text between blocks (openssl
// writes it) is skipped.
func ParseCerts(data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	begins := bytes.Count(data, []byte("-----BEGIN "))
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		data = rest
		if block.Type != "CERTIFICATE" {
			return nil, errors.New("certs: the PEM text holds something other than certificates")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certs: certificate %d of the PEM text: %w", len(certs)+1, err)
		}
		certs = append(certs, cert)
	}
	switch {
	case len(certs) == 0:
		return nil, errors.New("certs: no PEM certificate found")
	case len(certs) != begins || len(bytes.TrimSpace(data)) > 0:
		return nil, errors.New("certs: the PEM text is damaged or cut off")
	}
	return certs, nil
}

// ParseKey reads one PKCS#8 private key in PEM. Errors do not quote the content.
func ParseKey(data []byte) (crypto.Signer, error) {
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("certs: expected exactly one PEM block PRIVATE KEY (PKCS#8, not encrypted)")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("certs: the private key is not valid PKCS#8")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("certs: the private key cannot sign")
	}
	return signer, nil
}
