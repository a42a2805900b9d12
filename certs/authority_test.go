package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var authorityNow = time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)

// brought is an operator's CA; change makes it a special one.
func brought(t *testing.T, key crypto.Signer, parent *CA, change func(*x509.Certificate)) CA {
	t.Helper()
	c := &x509.Certificate{
		SerialNumber:          big.NewInt(7),
		Subject:               pkix.Name{CommonName: "Brought"},
		NotBefore:             authorityNow.Add(-time.Hour),
		NotAfter:              authorityNow.AddDate(1, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	if change != nil {
		change(c)
	}
	by, signer := c, key
	if parent != nil {
		by, signer = parent.Cert, parent.Key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return CA{cert, key}
}

func keyPEM(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	text, err := EncodeKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// An operator's CA is taken when it can issue what the cluster needs, and refused with the rule that it breaks.
func TestParseAuthority(t *testing.T) {
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	root := brought(t, ed, nil, func(c *x509.Certificate) { c.Subject.CommonName = "Root" })
	below := brought(t, key, &root, nil)
	good := brought(t, key, nil, nil)
	old, _ := NewKey()
	one := func(ca CA) []byte { return EncodeCert(ca.Cert.Raw) }
	with := func(change func(*x509.Certificate)) []byte { return one(brought(t, key, nil, change)) }
	for _, x := range []struct {
		what      string
		cert, key []byte
		want      string // part of the sentence; "" is accepted
	}{
		{"a plain one", one(good), keyPEM(t, key), ""},
		{"a SEC 1 key behind its parameters", one(good),
			append(pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6, 0}}),
				pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1})...), ""},
		{"a PKCS#1 key", one(brought(t, weak, nil, nil)),
			pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(weak)}), ""},
		{"Ed25519", one(root), keyPEM(t, ed), ""},
		{"one that another certifies", append(one(below), one(root)...), keyPEM(t, key), ""},
		{"path length 0", with(func(c *x509.Certificate) { c.MaxPathLenZero = true }), keyPEM(t, key), ""},
		{"both extended usages", with(func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		}), keyPEM(t, key), ""},
		{"a constraint that permits us", with(func(c *x509.Certificate) {
			c.PermittedIPRanges = []*net.IPNet{{IP: net.IP{10, 0, 0, 0}, Mask: net.CIDRMask(8, 32)},
				{IP: net.IP{127, 0, 0, 0}, Mask: net.CIDRMask(8, 32)},
				{IP: net.IPv6loopback, Mask: net.CIDRMask(128, 128)}}
		}), keyPEM(t, key), ""},

		{"no PEM", []byte("x"), keyPEM(t, key), "must be PEM text"},
		{"a cut chain", one(below)[:400], keyPEM(t, key), "must be PEM text"},
		{"no key", one(good), nil, "must be one private key"},
		{"an encrypted key", one(good),
			[]byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"),
			"must be one private key"},
		{"two keys", one(good), append(keyPEM(t, key), keyPEM(t, key)...), "must be one private key"},
		{"another key", one(good), keyPEM(t, old), "does not belong to"},
		{"a chain in the wrong order", append(one(below), one(good)...), keyPEM(t, key),
			"certificate 1 of the CA certificate was not issued by certificate 2"},
		{"no CA", with(func(c *x509.Certificate) { c.IsCA = false }), keyPEM(t, key), "CA:TRUE"},
		{"no usage for signing", with(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }), keyPEM(t, key),
			"key usage"},
		{"P-224", one(brought(t, p224, nil, nil)), keyPEM(t, p224), "must be ECDSA on P-256"},
		{"not valid yet", with(func(c *x509.Certificate) { c.NotBefore = authorityNow.Add(time.Minute) }), keyPEM(t, key),
			"is not valid before 2031-05-06T07:09:09Z"},
		{"expired", with(func(c *x509.Certificate) { c.NotAfter = authorityNow.Add(-time.Minute) }), keyPEM(t, key),
			"has expired at 2031-05-06T07:07:09Z"},
		{"an hour left", with(func(c *x509.Certificate) { c.NotAfter = authorityNow.Add(time.Hour) }), keyPEM(t, key),
			"for another 24 hours"},
		{"servers only", with(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }),
			keyPEM(t, key), "both server and client authentication"},
		{"other names only", with(func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example.org"} }),
			keyPEM(t, key), `"localhost" is not permitted`},
		{"our network excluded", with(func(c *x509.Certificate) {
			c.ExcludedIPRanges = []*net.IPNet{{IP: net.IP{10, 0, 0, 0}, Mask: net.CIDRMask(8, 32)}}
		}), keyPEM(t, key), "10.1.2.3"},
		{"our URIs excluded", with(func(c *x509.Certificate) { c.PermittedURIDomains = []string{"example.org"} }),
			keyPEM(t, key), "is not permitted"},
	} {
		trial := Leaf{
			Kind:      HTTP,
			ClusterID: testCluster,
			NodeID:    1,
			Name:      "trial",
			Hosts:     []string{"10.1.2.3"},
		}
		ca, _, err := ParseAuthority(x.cert, x.key, trial, authorityNow)
		switch {
		case x.want == "" && err != nil:
			t.Errorf("%s: %v", x.what, err)
		case x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want)):
			t.Errorf("%s: %v, want …%s…", x.what, err, x.want)
		case err == nil && ca.Key == nil:
			t.Errorf("%s: no key", x.what)
		case err != nil && strings.Contains(err.Error(), "certs:"):
			t.Errorf("%s: %q is not for an operator", x.what, err)
		}
	}
}

// Of two CAs that certify each other, each alone verifies the leaves of both, for OpenSSL too.
func TestCrossSign(t *testing.T) {
	first, err := NewCA(HTTP, testCluster, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	second, err := NewSuccessor(HTTP, testCluster, 2, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if first.Cert.Subject.String() == second.Cert.Subject.String() {
		t.Error("two generations have one name")
	}
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, x := range []struct{ issuer, other CA }{{first, second}, {second, first}} {
		cross, err := x.other.CrossSign(x.issuer.Cert, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		key, _ := NewKey()
		leaf, err := x.issuer.Sign(key.Public(), Leaf{
			Kind:      HTTP,
			ClusterID: testCluster,
			NodeID:    1,
			Name:      "x",
			NotBefore: time.Now(),
			NotAfter:  time.Now().Add(time.Hour),
		})
		if err != nil {
			t.Fatal(err)
		}
		raw := [][]byte{leaf, cross, x.other.Cert.Raw, x.issuer.Cert.Raw}
		chain := write("chain", EncodeCert(raw...))
		for _, root := range []CA{x.issuer, x.other} {
			if err := VerifyPinned(raw, Fingerprint(root.Cert.Raw), time.Now()); err != nil {
				t.Errorf("issued by %s, pinned to %s: %v", x.issuer.Cert.Subject, root.Cert.Subject, err)
			}
			ca := write("ca", EncodeCert(root.Cert.Raw))
			if out, err := exec.Command("openssl", "verify", "-CAfile", ca, "-untrusted", chain,
				chain).CombinedOutput(); err != nil {
				t.Errorf("issued by %s, openssl trusts %s: %v: %s", x.issuer.Cert.Subject, root.Cert.Subject, err, out)
			}
		}
	}
	key, _ := NewKey()
	short := brought(t, key, nil, func(c *x509.Certificate) { c.MaxPathLenZero = true })
	if _, err := short.CrossSign(first.Cert, authorityNow); !errors.Is(err, ErrNoCrossSign) {
		t.Errorf("a CA with path length 0: %v", err)
	}
	ended := brought(t, key, nil, func(c *x509.Certificate) { c.NotAfter = authorityNow })
	if _, err := ended.CrossSign(first.Cert, authorityNow.Add(time.Minute)); !errors.Is(err, ErrNoCrossSign) {
		t.Errorf("a CA that has expired: %v", err)
	}
}
