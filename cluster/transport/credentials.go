package transport

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"muster/certs"
)

// Protocols of the cluster listener, selected by ALPN.
const (
	protoRaft = "muster-raft/1" // a dqlite stream
	protoAsk  = "muster-ask/1"  // "which leader do you follow?", repeatedly
	protoHTTP = "h2"            // probes, forwarded requests

	ProtoPeer  = "muster-peer/1"       // another cluster's stream; authenticated by its secret, not by a certificate
	protoRelay = "muster-peer-relay/1" // the same, relayed by a member that does not lead
)

// Credentials are a member's certificate for the cluster listener and the authorities that it trusts. Replace changes
// them for later connections.
type Credentials struct {
	ClusterID string
	NodeID    uint64
	// Known returns the SHA-256 of the public key that this member has for a member's certificates, "" if unknown. An
	// expired leaf must have that key. Set before the first connection; nil knows no key.
	Known   func(nodeID uint64) string
	current atomic.Pointer[trust]

	mu     sync.Mutex
	warned map[uint64]time.Time // when the last acceptance of an expired leaf was logged
	log    *slog.Logger
}

type trust struct {
	leaf  tls.Certificate
	roots *x509.CertPool
}

// ErrExpired: a certificate at one end of a connection is outside its validity period, and the connection is not for
// Raft or renewal.
var ErrExpired = errors.New("the certificate has expired, or is not valid yet by this machine's clock: until it is " +
	"renewed it is good for Raft and for its renewal alone")

// expiredEvery is the interval of log lines about an expired leaf of one member.
const expiredEvery = time.Minute

// NewCredentials parses the PEM files of the data directory.
func NewCredentials(clusterID string, nodeID uint64, leaf, key, roots []byte) (*Credentials, error) {
	c := &Credentials{ClusterID: clusterID, NodeID: nodeID}
	return c, c.Replace(leaf, key, roots)
}

// Replace installs a renewed certificate or a changed trust, for connections made later.
func (c *Credentials) Replace(leaf, key, roots []byte) error {
	pair, err := tls.X509KeyPair(leaf, key)
	if err != nil {
		return fmt.Errorf("the transport certificate cannot be used: %w", err)
	}
	if id, err := certs.NodeID(pair.Leaf, c.ClusterID); err != nil || id != c.NodeID {
		return fmt.Errorf("the transport certificate is not that of node %d of cluster %s", c.NodeID, c.ClusterID)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(roots) {
		return errors.New("the transport CA file holds no certificate")
	}
	c.current.Store(&trust{leaf: pair, roots: pool})
	return nil
}

// server returns the TLS settings of the cluster listener: TLS 1.3, members only, and other clusters for their
// protocol.
func (c *Credentials) server() *tls.Config {
	return &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		t := c.current.Load()
		if len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == ProtoPeer {
			return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{t.leaf},
				NextProtos:             []string{ProtoPeer},
				SessionTicketsDisabled: true}, nil
		}
		return &tls.Config{
			MinVersion:             tls.VersionTLS13,
			Certificates:           []tls.Certificate{t.leaf},
			NextProtos:             []string{protoRaft, protoAsk, protoHTTP, protoCalls, protoRelay},
			ClientAuth:             tls.RequireAnyClientCert, // verified below: an expired one may be renewed
			SessionTicketsDisabled: true,                     // a resumed session would outlive a change of trust
			VerifyConnection: func(s tls.ConnectionState) error {
				switch s.NegotiatedProtocol {
				case "":
					return errors.New("no protocol of muster was offered")
				// a leader must ask the others; onlyRenewal limits HTTP
				case protoRaft, protoAsk, protoHTTP:
					_, err := c.verify(s, t, x509.ExtKeyUsageClientAuth, true)
					return err
				}
				_, err := c.verify(s, t, x509.ExtKeyUsageClientAuth, false)
				return err
			},
		}, nil
	}}
}

// client returns the TLS settings for a connection to one member. The node id in its certificate identifies the member;
// names and addresses do not count. aged: the certificates of both ends may have expired.
func (c *Credentials) client(nodeID uint64, proto string, aged bool) *tls.Config {
	t := c.current.Load()
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		Certificates:       []tls.Certificate{t.leaf},
		NextProtos:         []string{proto},
		InsecureSkipVerify: true, // replaced by the check below, which uses no host name
		VerifyConnection: func(s tls.ConnectionState) error {
			if !aged && certs.Aged(t.leaf.Leaf, time.Now()) {
				return ErrExpired
			}
			id, err := c.verify(s, t, x509.ExtKeyUsageServerAuth, aged)
			if err == nil && id != nodeID {
				err = fmt.Errorf("node %d answers where node %d was expected", id, nodeID)
			}
			return err
		},
	}
}

// verify checks the certificate of the other end and returns its node id. aged: it also accepts a leaf outside its
// validity period if this member has its key for that node.
func (c *Credentials) verify(s tls.ConnectionState, t *trust, use x509.ExtKeyUsage, aged bool) (uint64, error) {
	old, err := certs.VerifyAged(s.PeerCertificates, t.roots, use, time.Now())
	if err != nil {
		return 0, err
	}
	id, err := c.member(s)
	if err != nil || !old {
		return id, err
	}
	leaf := s.PeerCertificates[0]
	if !aged {
		return 0, ErrExpired
	}
	known := ""
	if c.Known != nil {
		known = c.Known(id)
	}
	if hash, err := certs.KeyHash(leaf.PublicKey); err != nil || known == "" || hash != known {
		return 0, fmt.Errorf("the certificate of node %d has expired or is not valid yet, and its key is not known here", id)
	}
	c.warn(id, leaf)
	return id, nil
}

// use sets the log for accepted expired leaves.
func (c *Credentials) use(log *slog.Logger) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log = log
}

// warn logs the acceptance of a leaf outside its validity period, once a minute for each member.
func (c *Credentials) warn(id uint64, leaf *x509.Certificate) {
	c.mu.Lock()
	last, log := c.warned[id], c.log
	tell := log != nil && time.Since(last) > expiredEvery
	if tell {
		if c.warned == nil {
			c.warned = map[uint64]time.Time{}
		}
		c.warned[id] = time.Now()
	}
	c.mu.Unlock()
	switch {
	case !tell:
	case time.Now().Before(leaf.NotBefore):
		log.Warn("A CERTIFICATE THAT IS NOT VALID YET was accepted, for Raft and its renewal alone; is the clock right, "+
			"here and where it was made?", "node", id, "begins", leaf.NotBefore.UTC().Format(time.RFC3339))
	default:
		log.Warn("AN EXPIRED CERTIFICATE was accepted, for Raft and its renewal alone; "+
			"it is renewed as soon as there is a leader", "node", id, "expired", leaf.NotAfter.UTC().Format(time.RFC3339))
	}
}

// aged reports whether the leaf of the other end is outside its validity period.
func aged(s tls.ConnectionState) bool {
	return len(s.PeerCertificates) > 0 && certs.Aged(s.PeerCertificates[0], time.Now())
}

// member returns the node id of the other end of a verified connection.
func (c *Credentials) member(s tls.ConnectionState) (uint64, error) {
	if len(s.PeerCertificates) == 0 {
		return 0, errors.New("no certificate was presented")
	}
	return certs.NodeID(s.PeerCertificates[0], c.ClusterID)
}
