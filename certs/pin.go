package certs

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

var (
	// ErrPinMismatch: no certificate that the server presented has the pinned
	// fingerprint. Another cluster, an outdated token, or a man in the middle.
	ErrPinMismatch = errors.New("certs: the server does not present the pinned CA")
	// ErrUntrusted: the pinned certificate was presented, but is not a CA or
	// did not issue the server's certificate.
	ErrUntrusted = errors.New("certs: the server's certificate was not issued by the pinned CA")
	// ErrNotYetValid and ErrExpired: the chain is genuine but not valid at this
	// time; most often this machine's clock is wrong.
	ErrNotYetValid = errors.New("certs: the server's certificate is not valid yet")
	ErrExpired     = errors.New("certs: the server's certificate has expired")
)

// VerifyPinned verifies a presented chain (DER, the server's certificate first)
// against the fingerprint of a CA: one certificate of the chain must have that
// fingerprint and be a CA, and the first must be a server certificate issued by
// it, with the others as possible intermediates. Names are not checked, see
// [PinnedTLS].
//
// Errors wrap ErrPinMismatch, ErrUntrusted, ErrNotYetValid or ErrExpired.
func VerifyPinned(rawCerts [][]byte, pin string, now time.Time) error {
	want, err := ParseFingerprint(pin)
	if err != nil {
		return err
	}
	var root *x509.Certificate
	chain := make([]*x509.Certificate, 0, len(rawCerts))
	others := x509.NewCertPool()
	for i, raw := range rawCerts {
		cert, err := x509.ParseCertificate(raw)
		if err != nil {
			return fmt.Errorf("%w: certificate %d of the chain cannot be read", ErrUntrusted, i+1)
		}
		chain = append(chain, cert)
		if sum := sha256.Sum256(raw); subtle.ConstantTimeCompare(sum[:], want[:]) == 1 {
			root = cert
		} else if i > 0 {
			others.AddCert(cert)
		}
	}
	if root == nil {
		return fmt.Errorf("%w (%d certificates presented)", ErrPinMismatch, len(chain))
	}
	if !root.BasicConstraintsValid || !root.IsCA {
		return fmt.Errorf("%w: the pinned certificate is not a CA", ErrUntrusted)
	}
	// Verify the chain at the moment nearest to now at which both its ends are
	// valid, and only then look at the clock. Thus a wrong clock is reported for
	// genuine chains only, and "too early" and "too late" can be told apart,
	// which x509 reports as one reason.
	leaf := chain[0]
	from, to := overlap(root, leaf.NotBefore, leaf.NotAfter)
	at := now
	if at.Before(from) {
		at = from
	}
	if at.After(to) {
		at = to
	}
	roots := x509.NewCertPool()
	roots.AddCert(root)
	_, err = leaf.Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: others,
		CurrentTime:   at,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	switch {
	case err != nil:
		return fmt.Errorf("%w: %v", ErrUntrusted, err)
	case now.Before(from):
		return fmt.Errorf("%w: valid from %s, this machine's clock says %s", ErrNotYetValid, stamp(from), stamp(now))
	case now.After(to):
		return fmt.Errorf("%w: valid until %s, this machine's clock says %s", ErrExpired, stamp(to), stamp(now))
	}
	return nil
}

// PinnedTLS returns the client configuration of a machine that knows only the
// fingerprint of a cluster's CA, from a join token. It calls now once per
// handshake. With a malformed pin every handshake fails.
func PinnedTLS(pin string, now func() time.Time) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		// The built-in check needs a trusted root and a name. A joiner has
		// neither: it may reach the member through a forwarded port or at
		// an address that is not in the certificate. Trust rests on the
		// pin alone, which VerifyConnection enforces.
		InsecureSkipVerify: true,
		// Not VerifyPeerCertificate, which is skipped when a session is
		// resumed: a chain would stay accepted after it has expired.
		VerifyConnection: func(cs tls.ConnectionState) error {
			raw := make([][]byte, len(cs.PeerCertificates))
			for i, c := range cs.PeerCertificates {
				raw[i] = c.Raw
			}
			return VerifyPinned(raw, pin, now())
		},
	}
}
