package e2e

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"muster/certs"
	"muster/client"
)

// trusting calls with the administrator's token and trusts these CAs and nothing else; each call is a new connection.
func (c *cluster) trusting(t *testing.T, pem string) *user {
	t.Helper()
	u := &user{cluster: c, token: c.token, from: source()}
	u.http = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{RootCAs: pool(t, []byte(pem))},
		DialContext:     (&net.Dialer{Timeout: 3 * time.Second, LocalAddr: &net.TCPAddr{IP: u.from}}).DialContext}}
	return u
}

// fresh is the administrator with the CAs that the first member trusts now.
func (c *cluster) fresh(t *testing.T) *user {
	t.Helper()
	return c.trusting(t, string(c.members[0].read(t, "ca.crt")))
}

func (u *user) tryCA(m *member, kind string) (client.CAKind, error) {
	list, err := try[[]client.CAKind](u, m, "GET", "/api/v1/cluster/ca", "")
	for _, k := range list {
		if k.Kind == kind {
			return k, nil
		}
	}
	if err == nil {
		err = fmt.Errorf("no %s CA in %+v", kind, list)
	}
	return client.CAKind{}, err
}

func (u *user) ca(t *testing.T, m *member, kind string) client.CAKind {
	t.Helper()
	k, err := u.tryCA(m, kind)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// inState finds the generation with a state.
func inState(t *testing.T, k client.CAKind, state string) client.CAGeneration {
	t.Helper()
	for _, g := range k.Generations {
		if g.State == state {
			return g
		}
	}
	t.Fatalf("no generation is %s in %+v", state, k.Generations)
	return client.CAGeneration{}
}

// phase is where the rotation of a kind is, "none" when none is under way.
func phase(k client.CAKind) string {
	if k.Rotation == nil {
		return "none"
	}
	return k.Rotation.Phase
}

// awaitPhase waits until the rotation of each kind is in a phase.
func (u *user) awaitPhase(t *testing.T, m *member, want string, kinds ...string) {
	t.Helper()
	for _, kind := range kinds {
		eventually(t, formed, fmt.Sprintf("the rotation of the %s CA is in the phase %s", kind, want), func() error {
			k, err := u.tryCA(m, kind)
			if err == nil && phase(k) != want {
				err = fmt.Errorf("it is in the phase %s: %+v", phase(k), k.Rotation)
			}
			return err
		})
	}
}

func (u *user) rotateCA(t *testing.T, m *member, body string) client.CAChange {
	t.Helper()
	return get[client.CAChange](t, u, m, "POST", "/api/v1/cluster/ca/rotate", body)
}

// load is requests of one sort that must all succeed.
type load struct {
	what  string
	done  atomic.Int64
	fault sync.Map
	stop  func()
}

// during repeats calls in the background; each must succeed.
func during(what string, call func() error) *load {
	l := &load{what: what}
	l.stop = run(1, func() {
		if err := call(); err != nil {
			l.fault.Store(err.Error(), true)
		}
		l.done.Add(1)
		time.Sleep(10 * time.Millisecond)
	})
	return l
}

// end stops the load and fails the test for every call that did not succeed.
func (l *load) end(t *testing.T) {
	t.Helper()
	l.stop()
	l.fault.Range(func(err, _ any) bool {
		t.Errorf("%s: %v", l.what, err)
		return true
	})
	if n := l.done.Load(); n < 5 {
		t.Errorf("%s: only %d calls", l.what, n)
	} else {
		t.Logf("%s: %d calls", l.what, n)
	}
}

// reads, writes and enrollments are what a client does that trusts these CAs, on every member in turn.
func (c *cluster) reads(t *testing.T, what, pem string) *load {
	u := c.trusting(t, pem)
	members := c.members[:3:3]
	n := 0
	return during(what+" reads, writes and enrolls", func() error {
		n++
		m := members[n%3]
		if n%4 == 0 {
			return u.tryEnroll(m)
		}
		a := u.do(m, "GET", "/api/v1/cluster/members", "")
		if n%3 == 0 {
			a = u.do(m, "POST", "/api/v1/cluster/join-tokens", `{"ttlSeconds":60}`)
		}
		if a.err != nil || a.status > 201 {
			return fmt.Errorf("node %d: %v", m.n, a)
		}
		return nil
	})
}

// tryEnroll enrolls a node of other software and looks whether what it gets belongs together.
func (u *user) tryEnroll(m *member) error {
	a := u.do(m, "GET", "/_security/enroll/node", "")
	var got struct {
		CA   []byte `json:"transport_ca_cert"`
		Cert []byte `json:"transport_cert"`
	}
	if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.status != 200 {
		return fmt.Errorf("node %d: enroll: %v", m.n, a)
	}
	ca, err := x509.ParseCertificate(got.CA)
	if err != nil {
		return err
	}
	cert, err := x509.ParseCertificate(got.Cert)
	if err != nil {
		return err
	}
	return cert.CheckSignatureFrom(ca)
}

// joins are machines that join with tokens which token makes; each checks that the certificate that it gets verifies.
func (c *cluster) joins(t *testing.T, what string, token func() (string, error)) *load {
	return during(what, func() error {
		text, err := token()
		if err != nil {
			return err
		}
		parsed, err := certs.ParseJoinToken(text)
		if err != nil {
			return err
		}
		claims := parsed.Claims()
		key, err := certs.NewKey()
		if err != nil {
			return err
		}
		csr, err := certs.NewCSR(key, "x")
		if err != nil {
			return err
		}
		identity, err := certs.NewIdentity()
		if err != nil {
			return err
		}
		pub, err := certs.PublicKey(identity.Recipient().String())
		if err != nil {
			return err
		}
		var public []int
		for _, b := range pub {
			public = append(public, int(b))
		}
		r, err := client.Join(t.Context(), claims.Addresses, certs.PinnedTLS(claims.CAFingerprint, time.Now),
			client.JoinRequest{
				Token:         text,
				AdvertiseAddr: "127.0.0.1",
				RaftPort:      1,
				Mode:          "replicate",
				HTTPCSR:       csr,
				SecretsPubkey: public,
			})
		if err != nil {
			return err
		}
		chain, err := certs.ParseCerts([]byte(r.HTTPCert))
		if err != nil {
			return err
		}
		roots, between := x509.NewCertPool(), x509.NewCertPool()
		roots.AppendCertsFromPEM([]byte(r.HTTPCA))
		for _, cert := range chain[1:] {
			between.AddCert(cert)
		}
		_, err = chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: "localhost"})
		return err
	})
}

// file writes a text into a file of its own.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// openssl runs the real program.
func openssl(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Stdin = strings.NewReader("Q\n")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// opensslTrusts tells what openssl and curl say to a member's certificate when a CA is all that they trust.
func opensslTrusts(t *testing.T, m *member, ca string) error {
	t.Helper()
	if out, err := openssl(t, "s_client", "-connect", m.api, "-CAfile", ca, "-verify_return_error", "-verify_ip",
		"127.0.0.1"); err != nil || !strings.Contains(out, "Verify return code: 0 (ok)") {
		return fmt.Errorf("openssl s_client: %v: %.300s", err, out)
	}
	if out, err := openssl(t, "verify", "-CAfile", ca, "-untrusted", m.file("tls/http.crt"),
		m.file("tls/http.crt")); err != nil {
		return fmt.Errorf("openssl verify: %v: %.300s", err, out)
	}
	if out, err := exec.Command("curl", "-sS", "--cacert", ca, "https://"+m.api+
		"/api/v1/status").CombinedOutput(); err != nil {
		return fmt.Errorf("curl: %v: %.300s", err, out)
	}
	return nil
}

// operatorCA is made by openssl, as an operator would.
func operatorCA(t *testing.T, days int, name string) (cert, key string) {
	t.Helper()
	dir := t.TempDir()
	out, err := openssl(t, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
		fmt.Sprint(days),
		"-subj", "/O=Example/CN="+name, "-keyout", filepath.Join(dir, "key"), "-out", filepath.Join(dir, "cert"),
		"-addext", "keyUsage=critical,keyCertSign,cRLSign")
	if err != nil {
		t.Fatalf("openssl req: %v: %s", err, out)
	}
	return filepath.Join(dir, "cert"), filepath.Join(dir, "key")
}

// bodyOf is a request as JSON.
func bodyOf(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// issuedBy reports whether the member presents a leaf of the CA with this fingerprint on both of its listeners' files.
func issuedBy(m *member, cert string, pem string) error {
	data, err := os.ReadFile(m.file(cert))
	if err != nil {
		return err
	}
	chain, err := certs.ParseCerts(data)
	if err != nil {
		return err
	}
	ca, err := certs.ParseCerts([]byte(pem))
	if err != nil {
		return err
	}
	if !(certs.CA{Cert: ca[0]}).Issued(chain[0]) {
		return fmt.Errorf("%s of node %d was issued by %s", cert, m.n, chain[0].Issuer)
	}
	return nil
}

// hold opens a connection and returns what uses it again.
func (m *member) hold(t *testing.T, pem string) (use func(when string)) {
	t.Helper()
	conn, err := tls.Dial("tcp", m.api, &tls.Config{RootCAs: pool(t, []byte(pem)), NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	answers := bufio.NewReader(conn)
	use = func(when string) {
		t.Helper()
		fmt.Fprintf(conn, "GET /api/v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Errorf("a connection that was open before the rotation, %s: %v", when, err)
			return
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 {
			t.Errorf("a connection that was open before the rotation, %s: %d %v", when, resp.StatusCode, err)
		}
	}
	use("at first")
	return use
}
