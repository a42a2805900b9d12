package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Workload is the kind of the authority that signs X509-SVIDs, the identities of software. It is separate, so that a
// workload's identity is not accepted by a listener of the cluster.
const Workload Kind = "workload"

const (
	maxWorkloadPath = 1024 // bytes
	maxSPIFFEID     = 2048 // bytes, SPIFFE-ID section 2.3
	maxBundle       = 64 << 10
	maxBundleKeys   = 32
	// bundleHint is the refresh interval of the trust bundle. A new authority is in it long before it issues.
	bundleHint = 5 * time.Minute
)

// reservedPaths are prefixes of the cluster's own SPIFFE IDs: members are /node/<raft id>.
var reservedPaths = []string{"/node", "/muster", "/spire"}

// WorkloadID returns the SPIFFE ID of a workload in a cluster's trust domain, which is the cluster id. The error is a
// sentence that names the field "path" and the rule (SPIFFE-ID section 2.2).
func WorkloadID(clusterID, path string) (spiffeid.ID, error) {
	domain, err := TrustDomain(clusterID)
	if err != nil {
		return spiffeid.ID{}, err
	}
	if path == "" || path[0] != '/' {
		return spiffeid.ID{}, errors.New("path must begin with /, such as /billing/api")
	}
	if len(path) > maxWorkloadPath {
		return spiffeid.ID{}, fmt.Errorf("path must be at most %d bytes long", maxWorkloadPath)
	}
	for _, own := range reservedPaths {
		if path == own || strings.HasPrefix(path, own+"/") {
			return spiffeid.ID{}, fmt.Errorf("path must not begin with %s, which is reserved", own)
		}
	}
	id, err := spiffeid.FromPath(domain, path)
	if err != nil {
		return id, errors.New("path must consist of segments of letters, digits, '.', '-' and '_' after one / each, " +
			"none empty, '.' or '..'")
	}
	return id, nil
}

// NodeSVID is the SPIFFE ID of a member, the same as in its transport certificates.
func NodeSVID(clusterID string, id uint64) (spiffeid.ID, error) {
	return spiffeid.FromURI(NodeURI(clusterID, id))
}

// TrustDomain returns the trust domain of a cluster: its id, a UUID in lower case.
func TrustDomain(clusterID string) (spiffeid.TrustDomain, error) {
	if !isUUID(clusterID) {
		return spiffeid.TrustDomain{}, errors.New("certs: the cluster id must be a lower-case UUID")
	}
	return spiffeid.TrustDomainFromString(clusterID)
}

// SVID is the content of an X509-SVID.
type SVID struct {
	ID                  spiffeid.ID
	Hosts               []string // DNS names and IP addresses, for verifiers that check these
	NotBefore, NotAfter time.Time
}

// SignSVID issues an X509-SVID for pub, in DER (X509-SVID section 4): one URI SAN, no CA, for TLS servers and clients.
func (ca CA) SignSVID(pub crypto.PublicKey, s SVID) ([]byte, error) {
	if ca.Cert == nil || ca.Key == nil || !ca.Cert.IsCA {
		return nil, errors.New("certs: sign: the authority has no CA certificate or no key")
	}
	if s.ID.IsZero() || s.ID.Path() == "" || len(s.ID.String()) > maxSPIFFEID {
		return nil, errors.New("certs: an X509-SVID needs a SPIFFE ID with a path, of at most 2048 bytes")
	}
	if err := checkPublicKey(pub); err != nil {
		return nil, err
	}
	ips, names, err := splitHosts(s.Hosts)
	if err != nil {
		return nil, err
	}
	from, to := overlap(ca.Cert, s.NotBefore, s.NotAfter)
	if !from.Before(to) {
		return nil, errors.New("certs: the validity asked for is outside the CA's own")
	}
	serial, keyID, err := serialAndKeyID(pub)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"muster"}},
		NotBefore:             from.UTC(),
		NotAfter:              to.UTC(),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		SubjectKeyId:          keyID,
		IPAddresses:           ips,
		DNSNames:              names,
		URIs:                  []*url.URL{s.ID.URL()},
	}, ca.Cert, pub, ca.Key)
	if err != nil {
		return nil, fmt.Errorf("certs: sign the X509-SVID of %s: %w", s.ID, err)
	}
	return der, nil
}

// JWTAuthority is a key that signs JWT-SVIDs.
type JWTAuthority struct {
	Key *ecdsa.PrivateKey // P-256, for ES256; JWT-SVIDs do not allow EdDSA
	KID string
}

// Format keeps the key out of logs.
func (a JWTAuthority) Format(w fmt.State, _ rune) { fmt.Fprintf(w, "JWTAuthority(%s)", a.KID) }

// NewJWTAuthority makes a key that signs JWT-SVIDs.
func NewJWTAuthority() (JWTAuthority, error) {
	key, err := NewKey()
	if err != nil {
		return JWTAuthority{}, err
	}
	return jwtAuthority(key)
}

func jwtAuthority(key *ecdsa.PrivateKey) (JWTAuthority, error) {
	hash, err := KeyHash(key.Public())
	if err != nil {
		return JWTAuthority{}, err
	}
	return JWTAuthority{Key: key, KID: hash[:32]}, nil
}

// EncodeWorkloadKeys writes the keys of a workload authority as two PEM blocks, sealed as one value: the key of its
// certificate, then the key of its JWT-SVIDs.
func EncodeWorkloadKeys(ca CA, a JWTAuthority) ([]byte, error) {
	first, err := EncodeKey(ca.Key)
	if err != nil {
		return nil, err
	}
	second, err := EncodeKey(a.Key)
	if err != nil {
		return nil, err
	}
	return append(first, second...), nil
}

// ParseWorkloadKeys reads what EncodeWorkloadKeys writes.
func ParseWorkloadKeys(data []byte) (crypto.Signer, JWTAuthority, error) {
	block, rest := pem.Decode(data)
	if block == nil {
		return nil, JWTAuthority{}, errors.New("certs: the keys of the workload authority are not PEM")
	}
	key, err := ParseKey(data[:len(data)-len(rest)])
	if err != nil {
		return nil, JWTAuthority{}, err
	}
	second, err := ParseKey(rest)
	if err != nil {
		return nil, JWTAuthority{}, err
	}
	signer, ok := second.(*ecdsa.PrivateKey)
	if !ok {
		return nil, JWTAuthority{}, errors.New("certs: the key of JWT-SVIDs is not ECDSA")
	}
	a, err := jwtAuthority(signer)
	return key, a, err
}

// EncodePublicKey writes a public key as PKIX in PEM ("PUBLIC KEY").
func EncodePublicKey(pub crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("certs: encode the public key: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), nil
}

// ParsePublicKey reads what EncodePublicKey writes.
func ParsePublicKey(text string) (crypto.PublicKey, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, errors.New("certs: expected a PEM block PUBLIC KEY")
	}
	return x509.ParsePKIXPublicKey(block.Bytes)
}

// Sign makes a JWT-SVID (JWT-SVID sections 2 and 3): ES256, with the claims sub, aud, iat and exp.
func (a JWTAuthority) Sign(id spiffeid.ID, audience []string, now time.Time, lifetime time.Duration) (string, error) {
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: a.Key, KeyID: a.KID}},
		(&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", fmt.Errorf("certs: sign a JWT-SVID: %w", err)
	}
	text, err := jwt.Signed(signer).Claims(jwt.Claims{
		Subject:  id.String(),
		Audience: audience,
		IssuedAt: jwt.NewNumericDate(now),
		Expiry:   jwt.NewNumericDate(now.Add(lifetime)),
	}).Serialize()
	if err != nil {
		return "", fmt.Errorf("certs: sign a JWT-SVID: %w", err)
	}
	return text, nil
}

// NewBundle returns the trust bundle of a cluster (SPIFFE Trust Domain and Bundle, section 4). sequence must increase
// with every change.
func NewBundle(clusterID string, roots []*x509.Certificate, keys map[string]crypto.PublicKey,
	sequence uint64) (*spiffebundle.Bundle, error) {
	domain, err := TrustDomain(clusterID)
	if err != nil {
		return nil, err
	}
	b := spiffebundle.New(domain)
	b.SetX509Authorities(roots)
	b.SetJWTAuthorities(keys)
	b.SetSequenceNumber(sequence)
	b.SetRefreshHint(bundleHint)
	return b, nil
}

// EncodeBundle writes a trust bundle in SPIFFE's format. The same bundle always gives the same text.
func EncodeBundle(b *spiffebundle.Bundle) ([]byte, error) {
	data, err := b.Marshal()
	if err != nil {
		return nil, fmt.Errorf("certs: encode a trust bundle: %w", err)
	}
	var doc struct {
		Keys        []json.RawMessage `json:"keys"`
		Sequence    uint64            `json:"spiffe_sequence,omitempty"`
		RefreshHint int64             `json:"spiffe_refresh_hint,omitempty"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("certs: encode a trust bundle: %w", err)
	}
	slices.SortFunc(doc.Keys, func(a, b json.RawMessage) int { return bytes.Compare(a, b) })
	return json.Marshal(doc)
}

// ParseBundle reads the trust bundle of another cluster. It rejects a bundle without an authority for X509-SVIDs, with
// more authorities than a cluster can have, or with a root that is not a CA.
func ParseBundle(clusterID string, data []byte) (*spiffebundle.Bundle, error) {
	domain, err := TrustDomain(clusterID)
	if err != nil {
		return nil, errors.New("the trust domain must be a lower-case UUID, the id of a cluster")
	}
	if len(data) > maxBundle {
		return nil, fmt.Errorf("the trust bundle must be at most %d bytes long", maxBundle)
	}
	b, err := spiffebundle.Parse(domain, data)
	if err != nil {
		return nil, errors.New("the trust bundle is not in SPIFFE's format")
	}
	roots := b.X509Authorities()
	if len(roots) == 0 || len(roots)+len(b.JWTAuthorities()) > maxBundleKeys {
		return nil, fmt.Errorf("the trust bundle must have an X.509 authority, and at most %d authorities", maxBundleKeys)
	}
	for _, root := range roots {
		if !root.IsCA || checkPublicKey(root.PublicKey) != nil {
			return nil, errors.New("the trust bundle has an X.509 authority that is not a CA")
		}
	}
	for _, key := range b.JWTAuthorities() {
		if checkPublicKey(key) != nil {
			return nil, errors.New("the trust bundle has a key that is too weak or of an unknown kind")
		}
	}
	return b, nil
}

// CheckHosts rejects hosts that cannot be in a certificate. The error is a sentence without a prefix.
func CheckHosts(hosts []string) error {
	if _, _, err := splitHosts(hosts); err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "certs: "))
	}
	return nil
}
