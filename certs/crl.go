package certs

import (
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Revoked is an entry of a revocation list.
type Revoked struct {
	Serial string // lower hex
	At     time.Time
}

// crlLifetime is how long a revocation list is valid.
const crlLifetime = 24 * time.Hour

// SignCRL returns a certificate revocation list (RFC 5280, section 5) in DER, valid for a day from now. number must
// increase from one list to the next.
func (ca CA) SignCRL(list []Revoked, number uint64, now time.Time) ([]byte, error) {
	if ca.Cert == nil || ca.Key == nil {
		return nil, errors.New("certs: sign a revocation list: the authority has no certificate or no key")
	}
	tmpl := &x509.RevocationList{
		Number:     new(big.Int).SetUint64(number),
		ThisUpdate: now.Add(-caBackdate).UTC(),
		NextUpdate: now.Add(crlLifetime).UTC(),
	}
	for _, r := range list {
		serial, ok := new(big.Int).SetString(r.Serial, 16)
		if !ok {
			return nil, fmt.Errorf("certs: %q is not a serial number", r.Serial)
		}
		tmpl.RevokedCertificateEntries = append(tmpl.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: serial, RevocationTime: r.At.UTC()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, tmpl, ca.Cert, ca.Key)
	if err != nil {
		return nil, fmt.Errorf("certs: sign a revocation list: %w", err)
	}
	return der, nil
}
