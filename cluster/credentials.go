package cluster

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync/atomic"

	"muster/certs"
)

// Protocols that share the cluster listener, told apart by ALPN.
const (
	protoRaft = "muster-raft/1" // a dqlite stream
	protoAsk  = "muster-ask/1"  // "which leader do you follow?", over and over
	protoHTTP = "h2"            // probes, forwarded requests

	protoPeer  = "muster-peer/1"       // another cluster's stream; its secret authenticates it, no certificate
	protoRelay = "muster-peer-relay/1" // the same, passed on by a member that does not lead
)

// Credentials are a member's certificate for the cluster listener and the authority that it trusts. They are
// replaced as a whole when either changes; connections made later use the new ones.
type Credentials struct {
	ClusterID string
	NodeID    uint64
	current   atomic.Pointer[trust]
}

type trust struct {
	leaf  tls.Certificate
	roots *x509.CertPool
}

// NewCredentials reads PEM files as `muster serve` keeps them in its data directory.
func NewCredentials(clusterID string, nodeID uint64, leaf, key, roots []byte) (*Credentials, error) {
	c := &Credentials{ClusterID: clusterID, NodeID: nodeID}
	return c, c.Replace(leaf, key, roots)
}

// Replace installs a renewed certificate or a changed trust.
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

// server returns the TLS settings of the cluster listener: TLS 1.3, members only, and other clusters for their protocol.
func (c *Credentials) server() *tls.Config {
	return &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		t := c.current.Load()
		if len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == protoPeer {
			return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{t.leaf}, NextProtos: []string{protoPeer},
				SessionTicketsDisabled: true}, nil
		}
		return &tls.Config{
			MinVersion:             tls.VersionTLS13,
			Certificates:           []tls.Certificate{t.leaf},
			NextProtos:             []string{protoRaft, protoAsk, protoHTTP, protoRelay},
			ClientAuth:             tls.RequireAndVerifyClientCert,
			ClientCAs:              t.roots,
			SessionTicketsDisabled: true, // a resumed session would outlive a change of trust
			VerifyConnection: func(s tls.ConnectionState) error {
				if s.NegotiatedProtocol == "" {
					return errors.New("no protocol of muster was offered")
				}
				_, err := c.peer(s)
				return err
			},
		}, nil
	}}
}

// client returns the TLS settings for a connection to one member. The member is known by the node id in its
// certificate; names and addresses do not count.
func (c *Credentials) client(nodeID uint64, proto string) *tls.Config {
	t := c.current.Load()
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		Certificates:       []tls.Certificate{t.leaf},
		NextProtos:         []string{proto},
		InsecureSkipVerify: true, // replaced by the check below, which has no host name to go by
		VerifyConnection: func(s tls.ConnectionState) error {
			opts := x509.VerifyOptions{Roots: t.roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
			for _, cert := range s.PeerCertificates[1:] {
				opts.Intermediates.AddCert(cert)
			}
			if _, err := s.PeerCertificates[0].Verify(opts); err != nil {
				return err
			}
			id, err := c.peer(s)
			if err == nil && id != nodeID {
				err = fmt.Errorf("node %d answers where node %d was expected", id, nodeID)
			}
			return err
		},
	}
}

// peer returns the node id of the other end of a verified connection.
func (c *Credentials) peer(s tls.ConnectionState) (uint64, error) {
	if len(s.PeerCertificates) == 0 {
		return 0, errors.New("no certificate was presented")
	}
	return certs.NodeID(s.PeerCertificates[0], c.ClusterID)
}
