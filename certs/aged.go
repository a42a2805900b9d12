package certs

import (
	"crypto/x509"
	"errors"
	"time"
)

// VerifyAged verifies a leaf with what was presented behind it, as of now. A leaf that has expired and has nothing else
// wrong verifies too, and is reported as expired: its whole chain was valid when it ended. What it may still be good for
// is the caller's decision.
func VerifyAged(presented []*x509.Certificate, roots *x509.CertPool, use x509.ExtKeyUsage, now time.Time) (expired bool, err error) {
	if len(presented) == 0 {
		return false, errors.New("certs: no certificate was presented")
	}
	leaf := presented[0]
	opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{use}}
	for _, cert := range presented[1:] {
		opts.Intermediates.AddCert(cert)
	}
	if expired = now.After(leaf.NotAfter); expired {
		opts.CurrentTime = leaf.NotAfter
	}
	_, err = leaf.Verify(opts)
	return expired, err
}
