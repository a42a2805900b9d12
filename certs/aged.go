package certs

import (
	"crypto/x509"
	"errors"
	"time"
)

// VerifyAged verifies a presented chain, the leaf first, as of now. An expired leaf verifies too and is reported as
// expired, provided that its chain was valid when it expired. The caller decides what an expired leaf may still do.
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
