package certs

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// minAuthorityLeft is the minimum remaining validity of an operator's CA.
const minAuthorityLeft = 24 * time.Hour

// ErrNoCrossSign means that the authority may not certify another CA, or that the two are never valid at the same time.
var ErrNoCrossSign = errors.New("certs: the authority cannot sign another CA")

// CrossSign certifies another CA's name and key and returns the certificate in DER. With it in the presented chain, a
// verifier that trusts only ca accepts the leaves of next. It is valid while both CAs are.
func (ca CA) CrossSign(next *x509.Certificate, now time.Time) ([]byte, error) {
	below := -1 // no bound
	switch {
	case ca.Cert.MaxPathLenZero:
		return nil, fmt.Errorf("%w: its path length is 0", ErrNoCrossSign)
	case ca.Cert.MaxPathLen > 0:
		below = ca.Cert.MaxPathLen - 1
	}
	if next.MaxPathLenZero || next.MaxPathLen > 0 && (below < 0 || next.MaxPathLen < below) {
		below = next.MaxPathLen
	}
	from, to := overlap(ca.Cert, next.NotBefore, next.NotAfter)
	if !now.Before(to) || !from.Before(to) {
		return nil, fmt.Errorf("%w: their validity does not overlap", ErrNoCrossSign)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber:          NewSerial(),
		RawSubject:            next.RawSubject,
		SubjectKeyId:          next.SubjectKeyId,
		NotBefore:             from,
		NotAfter:              to,
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLen:            below,
		MaxPathLenZero:        below == 0,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, ca.Cert, next.PublicKey, ca.Key)
	if err != nil {
		return nil, fmt.Errorf("certs: cross-sign: %w", err)
	}
	return der, nil
}

// Issued reports whether the authority has signed a certificate.
func (ca CA) Issued(cert *x509.Certificate) bool {
	return bytes.Equal(cert.RawIssuer, ca.Cert.RawSubject) && cert.CheckSignatureFrom(ca.Cert) == nil
}

// ParseAuthority reads an operator's CA. certPEM is its certificate, optionally followed by its chain in order; keyPEM
// is its private key (PKCS#8, SEC 1 or PKCS#1, not encrypted). It signs and verifies trial, a certificate with every
// host of the cluster, so that a name constraint, an extended key usage or a path length that excludes muster's
// certificates fails now. Errors are sentences that name the rule, without a prefix.
func ParseAuthority(certPEM, keyPEM []byte, trial Leaf, now time.Time) (CA, []*x509.Certificate, error) {
	fail := func(format string, args ...any) (CA, []*x509.Certificate, error) {
		return CA{}, nil, fmt.Errorf(format, args...)
	}
	chain, err := ParseCerts(certPEM)
	if err != nil {
		return fail("the CA certificate must be PEM text with one or more certificates, the CA's own first")
	}
	key, err := parseAnyKey(keyPEM)
	if err != nil {
		return fail("the CA key must be one private key in PEM, not encrypted")
	}
	cert := chain[0]
	pub, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	switch {
	case !cert.BasicConstraintsValid || !cert.IsCA:
		return fail("the CA certificate is not that of a CA: its basic constraints must say CA:TRUE")
	case cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return fail("the key usage of the CA certificate must allow it to sign certificates")
	case checkPublicKey(cert.PublicKey) != nil:
		return fail("the CA key must be ECDSA on P-256, P-384 or P-521, RSA of 2048 to 8192 bits, or Ed25519")
	case !ok || !pub.Equal(key.Public()):
		return fail("the CA key does not belong to the CA certificate")
	case now.Before(cert.NotBefore):
		return fail("the CA certificate is not valid before %s", stamp(cert.NotBefore))
	case now.After(cert.NotAfter):
		return fail("the CA certificate has expired at %s", stamp(cert.NotAfter))
	case now.Add(minAuthorityLeft).After(cert.NotAfter):
		return fail("the CA certificate must be valid for another %d hours at least; it ends at %s",
			int(minAuthorityLeft.Hours()), stamp(cert.NotAfter))
	}
	for i, c := range chain {
		if weakSignature[c.SignatureAlgorithm] {
			return fail("certificate %d of the CA certificate is signed with %s, which verifiers reject", i+1,
				c.SignatureAlgorithm)
		}
		if i > 0 {
			if err := chain[i-1].CheckSignatureFrom(c); err != nil {
				return fail("certificate %d of the CA certificate was not issued by certificate %d", i, i+1)
			}
		}
	}
	ca := CA{Cert: cert, Key: key}
	if err := ca.try(trial, now); err != nil {
		return fail("the CA cannot issue what this cluster needs: %s", reason(err))
	}
	return ca, chain, nil
}

// try signs a certificate and verifies it as both ends of TLS do.
func (ca CA) try(l Leaf, now time.Time) error {
	key, err := NewKey()
	if err != nil {
		return err
	}
	l.NotBefore, l.NotAfter = now.Add(-time.Minute), now.Add(time.Hour)
	der, err := ca.Sign(key.Public(), l)
	if err != nil {
		return err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.Cert)
	for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		opts := x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{use}}
		if _, err := leaf.Verify(opts); err != nil {
			return err
		}
	}
	return nil
}

// reason describes a verification error, without the prefixes of certs and x509.
func reason(err error) string {
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage {
		return "its extended key usage must allow both server and client authentication"
	}
	text := []byte(err.Error())
	for _, p := range []string{"certs: ", "x509: "} {
		text = bytes.TrimPrefix(text, []byte(p))
	}
	return string(text)
}

var weakSignature = map[x509.SignatureAlgorithm]bool{
	x509.UnknownSignatureAlgorithm: true, x509.MD2WithRSA: true, x509.MD5WithRSA: true,
	x509.SHA1WithRSA: true, x509.DSAWithSHA1: true, x509.DSAWithSHA256: true, x509.ECDSAWithSHA1: true,
}

// parseAnyKey reads a private key in one of the forms that openssl writes; parameters before an EC key are skipped.
func parseAnyKey(data []byte) (crypto.Signer, error) {
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			return nil, errors.New("certs: no private key found")
		}
		switch block.Type {
		case "EC PARAMETERS":
			data = rest
			continue
		case "EC PRIVATE KEY":
			key, err := x509.ParseECPrivateKey(block.Bytes)
			if err != nil {
				return nil, errors.New("certs: the private key is not valid")
			}
			return key, onlyOne(rest)
		case "RSA PRIVATE KEY":
			key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
			if err != nil {
				return nil, errors.New("certs: the private key is not valid")
			}
			return key, onlyOne(rest)
		}
		return ParseKey(data)
	}
}

func onlyOne(rest []byte) error {
	if len(bytes.TrimSpace(rest)) > 0 {
		return errors.New("certs: something follows the private key")
	}
	return nil
}
