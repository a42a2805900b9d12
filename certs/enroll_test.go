package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
)

func enrolledFor(now time.Time) Enrolled {
	return Enrolled{
		ClusterID:    testCluster,
		EnrollmentID: "01a1fc4fbc7c77c6ba891532f4b2b2de",
		Serial:       NewSerial(),
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(24 * time.Hour),
	}
}

// Software that has enrolled can do TLS in both directions under the transport CA, and is never taken for a member.
func TestSignEnrolled(t *testing.T) {
	now := time.Now()
	ca, err := NewCA(Transport, testCluster, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"ecdsa", "rsa"} {
		key := mustKey(t, kind)
		in := enrolledFor(now)
		der, err := ca.SignEnrolled(key.Public(), in)
		if err != nil {
			t.Fatal(kind, err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AddCert(ca.Cert)
		for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
			if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
				t.Errorf("%s: usage %d: %v", kind, usage, err)
			}
		}
		if cert.IsCA || cert.SerialNumber.Cmp(in.Serial) != 0 || len(cert.URIs) != 1 ||
			cert.URIs[0].String() != "spiffe://"+testCluster+"/enrolled/"+in.EnrollmentID {
			t.Errorf("%s: CA %v, serial %x, URIs %v", kind, cert.IsCA, cert.SerialNumber, cert.URIs)
		}
		if id, err := NodeID(cert, testCluster); err == nil {
			t.Errorf("%s: taken for node %d", kind, id)
		}
		plain, err := MarshalKey(key)
		if err != nil {
			t.Fatal(err)
		}
		again, err := x509.ParsePKCS8PrivateKey(plain)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := (tls.X509KeyPair([]byte(EncodeCert(der)), mustPEM(t, key))); err != nil {
			t.Errorf("%s: key and certificate: %v", kind, err)
		}
		if k, ok := again.(*ecdsa.PrivateKey); ok && !k.PublicKey.Equal(key.Public()) {
			t.Error("the key is another one after PKCS#8")
		}
	}
	bad := enrolledFor(now)
	bad.EnrollmentID = ""
	if _, err := ca.SignEnrolled(mustKey(t, "ecdsa").Public(), bad); err == nil {
		t.Error("no enrollment id is needed")
	}
}

// An intermediate authority signs for whatever runs on the machine that enrolled, not for the members.
func TestSignIntermediate(t *testing.T) {
	now := time.Now()
	root, err := NewCA(HTTP, testCluster, now)
	if err != nil {
		t.Fatal(err)
	}
	key := mustKey(t, "ecdsa")
	der, err := root.SignIntermediate(key.Public(), enrolledFor(now),
		Permitted{Names: []string{"es-1.example", "node-1.example"},
			Below:    []string{"apps.example", "example"},
			Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("2001:db8::/64")}},
		[]string{"10.0.0.7", "2001:db8::7", "node-1.example", "127.0.0.1", "localhost", "::1"})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if !cert.IsCA || cert.MaxPathLen != 0 || !cert.MaxPathLenZero {
		t.Errorf("CA %v, path length %d", cert.IsCA, cert.MaxPathLen)
	}
	roots, chain := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root.Cert)
	chain.AddCert(cert)
	member := NodeURI(testCluster, 1)
	for _, x := range []struct {
		name  string
		ip    string
		dns   string
		uri   *url.URL
		valid bool
	}{
		{"another machine", "10.0.0.8", "es-1.example", nil, true},
		{"an address that is not permitted", "10.0.1.8", "es-1.example", nil, false},
		{"an IPv6 address that is not permitted", "2001:db9::8", "es-1.example", nil, false},
		{"a name that is not permitted", "10.0.0.8", "es-2.example", nil, false},
		{"a wildcard over a name that is permitted", "10.0.0.8", "*.example", nil, false},
		{"a name below a permitted one", "10.0.0.8", "a.apps.example", nil, true},
		{"that permitted one", "10.0.0.8", "apps.example", nil, false},
		{"itself", "127.0.0.1", "localhost", nil, true},
		{"an IPv6 address of its own", "2001:db8::8", "es-1.example", nil, true},
		{"the address of a member", "10.0.0.7", "es-1.example", nil, false},
		{"the IPv6 address of a member", "2001:db8::7", "es-1.example", nil, false},
		{"the name of a member", "10.0.0.8", "node-1.example", nil, false},
		{"a name below that of a member", "10.0.0.8", "x.node-1.example", nil, false},
		{"the identity of a member", "10.0.0.8", "es-1.example", member, false},
	} {
		leafKey := mustKey(t, "ecdsa")
		tmpl := &x509.Certificate{
			SerialNumber: NewSerial(),
			NotBefore:    now.Add(-time.Minute),
			NotAfter:     now.Add(time.Hour),
			ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
			DNSNames:     []string{x.dns},
			IPAddresses:  []net.IP{net.ParseIP(x.ip)},
		}
		if x.uri != nil {
			tmpl.URIs = []*url.URL{x.uri}
		}
		leafDER, err := x509.CreateCertificate(rand.Reader, tmpl, cert, leafKey.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(leafDER)
		if err != nil {
			t.Fatal(err)
		}
		_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: chain})
		if (err == nil) != x.valid {
			t.Errorf("%s: %v", x.name, err)
		}
	}
	if text := cert.Subject.CommonName; !strings.HasPrefix(text, "muster enrolled HTTP CA ") || len(text) > maxName {
		t.Errorf("its name is %q", text)
	}
}

func mustKey(t *testing.T, kind string) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	if kind == "rsa" {
		key, err = NewRSAKey()
	} else {
		key, err = NewKey()
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func mustPEM(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	pem, err := EncodeKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem
}
