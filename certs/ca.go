package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
)

// Kind is the kind of a certificate authority. The third kind, Workload, is declared in workload.go.
type Kind string

const (
	// HTTP certificates serve the API listener, for operators and their tools.
	HTTP Kind = "http"
	// Transport certificates serve the cluster listener, member to member.
	Transport Kind = "transport"
)

const (
	// A new CA is backdated by an hour, so that a machine with a slow
	// clock can join.
	caBackdate = time.Hour
	// Two CAs may stand between the root and a leaf: the cross-signed
	// successor during a CA rotation, and an intermediate.
	caPathLen = 2
	// maxName is the X.520 upper bound of a common name.
	maxName = 64
)

// CAEnd returns the expiry of a CA made now: ten years later. It is a variable so that tests can shorten it.
var CAEnd = func(now time.Time) time.Time { return now.AddDate(10, 0, 0) }

// CA is a certificate authority: its certificate and its private key.
type CA struct {
	Cert *x509.Certificate
	Key  crypto.Signer
}

// Format keeps the key out of logs: fmt would print the private number.
func (ca CA) Format(w fmt.State, _ rune) {
	if ca.Cert == nil {
		io.WriteString(w, "CA(none)")
		return
	}
	fmt.Fprintf(w, "CA(%s, %s)", ca.Cert.Subject.CommonName, Fingerprint(ca.Cert.Raw))
}

// NewCA makes a self-signed ECDSA P-256 authority, valid from one hour before
// now for ten years. clusterID is the cluster's UUID in its lower-case form;
// the common name is "muster <kind> CA <first 8 of the cluster id>".
func NewCA(kind Kind, clusterID string, now time.Time) (CA, error) {
	return NewSuccessor(kind, clusterID, 1, now)
}

// NewSuccessor makes the CA of a generation; the founder's is 1. From the second on, the common name contains the
// number: verifiers find an issuer by its name and would confuse two CAs of the same name.
func NewSuccessor(kind Kind, clusterID string, generation uint64, now time.Time) (CA, error) {
	if err := checkScope(kind, clusterID); err != nil {
		return CA{}, err
	}
	name := fmt.Sprintf("muster %s CA %s", kind, clusterID[:8])
	if generation > 1 {
		name += fmt.Sprintf(" %d", generation)
	}
	key, err := NewKey()
	if err != nil {
		return CA{}, err
	}
	serial, keyID, err := serialAndKeyID(key.Public())
	if err != nil {
		return CA{}, err
	}
	tmpl := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-caBackdate).UTC(),
		NotAfter:              CAEnd(now).UTC(),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLen:            caPathLen,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		SubjectKeyId:          keyID,
	}
	if kind == Workload { // a signing certificate of a trust domain names it (X509-SVID section 3.2)
		domain, err := TrustDomain(clusterID)
		if err != nil {
			return CA{}, err
		}
		tmpl.URIs = []*url.URL{domain.ID().URL()}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return CA{}, fmt.Errorf("certs: make the %s CA: %w", kind, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return CA{}, fmt.Errorf("certs: read back the %s CA: %w", kind, err)
	}
	return CA{Cert: cert, Key: key}, nil
}

// NewKey makes an ECDSA P-256 key, the kind muster uses for CAs and leaves.
func NewKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("certs: make a key: %w", err)
	}
	return key, nil
}

// Leaf is the content of a member's certificate.
type Leaf struct {
	Kind      Kind
	ClusterID string // UUID, lower case
	NodeID    uint64 // Raft node id, 1..MaxNodeID
	Name      string // common name, 1..64 bytes, no control characters
	// Hosts are IP addresses or DNS names, without port, brackets, zone or
	// wildcard. For Kind HTTP localhost, 127.0.0.1 and ::1 are always added.
	Hosts []string
	// NotBefore and NotAfter are clamped to the CA's own validity: verifiers
	// reject a leaf that outlives its CA.
	NotBefore, NotAfter time.Time
	// Serial is the serial number; nil means a new one. A caller that records
	// the certificate before signing it takes one from [NewSerial].
	Serial *big.Int
}

// Sign issues a certificate for pub, in DER. All names come from l; only the
// public key of a member's CSR is used, so a joiner cannot request another
// member's identity. The certificate is valid for TLS servers and clients and
// has the member's identity as its only URI SAN, see [NodeURI].
//
// It returns [ErrWeakKey] for a public key that [ParseCSR] would reject.
func (ca CA) Sign(pub crypto.PublicKey, l Leaf) ([]byte, error) {
	if ca.Cert == nil || ca.Key == nil || !ca.Cert.IsCA {
		return nil, errors.New("certs: sign: the authority has no CA certificate or no key")
	}
	if err := checkScope(l.Kind, l.ClusterID); err != nil {
		return nil, err
	}
	if l.Kind == Workload {
		return nil, errors.New("certs: the workload authority signs SVIDs only, not certificates of members")
	}
	if l.NodeID == 0 || l.NodeID > MaxNodeID {
		return nil, fmt.Errorf("certs: node id must be 1..%d, got %d", uint64(MaxNodeID), l.NodeID)
	}
	if err := checkName(l.Name); err != nil {
		return nil, err
	}
	if err := checkPublicKey(pub); err != nil {
		return nil, err
	}
	hosts := l.Hosts
	if l.Kind == HTTP {
		hosts = append(append([]string(nil), hosts...), "localhost", "127.0.0.1", "::1")
	}
	ips, names, err := splitHosts(hosts)
	if err != nil {
		return nil, err
	}
	from, to := overlap(ca.Cert, l.NotBefore, l.NotAfter)
	if !from.Before(to) {
		return nil, fmt.Errorf("certs: the validity asked for (%s to %s) is empty or outside the CA's own (%s to %s)",
			stamp(l.NotBefore), stamp(l.NotAfter), stamp(ca.Cert.NotBefore), stamp(ca.Cert.NotAfter))
	}
	serial, keyID, err := serialAndKeyID(pub)
	if err != nil {
		return nil, err
	}
	if l.Serial != nil {
		serial = l.Serial
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: l.Name},
		NotBefore:             from.UTC(),
		NotAfter:              to.UTC(),
		BasicConstraintsValid: true, // an explicit "not a CA"
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		SubjectKeyId:          keyID,
		IPAddresses:           ips,
		DNSNames:              names,
		URIs:                  []*url.URL{NodeURI(l.ClusterID, l.NodeID)},
	}, ca.Cert, pub, ca.Key)
	if err != nil {
		return nil, fmt.Errorf("certs: sign the certificate of node %d: %w", l.NodeID, err)
	}
	return der, nil
}

// NodeURI is a member's identity inside its certificates:
// spiffe://<cluster id>/node/<raft id>.
func NodeURI(clusterID string, id uint64) *url.URL {
	return &url.URL{Scheme: "spiffe", Host: clusterID, Path: "/node/" + strconv.FormatUint(id, 10)}
}

// NodeID returns the Raft node id (1..MaxNodeID) in a member's certificate. The
// certificate must have exactly one URI SAN, of this cluster, spelled exactly as
// [NodeURI] writes it. The caller must have verified the certificate's chain.
func NodeID(cert *x509.Certificate, clusterID string) (uint64, error) {
	if len(cert.URIs) != 1 {
		return 0, fmt.Errorf("certs: the certificate has %d URI names, a member's has exactly one", len(cert.URIs))
	}
	got := cert.URIs[0].String()
	_, num, _ := strings.Cut(got, "/node/")
	id, err := strconv.ParseUint(num, 10, 64)
	// Comparing with the canonical spelling rejects leading zeros, queries,
	// user names, upper case and every other variant.
	if err != nil || id == 0 || id > MaxNodeID || NodeURI(clusterID, id).String() != got {
		return 0, errors.New("certs: the certificate's URI name is not a member of this cluster")
	}
	return id, nil
}

func checkScope(kind Kind, clusterID string) error {
	if kind != HTTP && kind != Transport && kind != Workload {
		return fmt.Errorf("certs: unknown certificate kind %q", string(kind))
	}
	if !isUUID(clusterID) {
		return errors.New("certs: the cluster id must be a lower-case UUID")
	}
	return nil
}

func isUUID(s string) bool {
	u, err := uuid.Parse(s)
	return err == nil && u.String() == s // Parse alone also takes urn:, braces and upper case
}

func checkName(name string) error {
	bad := func(r rune) bool { return unicode.IsControl(r) }
	if name == "" || len(name) > maxName || !utf8.ValidString(name) || strings.IndexFunc(name, bad) >= 0 {
		return fmt.Errorf("certs: the name must be 1 to %d bytes of UTF-8 without control characters", maxName)
	}
	return nil
}

// serialAndKeyID makes a random 128-bit serial number and the key identifier of
// pub: the first 160 bits of SHA-256 over its SubjectPublicKeyInfo (RFC 7093,
// section 2, method 4).
func serialAndKeyID(pub crypto.PublicKey) (*big.Int, []byte, error) {
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, nil, fmt.Errorf("certs: encode the public key: %w", err)
	}
	sum := sha256.Sum256(spki)
	return NewSerial(), sum[:20], nil
}

// NewSerial returns a random certificate serial number of 127 bits, positive
// and within the 20 octets of RFC 5280, section 4.1.2.2.
func NewSerial() *big.Int {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b[:])
}

// overlap returns the part of a validity that lies within that of its issuer. Without any, from is not before to.
func overlap(issuer *x509.Certificate, from, to time.Time) (time.Time, time.Time) {
	if issuer.NotBefore.After(from) {
		from = issuer.NotBefore
	}
	if issuer.NotAfter.Before(to) {
		to = issuer.NotAfter
	}
	return from, to
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
