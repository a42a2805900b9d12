package certs

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// NewRSAKey makes an RSA key of 4096 bits, for software that accepts no other kind. It takes a second or more of CPU
// time.
func NewRSAKey() (crypto.Signer, error) {
	key, err := rsa.GenerateKey(rand.Reader, 4096)
	if err != nil {
		return nil, fmt.Errorf("certs: make a key: %w", err)
	}
	return key, nil
}

// EnrolledURI is the identity in the certificate of enrolled software: spiffe://<cluster id>/enrolled/<enrollment id>.
// [NodeID] never accepts it as a member's.
func EnrolledURI(clusterID, enrollmentID string) *url.URL {
	return &url.URL{Scheme: "spiffe", Host: clusterID, Path: "/enrolled/" + enrollmentID}
}

// Enrolled is the content of a certificate for software that enrolls.
type Enrolled struct {
	ClusterID    string // UUID, lower case
	EnrollmentID string
	Serial       *big.Int
	// NotBefore and NotAfter are clamped to the CA's own validity.
	NotBefore, NotAfter time.Time
}

func (e Enrolled) check(ca CA, pub crypto.PublicKey) (from, to time.Time, err error) {
	if ca.Cert == nil || ca.Key == nil || !ca.Cert.IsCA {
		return from, to, errors.New("certs: sign: the authority has no CA certificate or no key")
	}
	if !isUUID(e.ClusterID) || e.EnrollmentID == "" || e.Serial == nil {
		return from, to, errors.New("certs: an enrolled certificate needs a cluster id, an enrollment id and a serial number")
	}
	if err := checkPublicKey(pub); err != nil {
		return from, to, err
	}
	from, to = overlap(ca.Cert, e.NotBefore, e.NotAfter)
	if !from.Before(to) {
		return from, to, errors.New("certs: the validity asked for is empty or outside the CA's own")
	}
	return from.UTC(), to.UTC(), nil
}

// SignEnrolled issues a transport certificate, in DER, for software that is not a member. It is valid for TLS servers
// and clients and has [EnrolledURI] as its only name; it has no addresses because it is not known where the software
// will run.
func (ca CA) SignEnrolled(pub crypto.PublicKey, e Enrolled) ([]byte, error) {
	from, to, err := e.check(ca, pub)
	if err != nil {
		return nil, err
	}
	_, keyID, err := serialAndKeyID(pub)
	if err != nil {
		return nil, err
	}
	usage := x509.KeyUsageDigitalSignature
	if _, ok := pub.(*rsa.PublicKey); ok {
		usage |= x509.KeyUsageKeyEncipherment
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber:          e.Serial,
		Subject:               pkix.Name{CommonName: "enrolled " + e.EnrollmentID},
		NotBefore:             from,
		NotAfter:              to,
		BasicConstraintsValid: true,
		KeyUsage:              usage,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		SubjectKeyId:          keyID,
		URIs:                  []*url.URL{EnrolledURI(e.ClusterID, e.EnrollmentID)},
	}, ca.Cert, pub, ca.Key)
	if err != nil {
		return nil, fmt.Errorf("certs: sign the certificate of enrollment %s: %w", e.EnrollmentID, err)
	}
	return der, nil
}

// Permitted are the hosts that an intermediate may sign for besides loopback.
type Permitted struct {
	Names    []string // each with its subdomains: name constraints cannot exclude them
	Below    []string // only the subdomains of these
	Networks []netip.Prefix
}

// dns lists the permitted DNS names. It omits a name that equals an excluded one or has an excluded one below it,
// because a wildcard passes verifiers: *.example.org would be accepted although host.example.org is excluded.
func (p Permitted) dns(excluded []string) []string {
	list := []string{"localhost"}
	add := func(name, constraint string) {
		name = strings.ToLower(name)
		for _, x := range excluded {
			if x = strings.ToLower(x); x == name || strings.HasSuffix(x, "."+name) {
				return
			}
		}
		list = append(list, strings.ToLower(constraint))
	}
	for _, name := range p.Names {
		add(name, name)
	}
	for _, name := range p.Below {
		add(name, "."+name)
	}
	return list
}

// ips lists the permitted networks, including loopback.
func (p Permitted) ips() (list []*net.IPNet) {
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	for _, n := range append(loopback, p.Networks...) {
		list = append(list, &net.IPNet{IP: n.Masked().Addr().AsSlice(), Mask: net.CIDRMask(n.Bits(), n.Addr().BitLen())})
	}
	return list
}

// SignIntermediate issues a CA certificate for pub, in DER, that may sign only leaves, only for servers. Name
// constraints limit it: its leaves verify only for permitted hosts and loopback, never for the hosts in except and
// never with a member's identity.
func (ca CA) SignIntermediate(pub crypto.PublicKey, e Enrolled, permitted Permitted, except []string) ([]byte, error) {
	from, to, err := e.check(ca, pub)
	if err != nil {
		return nil, err
	}
	_, keyID, err := serialAndKeyID(pub)
	if err != nil {
		return nil, err
	}
	ips, names, err := splitHosts(except)
	if err != nil {
		return nil, err
	}
	name := "muster enrolled HTTP CA " + e.EnrollmentID[:min(8, len(e.EnrollmentID))] + " " + keyIDText(keyID)
	tmpl := &x509.Certificate{
		SerialNumber:                e.Serial,
		Subject:                     pkix.Name{CommonName: name},
		NotBefore:                   from,
		NotAfter:                    to,
		IsCA:                        true,
		BasicConstraintsValid:       true,
		MaxPathLenZero:              true,
		KeyUsage:                    x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		ExtKeyUsage:                 []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		SubjectKeyId:                keyID,
		PermittedDNSDomainsCritical: true, // marks all name constraints as critical
		ExcludedURIDomains:          []string{e.ClusterID},
		PermittedDNSDomains:         permitted.dns(names),
		PermittedIPRanges:           permitted.ips(),
	}
	for _, ip := range ips {
		if !ip.IsLoopback() && !ip.IsUnspecified() {
			bits := 8 * len(ip)
			tmpl.ExcludedIPRanges = append(tmpl.ExcludedIPRanges, &net.IPNet{IP: ip, Mask: net.CIDRMask(bits, bits)})
		}
	}
	for _, name := range names {
		if name != "localhost" {
			tmpl.ExcludedDNSDomains = append(tmpl.ExcludedDNSDomains, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.Cert, pub, ca.Key)
	if err != nil {
		return nil, fmt.Errorf("certs: sign the authority of enrollment %s: %w", e.EnrollmentID, err)
	}
	return der, nil
}

func keyIDText(id []byte) string { return fmt.Sprintf("%x", id[:4]) }

// MarshalKey writes a private key as PKCS#8 in DER, unencrypted.
func MarshalKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("certs: a key of type %T cannot be written as PKCS#8", key)
	}
	return der, nil
}
