package certs

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"testing"
	"time"
)

func TestVerifyPinned(t *testing.T) {
	ca := must(NewCA(HTTP, testCluster, testNow))
	other := must(NewCA(HTTP, testCluster, testNow))
	key := must(NewKey())
	leaf := must(ca.Sign(key.Public(), testLeaf(HTTP)))
	foreign := must(other.Sign(key.Public(), testLeaf(HTTP)))
	clientOnly := must(x509.CreateCertificate(rand.Reader,
		&x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: testNow.Add(-time.Hour),
			NotAfter: testNow.Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, ca.Cert,
		key.Public(), ca.Key))
	// A successor, signed by the pinned CA, and a leaf of the successor.
	crossed := must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber:          big.NewInt(2),
		Subject:               other.Cert.Subject,
		NotBefore:             testNow.Add(-time.Hour),
		NotAfter:              testNow.AddDate(1, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
		SubjectKeyId:          other.Cert.SubjectKeyId,
	},
		ca.Cert, other.Key.Public(), ca.Key))))
	selfSigned := must(x509.CreateCertificate(rand.Reader,
		&x509.Certificate{SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "x"},
			NotBefore: testNow.Add(-time.Hour), NotAfter: testNow.Add(time.Hour)},
		&x509.Certificate{Subject: pkix.Name{CommonName: "x"}}, key.Public(), key))
	pin, root := Fingerprint(ca.Cert.Raw), ca.Cert.Raw

	for _, tc := range []struct {
		name  string
		chain [][]byte
		pin   string
		now   time.Time
		want  error
	}{
		{"good", [][]byte{leaf, root}, pin, testNow, nil},
		{"first instant", [][]byte{leaf, root}, pin, testNow.Add(-time.Minute), nil},
		{"last instant", [][]byte{leaf, root}, pin, testNow.Add(24 * time.Hour), nil},
		{"extra certificate", [][]byte{leaf, other.Cert.Raw, root}, pin, testNow, nil},
		{"through a successor", [][]byte{foreign, crossed.Raw, root}, pin, testNow, nil},
		{"too early", [][]byte{leaf, root}, pin, testNow.Add(-2 * time.Minute), ErrNotYetValid},
		{"years too early", [][]byte{leaf, root}, pin, time.Unix(0, 0), ErrNotYetValid},
		{"too late", [][]byte{leaf, root}, pin, testNow.Add(25 * time.Hour), ErrExpired},
		{"years too late", [][]byte{leaf, root}, pin, testNow.AddDate(20, 0, 0), ErrExpired},
		{"nothing", nil, pin, testNow, ErrPinMismatch},
		{"CA missing", [][]byte{leaf}, pin, testNow, ErrPinMismatch},
		{"other CA", [][]byte{foreign, other.Cert.Raw}, pin, testNow, ErrPinMismatch},
		{"other CA's leaf beside our CA", [][]byte{foreign, root}, pin, testNow, ErrUntrusted},
		{"the same at a wrong time", [][]byte{foreign, root}, pin, testNow.AddDate(20, 0, 0), ErrUntrusted},
		{"pin of the leaf", [][]byte{leaf, root}, Fingerprint(leaf), testNow, ErrUntrusted},
		{"self-signed, pinned, no CA", [][]byte{selfSigned}, Fingerprint(selfSigned), testNow, ErrUntrusted},
		{"client certificate", [][]byte{clientOnly, root}, pin, testNow, ErrUntrusted},
		{"garbage", [][]byte{[]byte("x"), root}, pin, testNow, ErrUntrusted},
	} {
		err := VerifyPinned(tc.chain, tc.pin, tc.now)
		if tc.want == nil && err != nil || tc.want != nil && !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
	if err := VerifyPinned([][]byte{leaf, root}, "sha256:x", testNow); err == nil {
		t.Error("malformed pin accepted")
	}
}

// TestPinnedTLS also proves that a resumed session is judged again.
func TestPinnedTLS(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		ca := must(NewCA(HTTP, testCluster, testNow))
		key := must(NewKey())
		l := testLeaf(HTTP)
		l.NotAfter = testNow.AddDate(5, 0, 0) // crypto/tls itself looks at the real clock
		leaf := must(ca.Sign(key.Public(), l))
		server := must(tls.Listen("tcp", "127.0.0.1:0", &tls.Config{MaxVersion: version,
			Certificates: []tls.Certificate{{Certificate: [][]byte{leaf, ca.Cert.Raw}, PrivateKey: key}}}))
		defer server.Close()
		go serveByte(server)

		now, resumed := testNow, false
		cfg := PinnedTLS(Fingerprint(ca.Cert.Raw), func() time.Time { return now })
		cfg.ClientSessionCache = tls.NewLRUClientSessionCache(4)
		cfg.Time = func() time.Time { return testNow }
		verify := cfg.VerifyConnection
		cfg.VerifyConnection = func(cs tls.ConnectionState) error {
			resumed = cs.DidResume
			return verify(cs)
		}
		dial := func() error {
			conn, err := tls.Dial("tcp", server.Addr().String(), cfg)
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = io.ReadFull(conn, make([]byte, 1)) // TLS 1.3 tickets come with the first data
			return err
		}
		if err := dial(); err != nil || resumed {
			t.Fatalf("first: %v, resumed %v", err, resumed)
		}
		if err := dial(); err != nil || !resumed {
			t.Fatalf("second: %v, resumed %v", err, resumed)
		}
		now = testNow.AddDate(6, 0, 0)
		if err := dial(); !errors.Is(err, ErrExpired) || !resumed {
			t.Fatalf("expired: %v, resumed %v", err, resumed)
		}
		wrong := PinnedTLS(Fingerprint([]byte("x")), func() time.Time { return testNow })
		if _, err := tls.Dial("tcp", server.Addr().String(), wrong); !errors.Is(err, ErrPinMismatch) {
			t.Fatalf("wrong pin: %v", err)
		}
	}
}

func serveByte(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			conn.Write([]byte{1})
		}()
	}
}
