// Package enrolled is, for tests, a node of other software that enrolls: it takes the answer apart as such a node does,
// and serves and speaks TLS with what is in it.
package enrolled

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// Material is the documented answer, decoded and parsed.
type Material struct {
	HTTPCAKey       []byte   `json:"http_ca_key"`
	HTTPCACert      []byte   `json:"http_ca_cert"`
	TransportCACert []byte   `json:"transport_ca_cert"`
	TransportKey    []byte   `json:"transport_key"`
	TransportCert   []byte   `json:"transport_cert"`
	NodesAddresses  []string `json:"nodes_addresses"`

	HTTPCA, TransportCA, Transport *x509.Certificate `json:"-"`
	HTTPSigner, TransportSigner    crypto.Signer     `json:"-"`
}

// Parse checks the form of an answer: six fields in their order, one certificate or key in each.
func Parse(t testing.TB, body string) (e *Material) {
	t.Helper()
	e = &Material{}
	dec := json.NewDecoder(strings.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(e); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	order := []string{"http_ca_key", "http_ca_cert", "transport_ca_cert", "transport_key", "transport_cert",
		"nodes_addresses"}
	for i, at := 0, -1; i < len(order); i++ {
		next := strings.Index(body, `"`+order[i]+`":`)
		if next <= at {
			t.Errorf("%s is missing or not in its place", order[i])
		}
		at = next
	}
	certificate := func(der []byte) *x509.Certificate {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	key := func(der []byte) crypto.Signer {
		parsed, err := x509.ParsePKCS8PrivateKey(der)
		if err != nil {
			t.Fatal(err)
		}
		return parsed.(crypto.Signer)
	}
	e.HTTPCA, e.TransportCA = certificate(e.HTTPCACert), certificate(e.TransportCACert)
	e.Transport = certificate(e.TransportCert)
	e.HTTPSigner, e.TransportSigner = key(e.HTTPCAKey), key(e.TransportKey)
	return e
}

// Fits reports whether a key is that of a certificate.
func Fits(key crypto.Signer, cert *x509.Certificate) bool {
	a, errA := x509.MarshalPKIXPublicKey(key.Public())
	b, errB := x509.MarshalPKIXPublicKey(cert.PublicKey)
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

// Pair returns the transport key and certificate as TLS uses them.
func (e *Material) Pair() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{e.TransportCert}, PrivateKey: e.TransportSigner}
}

// HTTPLeaf returns what a joining node signs for itself, for an IP address.
func (e *Material) HTTPLeaf(t testing.TB, ip string) tls.Certificate {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		NotBefore:    time.Now().Add(-time.Minute),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.ParseIP(ip)},
		DNSNames:     []string{"localhost", "es-1"},
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, e.HTTPCA, key.Public(), e.HTTPSigner)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der, e.HTTPCACert}, PrivateKey: key}
}

// Serve runs a TLS server that says how many certificates its client shows, and returns its address.
func Serve(t testing.TB, config *tls.Config) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{
		ErrorLog: log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "hello from %d", len(r.TLS.PeerCertificates))
		}),
	}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close() })
	return l.Addr().String()
}

// Ask makes one request over TLS.
func Ask(config *tls.Config, addr string) (string, error) {
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport, Timeout: 5 * time.Second}).Get("https://" + addr)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return string(data), err
}
