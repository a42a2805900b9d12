package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const testCluster = "0f5b8c1e-7a2d-4e6f-9b3c-5d8e1f2a3b4c"

var testNow = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func testLeaf(kind Kind, hosts ...string) Leaf {
	return Leaf{
		Kind:      kind,
		ClusterID: testCluster,
		NodeID:    7,
		Name:      "seven",
		Hosts:     hosts,
		NotBefore: testNow.Add(-time.Minute),
		NotAfter:  testNow.Add(24 * time.Hour),
	}
}

func TestNewCA(t *testing.T) {
	ca := must(NewCA(Transport, testCluster, testNow))
	c := ca.Cert
	if got, want := c.Subject.CommonName, "muster transport CA 0f5b8c1e"; got != want {
		t.Errorf("common name %q, want %q", got, want)
	}
	if !c.NotBefore.Equal(testNow.Add(-time.Hour)) || !c.NotAfter.Equal(testNow.AddDate(10, 0, 0)) {
		t.Errorf("valid %s to %s", c.NotBefore, c.NotAfter)
	}
	if !c.IsCA || c.MaxPathLen < 1 || c.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign ||
		len(c.SubjectKeyId) != 20 {
		t.Errorf("CA %v, path length %d, usage %b, key id %x", c.IsCA, c.MaxPathLen, c.KeyUsage, c.SubjectKeyId)
	}
	if c.SerialNumber.BitLen() > 128 || c.SerialNumber.BitLen() < 64 {
		t.Errorf("serial of %d bits", c.SerialNumber.BitLen())
	}
	raw, err := ca.Key.(*ecdsa.PrivateKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	d := new(big.Int).SetBytes(raw)
	for _, verb := range []string{"%v", "%+v", "%#v", "%d", "%x", "%s"} {
		if s := fmt.Sprintf(verb, ca); strings.Contains(s, d.String()) || strings.Contains(s, d.Text(16)) {
			t.Errorf("%s prints the private key", verb)
		}
	}
	if got := fmt.Sprint(CA{}); got != "CA(none)" {
		t.Error(got)
	}
	for _, bad := range []string{"", "x", strings.ToUpper(testCluster), "{" + testCluster + "}"} {
		if _, err := NewCA(HTTP, bad, testNow); err == nil {
			t.Errorf("cluster id %q accepted", bad)
		}
	}
	if _, err := NewCA("other", testCluster, testNow); err == nil {
		t.Error("unknown kind accepted")
	}
}

func TestSign(t *testing.T) {
	for _, kind := range []Kind{HTTP, Transport} {
		ca := must(NewCA(kind, testCluster, testNow))
		key := must(NewKey())
		csr := must(ParseCSR(must(NewCSR(key, "evil"))))
		der := must(ca.Sign(csr.PublicKey,
			testLeaf(kind, "10.0.0.7", "::ffff:10.0.0.7", "Seven.Example", "seven.example", "fd00::7")))
		c := must(x509.ParseCertificate(der))
		roots := x509.NewCertPool()
		roots.AddCert(ca.Cert)
		for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
			if _, err := c.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: testNow,
				KeyUsages: []x509.ExtKeyUsage{use}}); err != nil {
				t.Errorf("%s: %v", kind, err)
			}
		}
		names, ips := []string{"seven.example"}, []string{"10.0.0.7", "fd00::7"}
		if kind == HTTP {
			names, ips = append(names, "localhost"), append(ips, "127.0.0.1", "::1")
		}
		var got []string
		for _, ip := range c.IPAddresses {
			got = append(got, ip.String())
		}
		if !slices.Equal(c.DNSNames, names) || !slices.Equal(got, ips) {
			t.Errorf("%s: names %v, addresses %v", kind, c.DNSNames, got)
		}
		if c.Subject.CommonName != "seven" || c.IsCA || !bytes.Equal(c.AuthorityKeyId, ca.Cert.SubjectKeyId) {
			t.Errorf("%s: CN %q, CA %v", kind, c.Subject.CommonName, c.IsCA)
		}
		if id, err := NodeID(c, testCluster); id != 7 || err != nil {
			t.Errorf("node id %d, %v", id, err)
		}
		if _, err := NodeID(c, "11111111-1111-4111-8111-111111111111"); err == nil {
			t.Error("node id of another cluster accepted")
		}
	}
}

func TestSignRefuses(t *testing.T) {
	ca := must(NewCA(HTTP, testCluster, testNow))
	good := must(NewKey()).Public()
	for name, change := range map[string]func(*Leaf){
		"kind":          func(l *Leaf) { l.Kind = "x" },
		"cluster":       func(l *Leaf) { l.ClusterID = "x" },
		"node 0":        func(l *Leaf) { l.NodeID = 0 },
		"node too big":  func(l *Leaf) { l.NodeID = MaxNodeID + 1 },
		"no name":       func(l *Leaf) { l.Name = "" },
		"long name":     func(l *Leaf) { l.Name = strings.Repeat("x", 65) },
		"control":       func(l *Leaf) { l.Name = "a\nb" },
		"not utf-8":     func(l *Leaf) { l.Name = "a\xff" },
		"empty window":  func(l *Leaf) { l.NotAfter = l.NotBefore },
		"beyond the CA": func(l *Leaf) { l.NotBefore, l.NotAfter = testNow.AddDate(11, 0, 0), testNow.AddDate(12, 0, 0) },
	} {
		l := testLeaf(HTTP)
		change(&l)
		if _, err := ca.Sign(good, l); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for _, h := range []string{"", "a:80", "10.0.0.1:80", "[::1]:80", "[::1]", "fe80::1%eth0", "*.example", "a..b", "a.",
		"-a", "a-",
		"a b", "10.0.0.256", "10.1", "ü.example", strings.Repeat("a", 64), strings.Repeat("a.", 127) + "a"} {
		if _, err := ca.Sign(good, testLeaf(HTTP, h)); err == nil {
			t.Errorf("host %q accepted", h)
		}
	}
	if _, err := ca.Sign(must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader)).Public(), testLeaf(HTTP)); !errors.Is(err,
		ErrWeakKey) {
		t.Errorf("P-224: %v", err)
	}
	for _, bad := range []CA{{}, {Cert: ca.Cert},
		{Cert: must(x509.ParseCertificate(must(ca.Sign(good, testLeaf(HTTP))))), Key: ca.Key}} {
		if _, err := bad.Sign(good, testLeaf(HTTP)); err == nil {
			t.Error("signed by something that is not a CA")
		}
	}
}

func TestSignCutsToCA(t *testing.T) {
	ca := must(NewCA(HTTP, testCluster, testNow))
	l := testLeaf(HTTP)
	l.NotBefore, l.NotAfter = testNow.AddDate(-1, 0, 0), testNow.AddDate(20, 0, 0)
	c := must(x509.ParseCertificate(must(ca.Sign(must(NewKey()).Public(), l))))
	if !c.NotBefore.Equal(ca.Cert.NotBefore) || !c.NotAfter.Equal(ca.Cert.NotAfter) {
		t.Errorf("leaf %s to %s", c.NotBefore, c.NotAfter)
	}
}

func TestParseCSR(t *testing.T) {
	_, ed := must2(ed25519.GenerateKey(rand.Reader))
	rsa1024 := weakRSA()
	p224 := must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))
	for _, tc := range []struct {
		name string
		key  crypto.Signer
		weak bool
	}{
		{"P-256", must(NewKey()), false},
		{"P-384", must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)), false},
		{"P-521", must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)), false},
		{"Ed25519", ed, false},
		{"RSA 2048", must(rsa.GenerateKey(rand.Reader, 2048)), false},
		{"P-224", p224, true},
	} {
		der := must(NewCSR(tc.key, "n"))
		asPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
		for _, in := range [][]byte{der, asPEM} {
			_, err := ParseCSR(in)
			if tc.weak && !errors.Is(err, ErrWeakKey) || !tc.weak && err != nil {
				t.Errorf("%s: %v", tc.name, err)
			}
		}
		if tc.weak {
			continue
		}
		der[len(der)-1] ^= 1
		if _, err := ParseCSR(der); err == nil {
			t.Errorf("%s: broken signature accepted", tc.name)
		}
	}
	if err := checkPublicKey(rsa1024); !errors.Is(err, ErrWeakKey) {
		t.Errorf("RSA 1024: %v", err)
	}
	if err := checkPublicKey("no key"); !errors.Is(err, ErrWeakKey) {
		t.Errorf("no key: %v", err)
	}
	der := must(NewCSR(must(NewKey()), "n"))
	asPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	for name, in := range map[string][]byte{
		"empty": nil, "text": []byte("hello"), "trailing": append(slices.Clone(der), 0),
		"two":         append(slices.Clone(asPEM), asPEM...),
		"certificate": EncodeCert(der), "huge": make([]byte, maxCSR+1), "cut": asPEM[:len(asPEM)-30],
	} {
		if _, err := ParseCSR(in); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := NewCSR(badSigner{}, "n"); err == nil {
		t.Error("CSR of a broken key")
	}
}

// weakRSA avoids generating a short key, which crypto/rsa refuses to do.
func weakRSA() *rsa.PublicKey {
	return &rsa.PublicKey{N: new(big.Int).SetBit(new(big.Int), 1023, 1), E: 65537}
}

type badSigner struct{ crypto.Signer }

func (badSigner) Public() crypto.PublicKey { return "nothing" }

func must2[A, B any](a A, b B, err error) (A, B) {
	if err != nil {
		panic(err)
	}
	return a, b
}

func TestNodeIDProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.Uint64Range(1, MaxNodeID).Draw(t, "id")
		u := must(url.Parse(NodeURI(testCluster, id).String()))
		got, err := NodeID(&x509.Certificate{URIs: []*url.URL{u}}, testCluster)
		if got != id || err != nil {
			t.Fatalf("%d, %v", got, err)
		}
	})
	base := "spiffe://" + testCluster + "/node/"
	for _, bad := range []string{base, base + "0", base + "01", base + "+1", base + "-1", base + "1/", base + "1?a", base +
		"1#a",
		base + "9007199254740992", base + "18446744073709551616", "https://" + testCluster + "/node/1", "spiffe://u@" +
			testCluster + "/node/1",
		"spiffe://" + testCluster + ":1/node/1", "spiffe://" + strings.ToUpper(testCluster) + "/node/1", "spiffe:///node/1",
		base + "%31"} {
		u := must(url.Parse(bad))
		if id, err := NodeID(&x509.Certificate{URIs: []*url.URL{u}}, testCluster); err == nil {
			t.Errorf("%s: accepted as %d", bad, id)
		}
	}
	one := NodeURI(testCluster, 1)
	for _, uris := range [][]*url.URL{nil, {one, one}} {
		if _, err := NodeID(&x509.Certificate{URIs: uris}, testCluster); err == nil {
			t.Errorf("%d URIs accepted", len(uris))
		}
	}
}
