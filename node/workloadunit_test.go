package node_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"muster/client"
)

// unit makes a cgroup as systemd makes one for a service, and returns the file that takes processes into it. There is
// no systemd: the kernel's part is real, the name is chosen here.
func unit(t *testing.T, name string) (procs string) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		t.Fatal(err)
	}
	root := ""
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			root = f[1]
		}
	}
	slice := filepath.Join(root, "system.slice")
	_, missing := os.Stat(slice)
	dir := filepath.Join(slice, name)
	if root == "" || os.MkdirAll(dir, 0o755) != nil {
		t.Skip("there are no control groups that the test may make one in")
	}
	t.Cleanup(func() {
		_ = os.Remove(dir)
		if missing != nil {
			_ = os.Remove(slice)
		}
	})
	return filepath.Join(dir, "cgroup.procs")
}

// TestWorkloadByUnit: a process in a service's control group is that service, another one of the same user is not.
func TestWorkloadByUnit(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it makes a control group, which takes root")
	}
	service := fmt.Sprintf("muster-test-%d.service", os.Getpid())
	procs := unit(t, service)
	dir := openDir(t)
	binary := filepath.Join(dir, "helper")
	copyFile(t, os.Args[0], binary)
	cfg := config(filepath.Join(dir, "1"))
	cfg.SpiffeSocket = filepath.Join(dir, "spiffe.sock")
	start(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), whole)
	defer cancel()
	if _, err := dial(t, cfg.Data).CreateWorkload(ctx, client.WorkloadRequest{Path: "/unit", Unit: service}); err != nil {
		t.Fatal(err)
	}
	fetch := func(inside bool) string {
		h := startHelper(t, binary, serverUser, "fetch-when-told", cfg.SpiffeSocket)
		if inside {
			if err := os.WriteFile(procs, fmt.Append(nil, h.cmd.Process.Pid), 0o644); err != nil {
				t.Skip("the control group takes no process:", err)
			}
		}
		fmt.Fprintln(h.stdin, "now")
		got := h.line("x509")
		h.stdin.Close()
		_ = h.cmd.Wait()
		return got
	}
	await(t, "the service has its identity", func(context.Context) bool { return strings.HasSuffix(fetch(true), "/unit") })
	if got := fetch(false); got != "PermissionDenied no identity issued" {
		t.Errorf("outside of the service: %s", got)
	}
}

// TestWorkloadAuthorityOfOperator: an operator's own intermediate issues identities, and is what is trusted: the root
// above it may certify others. Who knows the root alone verifies them with what is presented.
func TestWorkloadAuthorityOfOperator(t *testing.T) {
	dir := openDir(t)
	cfg := config(filepath.Join(dir, "1"))
	cfg.SpiffeSocket = filepath.Join(dir, "spiffe.sock")
	start(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), whole)
	defer cancel()
	c := dial(t, cfg.Data)
	domain := spiffeid.RequireTrustDomainFromString(clusterOf(t, ctx, c))
	await(t, "the member has an identity", func(ctx context.Context) bool {
		s, err := workloadapi.FetchX509SVID(ctx, workloadapi.WithAddr("unix://"+cfg.SpiffeSocket))
		return err == nil && s != nil
	})
	certPEM, keyPEM, middle, root := operatorsCA(t)
	last := ""
	defer func() { t.Log(last) }()
	if _, err := c.RotateCA(ctx,
		client.CARequest{Kind: "workload", Overlap: "1s", CertPEM: certPEM, KeyPEM: keyPEM}); err != nil {
		t.Fatal(err)
	}
	await(t, "the operator's authority issues and alone is trusted", func(ctx context.Context) bool {
		s, err := workloadapi.FetchX509SVID(ctx, workloadapi.WithAddr("unix://"+cfg.SpiffeSocket))
		if err != nil {
			return false
		}
		b := publishedBundle(t, ctx, cfg, domain)
		last = fmt.Sprintf("issued by %s, below %d others; trusted are", s.Certificates[0].Issuer.CommonName,
			len(s.Certificates)-1)
		for _, a := range b.X509Authorities() {
			last += " " + a.Subject.CommonName
		}
		if s.Certificates[0].Issuer.CommonName != middle.Subject.CommonName || len(b.X509Authorities()) != 1 ||
			!b.X509Authorities()[0].Equal(middle) {
			return false
		}
		above := x509bundle.FromX509Authorities(domain, []*x509.Certificate{root})
		for what, trusted := range map[string]x509bundle.Source{"the published bundle": b, "the root": above} {
			if id, _, err := x509svid.Verify(s.Certificates, trusted); err != nil || id != s.ID {
				t.Errorf("with %s: %d certificates are presented: %v", what, len(s.Certificates), err)
			}
		}
		return true
	})
}

// operatorsCA makes an intermediate with its chain and key, in PEM, below a root.
func operatorsCA(t *testing.T) (certPEM, keyPEM string, middle, root *x509.Certificate) {
	t.Helper()
	make := func(name string, serial int64, parent *x509.Certificate, by *ecdsa.PrivateKey) (*x509.Certificate,
		*ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		tmpl := &x509.Certificate{
			SerialNumber:          big.NewInt(serial),
			Subject:               pkix.Name{CommonName: name},
			IsCA:                  true,
			BasicConstraintsValid: true,
			KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
			NotBefore:             time.Now().Add(-time.Hour),
			NotAfter:              time.Now().AddDate(5, 0, 0),
		}
		if parent == nil {
			parent, by = tmpl, key
		}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), by)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert, key
	}
	root, rootKey := make("operator's root", 1, nil, nil)
	middle, key := make("operator's intermediate", 2, root, rootKey)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*x509.Certificate{middle, root} {
		certPEM += string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return certPEM, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), middle, root
}
