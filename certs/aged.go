package certs

import (
	"crypto/x509"
	"errors"
	"time"
)

// VerifyAged verifies a leaf with what was presented behind it, as of now. A leaf that has expired, or that is not
// valid yet because a clock was wrong when it was made or is wrong here, and that has nothing else wrong verifies
// too, and is reported as aged: its whole chain was valid when it ended, or will be when it begins. What it may still
// be good for is the caller's decision.
func VerifyAged(presented []*x509.Certificate, roots *x509.CertPool, use x509.ExtKeyUsage,
	now time.Time) (aged bool, err error) {
	if len(presented) == 0 {
		return false, errors.New("certs: no certificate was presented")
	}
	leaf := presented[0]
	opts := x509.VerifyOptions{
		Roots:         roots,
		Intermediates: x509.NewCertPool(),
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{use},
	}
	for _, cert := range presented[1:] {
		opts.Intermediates.AddCert(cert)
	}
	if aged = Aged(leaf, now); aged {
		opts.CurrentTime = leaf.NotAfter
		if now.Before(leaf.NotBefore) {
			opts.CurrentTime = leaf.NotBefore
		}
	}
	_, err = leaf.Verify(opts)
	return aged, err
}

// Aged reports whether a leaf has expired or is not valid yet.
func Aged(leaf *x509.Certificate, now time.Time) bool {
	return now.After(leaf.NotAfter) || now.Before(leaf.NotBefore)
}
