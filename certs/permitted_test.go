package certs

import (
	"crypto/rand"
	"crypto/x509"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestPermittedByOpenSSL: what an intermediate signs passes in OpenSSL, as in Go, for what is permitted and nothing
// else; wildcards do not get past a name that is excluded.
func TestPermittedByOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Fatal("there is no openssl: run scripts/setup.sh test first")
	}
	now := time.Now()
	root, err := NewCA(HTTP, testCluster, now)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, EncodeCert(der), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ca := write("ca", root.Cert.Raw)
	caller := Permitted{Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.9/32")}}
	set := Permitted{Names: []string{"victim.example.org"}, Below: []string{"apps.example.org", "nodes.example.org"},
		Networks: caller.Networks}
	members := []string{"m1.nodes.example.org", "10.0.0.1"}
	for _, x := range []struct {
		what      string
		permitted Permitted
		san       string // in the leaf
		asked     string // by the client
		passes    bool
	}{
		{"nothing is permitted", caller, "victim.example.org", "victim.example.org", false},
		{"nothing is permitted", caller, "*.example.org", "victim.example.org", false},
		{"nothing is permitted", caller, "*.org", "example.org", false},
		{"nothing is permitted", caller, "db1", "db1", false},
		{"nothing is permitted", caller, "10.0.0.7", "10.0.0.7", false},
		{"nothing is permitted", caller, "2001:db8::7", "2001:db8::7", false},
		{"nothing is permitted", Permitted{}, "192.0.2.9", "192.0.2.9", false},
		{"the caller's address", caller, "192.0.2.9", "192.0.2.9", true},
		{"loopback", Permitted{}, "localhost", "localhost", true},
		{"loopback", Permitted{}, "127.0.0.1", "127.0.0.1", true},
		{"loopback", Permitted{}, "::1", "::1", true},
		{"the setting", set, "victim.example.org", "victim.example.org", true},
		{"the setting", set, "*.example.org", "victim.example.org", false},
		{"the setting", set, "other.example.org", "other.example.org", false},
		{"the setting", set, "a.apps.example.org", "a.apps.example.org", true},
		{"the setting", set, "*.apps.example.org", "a.apps.example.org", true},
		{"the setting over a member", set, "m1.nodes.example.org", "m1.nodes.example.org", false},
		{"the setting over a member", set, "*.nodes.example.org", "m1.nodes.example.org", false},
		{"a member's address", Permitted{Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, "10.0.0.1",
			"10.0.0.1", false},
	} {
		key := mustKey(t, "ecdsa")
		der, err := root.SignIntermediate(key.Public(), enrolledFor(now), x.permitted, members)
		if err != nil {
			t.Fatal(err)
		}
		middle, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		leaf := &x509.Certificate{SerialNumber: NewSerial(), NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour),
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
		flag := "-verify_hostname"
		if ip := net.ParseIP(x.san); ip != nil {
			leaf.IPAddresses, flag = []net.IP{ip}, "-verify_ip"
		} else {
			leaf.DNSNames = []string{x.san}
		}
		signed, err := x509.CreateCertificate(rand.Reader, leaf, middle, mustKey(t, "ecdsa").Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("openssl", "verify", "-CAfile", ca, "-untrusted", write("chain", der), flag, x.asked,
			write("leaf", signed)).CombinedOutput()
		if (err == nil) != x.passes {
			t.Errorf("%s: a leaf for %s, asked for %s, in OpenSSL: %v %s", x.what, x.san, x.asked, err, out)
		}
		roots, chain := x509.NewCertPool(), x509.NewCertPool()
		roots.AddCert(root.Cert)
		chain.AddCert(middle)
		parsed, err := x509.ParseCertificate(signed)
		if err != nil {
			t.Fatal(err)
		}
		_, err = parsed.Verify(x509.VerifyOptions{Roots: roots, Intermediates: chain, DNSName: x.asked})
		if (err == nil) != x.passes {
			t.Errorf("%s: a leaf for %s, asked for %s, in Go: %v", x.what, x.san, x.asked, err)
		}
	}
}
