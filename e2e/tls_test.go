package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/certs"
	"muster/store"
)

// TestTLS: what the listeners of a member accept.
func TestTLS(t *testing.T) {
	t.Parallel()
	onThree(t, part{"of the API", testTLS}, part{"of the cluster", testClusterListener})
}

func pool(t *testing.T, pem []byte) *x509.CertPool {
	t.Helper()
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(pem) {
		t.Fatal("no certificate in PEM form")
	}
	return p
}

// handshake connects and lets the server speak once: in TLS 1.3 a refused client learns of it only then.
func handshake(addr string, cfg *tls.Config) (tls.ConnectionState, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", addr, cfg)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(500 * time.Millisecond))
	_, err = conn.Read(make([]byte, 1))
	if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
		err = nil // it waits for us: we are in
	}
	if err != nil && err != io.EOF {
		return tls.ConnectionState{}, err
	}
	if err == io.EOF {
		return tls.ConnectionState{}, fmt.Errorf("closed at once: %w", err)
	}
	return conn.ConnectionState(), nil
}

// testTLS: the API listener speaks TLS 1.2 and 1.3, HTTP/1.1 and 2, and its chain verifies with ca.crt.
func testTLS(t *testing.T, c *cluster) {
	for _, m := range c.members {
		roots := pool(t, m.read(t, "ca.crt"))
		for _, x := range []struct {
			name    string
			min     uint16
			max     uint16
			protos  []string
			refused bool
			proto   string
		}{
			{"TLS 1.0", tls.VersionTLS10, tls.VersionTLS10, nil, true, ""},
			{"TLS 1.1", tls.VersionTLS11, tls.VersionTLS11, nil, true, ""},
			{"TLS 1.2", tls.VersionTLS12, tls.VersionTLS12, []string{"h2", "http/1.1"}, false, "h2"},
			{"TLS 1.3", tls.VersionTLS13, tls.VersionTLS13, []string{"h2", "http/1.1"}, false, "h2"},
			{"HTTP/1.1", tls.VersionTLS12, tls.VersionTLS13, []string{"http/1.1"}, false, "http/1.1"},
			{"no ALPN", tls.VersionTLS12, tls.VersionTLS13, nil, false, ""},
			{"a foreign protocol", tls.VersionTLS12, tls.VersionTLS13, []string{"spdy/9"}, true, ""},
		} {
			for _, name := range []string{"127.0.0.1", "localhost"} {
				conn, err := tls.Dial("tcp", m.api, &tls.Config{
					RootCAs:    roots,
					ServerName: name,
					MinVersion: x.min,
					MaxVersion: x.max,
					NextProtos: x.protos,
				})
				if (err != nil) != x.refused {
					t.Errorf("node %d, %s as %s: %v", m.n, x.name, name, err)
				}
				if err != nil {
					continue
				}
				st := conn.ConnectionState()
				conn.Close()
				if st.NegotiatedProtocol != x.proto {
					t.Errorf("node %d, %s: protocol %q, want %q", m.n, x.name, st.NegotiatedProtocol, x.proto)
				}
				if len(st.PeerCertificates) != 2 || !st.PeerCertificates[1].IsCA {
					t.Errorf("node %d: the chain has %d certificates, want the leaf and the HTTP CA", m.n, len(st.PeerCertificates))
				}
			}
		}
		for _, x := range []struct {
			what, addr string
			cfg        *tls.Config
		}{
			{"a name that is not the member's", m.api, &tls.Config{RootCAs: roots, ServerName: "example.org"}},
			{"the transport CA", m.api,
				&tls.Config{RootCAs: pool(t, m.read(t, "tls/transport-ca.crt")), ServerName: "127.0.0.1"}},
		} {
			if conn, err := tls.Dial("tcp", x.addr, x.cfg); err == nil {
				conn.Close()
				t.Errorf("node %d verifies with %s", m.n, x.what)
			}
		}
		// HTTP/1.1 and HTTP/2 give the same answer.
		conn, err := tls.Dial("tcp", m.api, &tls.Config{RootCAs: roots, NextProtos: []string{"http/1.1"}})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "GET /api/v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		text, _ := io.ReadAll(conn)
		conn.Close()
		if !strings.HasPrefix(string(text), "HTTP/1.1 200 ") || !strings.Contains(string(text), `"ready":true`) {
			t.Errorf("node %d over HTTP/1.1: %s", m.n, text)
		}
	}
}

// testClusterListener: only members get in, only with TLS 1.3, only for the protocols of muster.
func testClusterListener(t *testing.T, c *cluster) {
	m, peer := c.members[0], c.members[1]
	load := func(m *member, name string) tls.Certificate {
		pair, err := tls.X509KeyPair(m.read(t, "tls/"+name+".crt"), m.read(t, "tls/"+name+".key"))
		if err != nil {
			t.Fatal(err)
		}
		return pair
	}
	good, http := load(peer, "transport"), load(peer, "http")
	foreign := func(clusterID string, id uint64) tls.Certificate {
		ca, err := certs.NewCA(certs.Transport, clusterID, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		key, err := certs.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		record := store.NewCertificate(certs.Transport, time.Now())
		record.NodeID = id
		leaf, err := record.Sign(ca, key.Public(), clusterID, "node-x", []string{"127.0.0.1"})
		if err != nil {
			t.Fatal(err)
		}
		return tls.Certificate{Certificate: [][]byte{leaf, ca.Cert.Raw}, PrivateKey: key}
	}
	cfg := func(version uint16, proto []string, list ...tls.Certificate) *tls.Config {
		return &tls.Config{
			InsecureSkipVerify: true,
			MinVersion:         version,
			MaxVersion:         version,
			NextProtos:         proto,
			// Without regard to the authorities that the server names.
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				if len(list) == 0 {
					return &tls.Certificate{}, nil
				}
				return &list[0], nil
			},
		}
	}
	protos := []string{"muster-raft/1", "muster-ask/1", "h2"}
	for _, x := range []struct {
		name string
		cfg  *tls.Config
		in   bool
	}{
		{"a member", cfg(tls.VersionTLS13, []string{"muster-ask/1"}, good), true},
		{"a member asking for internal HTTP", cfg(tls.VersionTLS13, []string{"h2"}, good), true},
		{"no certificate", cfg(tls.VersionTLS13, protos), false},
		{"no certificate, internal HTTP", cfg(tls.VersionTLS13, []string{"h2"}), false},
		{"a certificate of the HTTP CA", cfg(tls.VersionTLS13, protos, http), false},
		{"a certificate of another CA for the same cluster and node", cfg(tls.VersionTLS13, protos, foreign(c.id, 2)), false},
		{"a certificate of another cluster",
			cfg(tls.VersionTLS13, protos, foreign("0f5b8c1e-7a2d-4e6f-9b3c-5d8e1f2a3b4c", 2)), false},
		{"TLS 1.2", cfg(tls.VersionTLS12, protos, good), false},
		{"no protocol", cfg(tls.VersionTLS13, nil, good), false},
		{"HTTP/1.1", cfg(tls.VersionTLS13, []string{"http/1.1"}, good), false},
		{"a foreign protocol", cfg(tls.VersionTLS13, []string{"ella-raft-v1"}, good), false},
	} {
		st, err := handshake(m.raft, x.cfg)
		if (err == nil) != x.in {
			t.Errorf("%s: got in: %v (%v)", x.name, err == nil, err)
		}
		if err == nil && !slices.Contains(protos, st.NegotiatedProtocol) {
			t.Errorf("%s: protocol %q", x.name, st.NegotiatedProtocol)
		}
	}
	// A connection that says nothing does not keep others out.
	idle, err := net.Dial("tcp", m.raft)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	if _, err := handshake(m.raft, cfg(tls.VersionTLS13, []string{"muster-ask/1"}, good)); err != nil {
		t.Errorf("while another connection is silent: %v", err)
	}
	// The port of one kind does not serve the other.
	if a := c.nobody(t).do(&member{api: m.raft}, "GET", "/api/v1/status", ""); a.err == nil {
		t.Errorf("the cluster listener answers a client: %v", a)
	}
}
