package e2e

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/certs"
	"muster/client"
)

// Enrollment as other software sees it, on one cluster of three.
func TestEnroll(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	for _, x := range []struct {
		name string
		test func(*testing.T, *cluster)
	}{
		{"the answer", testEnrollAnswer},
		{"it can be used", testEnrollUse},
		{"an intermediate authority", testEnrollIntermediate},
		{"RSA", testEnrollRSA},
		{"errors", testEnrollErrors},
		{"settings", testEnrollSettings},
		{"tokens", testEnrollTokens},
		{"one token, many at once", testEnrollRace},
		{"API keys", testAPIKeys},
		{"privileges", testAPIKeyPrivileges},
		{"the official token tool", testEnrollTool},
		{"Kibana", testEnrollKibana},
		{"command line", testEnrollCLI},
		{"nothing leaks", func(t *testing.T, c *cluster) {
			awaitCopies(t, c, c.members...)
			needles := map[string]string{}
			for text, what := range c.secrets {
				if what != "the administrator's token" {
					needles[text] = what
				}
			}
			needles[c.token] = "the administrator's token" // in its own file; the search proves itself on it
			search(t, c, needles)
		}},
	} {
		t.Run(x.name, func(t *testing.T) { x.test(t, c) })
	}
}

// testEnrollAnswer: the documented answer, from every member, and what it says of itself.
func testEnrollAnswer(t *testing.T, c *cluster) {
	u := c.admin(t)
	var raft []string
	for _, m := range c.members {
		raft = append(raft, m.raft)
	}
	root, err := certs.ParseCerts(c.members[0].read(t, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, m := range c.members {
		a := u.do(m, "GET", enrollNode, "")
		e := parseEnrolled(t, c, a)
		if got := a.header; got.Get("X-Elastic-Product") != "Elasticsearch" || got.Get("Cache-Control") != "no-store" ||
			got.Get("Content-Type") != "application/json" {
			t.Errorf("node %d: the headers are %v", m.n, got)
		}
		slices.Sort(e.NodesAddresses)
		if want := slices.Sorted(slices.Values(raft)); !slices.Equal(e.NodesAddresses, want) {
			t.Errorf("node %d: nodes_addresses is %v, want %v", m.n, e.NodesAddresses, want)
		}
		if !bytes.Equal(e.HTTPCACert, root[0].Raw) || !e.httpCA.IsCA || !samePublic(e.httpKey, e.httpCA) {
			t.Errorf("node %d: the HTTP authority is not the cluster's, or the key not its key", m.n)
		}
		if !e.transportCA.IsCA || e.transport.IsCA || !samePublic(e.transportKey, e.transport) ||
			e.transport.CheckSignatureFrom(e.transportCA) != nil {
			t.Errorf("node %d: the transport certificate is not one that the transport authority has signed for the key", m.n)
		}
		serial := e.transport.SerialNumber.Text(16)
		if seen[serial] {
			t.Errorf("node %d: the transport certificate is not fresh", m.n)
		}
		seen[serial] = true
		i := slices.IndexFunc(u.enrollments(t, m), func(x client.Enrollment) bool { return x.TransportSerial == serial })
		if i < 0 {
			t.Errorf("node %d: the enrollment is not listed", m.n)
			continue
		}
		x := u.enrollments(t, m)[i]
		if x.Kind != "node" || x.State != "valid" || x.Remote != u.from.String() ||
			!strings.HasPrefix(x.EnrolledBy, "admin (") || !x.ExpiresAt.Equal(e.transport.NotAfter) {
			t.Errorf("node %d: %+v", m.n, x)
		}
		if want := fmt.Sprintf("spiffe://%s/enrolled/%s", c.id, x.ID); len(e.transport.URIs) != 1 ||
			e.transport.URIs[0].String() != want {
			t.Errorf("node %d: its identity is %v, want %s", m.n, e.transport.URIs, want)
		}
	}
	a := u.do(c.members[1], "GET", enrollNode+"?filter_path=nodes_addresses", "",
		"Accept: application/vnd.elasticsearch+json;compatible-with=8")
	if want := fmt.Sprintf(`{"nodes_addresses":["%s","%s","%s"]}`, raft[0], raft[1], raft[2]); a.status != 200 ||
		a.body != want {
		t.Errorf("filtered: %v, want %s", a, want)
	}
	if kind := a.header.Get("Content-Type"); kind != "application/vnd.elasticsearch+json;compatible-with=8" {
		t.Errorf("Content-Type is %s", kind)
	}
	a = u.do(c.members[2], "GET", enrollNode+"?pretty=true&human&error_trace=false&format=json&filter_path=nodes_*", "")
	if want := fmt.Sprintf("{\n  \"nodes_addresses\" : [\n    \"%s\",\n    \"%s\",\n    \"%s\"\n  ]\n}\n", raft[0],
		raft[1], raft[2]); a.status != 200 || a.body != want {
		t.Errorf("pretty: %v, want %s", a, want)
	}
	// The certificate is in the books, under the enrollment that made it, and revoking that revokes it.
	e := parseEnrolled(t, c, u.do(c.members[0], "GET", enrollNode, ""))
	serial := e.transport.SerialNumber.Text(16)
	all := u.enrollments(t, c.members[0])
	last := all[len(all)-1]
	for range 2 { // twice is no error
		u.do(c.members[1], "DELETE", "/api/v1/cluster/enrollments/"+last.ID, "").expect(t, "revoke an enrollment", 200,
			`{"result":{"message":"Enrollment revoked"}}`)
	}
	u.do(c.members[1], "DELETE", "/api/v1/cluster/enrollments/nothing", "").expect(t, "revoke an unknown enrollment", 404,
		`{"error":"enrollment not found"}`)
	c.members[2].awaitSQL(t,
		"SELECT c.kind || ' ' || (c.revoked_at IS NOT NULL) || ' ' || e.id FROM certificates c JOIN enrollments e ON "+
			"e.transport_serial = c.serial WHERE c.serial = '"+serial+"'",
		"enrolled 1 "+last.ID)
	c.members[1].awaitSQL(t, "SELECT group_concat(action || ' ' || detail, '; ') FROM audit WHERE object = 'enrollment/"+
		last.ID+"'",
		"enrollment.node certificate "+serial+", the key of the HTTP authority; enrollment.revoke certificate "+serial+
			", the key of the HTTP authority")
	// Whoever verifies certificates of enrollments finds it in the list of the transport authority, and only there.
	for path, signer := range map[string]*x509.Certificate{"/.well-known/transport.crl": e.transportCA,
		"/.well-known/http.crl": e.httpCA} {
		a := c.nobody(t).do(c.members[1], "GET", path, "")
		list, err := x509.ParseRevocationList([]byte(a.body))
		if err != nil || a.header.Get("Content-Type") != "application/pkix-crl" {
			t.Fatalf("%s: %v, %v", path, a, err)
		}
		if err := list.CheckSignatureFrom(signer); err != nil || time.Until(list.NextUpdate) < 23*time.Hour {
			t.Errorf("%s: %v, next update %v", path, err, list.NextUpdate)
		}
		found := slices.ContainsFunc(list.RevokedCertificateEntries, func(r x509.RevocationListEntry) bool {
			return r.SerialNumber.Cmp(e.transport.SerialNumber) == 0
		})
		if found != (signer == e.transportCA) {
			t.Errorf("%s has it: %v", path, found)
		}
	}
}

func samePublic(key any, cert *x509.Certificate) bool {
	signer, ok := key.(crypto.Signer)
	return ok && signer.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(cert.PublicKey)
}

// serveAs runs a TLS server with what a joining node makes of the answer, and returns its address.
func serveAs(t *testing.T, config *tls.Config) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ErrorLog: nil, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello from %d", len(r.TLS.PeerCertificates))
	})}
	srv.ErrorLog = discardLog()
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close() })
	return l.Addr().String()
}

// ask makes one request over TLS.
func ask(config *tls.Config, addr string) (string, error) {
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport, Timeout: 5 * time.Second}).Get("https://" + addr)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return string(data), err
}

// httpLeaf is what a joining node signs for itself.
func httpLeaf(t *testing.T, e *enrolled, ip string) tls.Certificate {
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
	der, err := x509.CreateCertificate(rand.Reader, tmpl, e.httpCA, key.Public(), e.httpKey)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der, e.HTTPCACert}, PrivateKey: key}
}

// trusting is a client that knows nothing but a member's ca.crt.
func trusting(t *testing.T, m *member) *tls.Config {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(m.read(t, "ca.crt")) {
		t.Fatal("no certificate in ca.crt")
	}
	return &tls.Config{RootCAs: pool}
}

// testEnrollUse: a node of other software serves HTTPS that the cluster's clients trust, and speaks mutual TLS with
// others that have enrolled; a member it is not.
func testEnrollUse(t *testing.T, c *cluster) {
	u := c.admin(t)
	one := parseEnrolled(t, c, u.do(c.members[1], "GET", enrollNode, ""))
	two := parseEnrolled(t, c, u.do(c.members[2], "GET", enrollNode, ""))

	addr := serveAs(t, &tls.Config{Certificates: []tls.Certificate{httpLeaf(t, &one, "127.0.0.1")}})
	if got, err := ask(trusting(t, c.members[1]), addr); err != nil || got != "hello from 0" {
		t.Errorf("HTTPS with a leaf under http_ca_key: %q, %v", got, err)
	}

	transport := x509.NewCertPool()
	transport.AddCert(one.transportCA)
	addr = serveAs(t, &tls.Config{Certificates: []tls.Certificate{one.pair()}, ClientAuth: tls.RequireAndVerifyClientCert,
		ClientCAs: transport})
	chained := func(s tls.ConnectionState) error { // verification_mode certificate: the chain counts, names do not
		_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: transport,
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
		return err
	}
	if got, err := ask(&tls.Config{Certificates: []tls.Certificate{two.pair()}, InsecureSkipVerify: true,
		VerifyConnection: chained}, addr); err != nil || got != "hello from 1" {
		t.Errorf("mutual TLS between two that have enrolled: %q, %v", got, err)
	}
	if got, err := ask(&tls.Config{InsecureSkipVerify: true}, addr); err == nil {
		t.Errorf("without a certificate: %q", got)
	}

	// The cluster listener takes its chain for good and refuses it all the same.
	for _, proto := range []string{"h2", "muster-raft/1", "muster-ask/1"} {
		verdict := func(pair tls.Certificate) error {
			conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 3 * time.Second}, "tcp", c.members[0].raft,
				&tls.Config{
					InsecureSkipVerify:   true,
					NextProtos:           []string{proto},
					MinVersion:           tls.VersionTLS13,
					VerifyConnection:     chained,
					GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil },
				})
			if err != nil {
				return err
			}
			defer conn.Close()
			_ = conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
			_, err = conn.Read(make([]byte, 1))
			return err
		}
		if err := verdict(one.pair()); err == nil || !strings.Contains(err.Error(), "tls: ") {
			t.Errorf("%s with the certificate of an enrollment: %v, want an alert", proto, err)
		}
		own, err := tls.X509KeyPair(c.members[1].read(t, "tls/transport.crt"), c.members[1].read(t, "tls/transport.key"))
		if err != nil {
			t.Fatal(err)
		}
		if err := verdict(own); err != nil && strings.Contains(err.Error(), "tls: ") {
			t.Errorf("%s with the certificate of a member: %v", proto, err)
		}
	}
}

// testEnrollIntermediate: the key of the root stays here, and what is handed out works under the root for other hosts.
func testEnrollIntermediate(t *testing.T, c *cluster) {
	u := c.admin(t)
	root := parseEnrolled(t, c, u.do(c.members[0], "GET", enrollNode, ""))
	u.set(t, c.members[1], `{"enrollment.http_ca":"intermediate","enrollment.lifetime":"48h","certificates.hosts":"es-1"}`)
	defer u.set(t, c.members[2], `{"enrollment.http_ca":null,"enrollment.lifetime":null,"certificates.hosts":null}`)
	e := parseEnrolled(t, c, u.do(c.members[1], "GET", enrollNode, ""))
	if bytes.Equal(e.HTTPCAKey, root.HTTPCAKey) || !e.httpCA.IsCA || !samePublic(e.httpKey, e.httpCA) ||
		e.httpCA.CheckSignatureFrom(root.httpCA) != nil {
		t.Fatal("http_ca_cert is not an intermediate of its own")
	}
	for _, cert := range []*x509.Certificate{e.httpCA, e.transport} {
		if d := time.Until(cert.NotAfter); d > 48*time.Hour || d < 47*time.Hour {
			t.Errorf("%s is valid for %v", cert.Subject.CommonName, d)
		}
	}
	list := u.enrollments(t, c.members[0])
	if last := list[len(list)-1]; last.HTTPCASerial != e.httpCA.SerialNumber.Text(16) ||
		last.TransportSerial != e.transport.SerialNumber.Text(16) {
		t.Errorf("the list has %+v", last)
	}
	addr := serveAs(t, &tls.Config{Certificates: []tls.Certificate{httpLeaf(t, &e, "127.0.0.1")}})
	if got, err := ask(trusting(t, c.members[2]), addr); err != nil || got != "hello from 0" {
		t.Errorf("HTTPS with a leaf under the intermediate: %q, %v", got, err)
	}
}

// testEnrollRSA: for software that takes nothing else.
func testEnrollRSA(t *testing.T, c *cluster) {
	u := c.admin(t)
	u.set(t, c.members[0], `{"enrollment.key_type":"rsa4096"}`)
	defer u.set(t, c.members[0], `{"enrollment.key_type":null}`)
	u.http.Timeout = time.Minute
	e := parseEnrolled(t, c, u.do(c.members[1], "GET", enrollNode, ""))
	if key, ok := e.transportKey.(*rsa.PrivateKey); !ok || key.N.BitLen() != 4096 || !samePublic(key, e.transport) {
		t.Errorf("transport_key is a %T", e.transportKey)
	}
}

// testEnrollTool: the calls that the official token tool makes, one after the other, through one member.
func testEnrollTool(t *testing.T, c *cluster) {
	m := c.members[1]
	u := c.nobody(t)
	basic := basicHeader("admin", c.token)
	a := u.do(m, "GET", "/_cluster/health?pretty", "", basic)
	if !strings.Contains(a.body, "\n  \"status\" : \"green\",\n") || a.status != 200 {
		t.Errorf("health: %v", a)
	}
	a = u.do(m, "POST", apiKeyPath,
		`{"name":"enrollment_token_API_key_x","expiration":"30m",`+
			`"role_descriptors":{"create_enrollment_token":{"cluster":["cluster:admin/xpack/security/enroll/node"]}}}`, basic)
	var key createdKey
	decode(t, a, &key)
	c.secret("the secret of an API key", key.APIKey)
	if d := time.Until(time.UnixMilli(key.Expiration)); d > 30*time.Minute || d < 29*time.Minute {
		t.Errorf("the key expires in %v", d)
	}
	a = u.do(m, "GET", "/_nodes/_local/http", "", basic)
	var nodes struct {
		Nodes map[string]struct {
			Name, Version string
			HTTP          struct {
				Bound   []string `json:"bound_address"`
				Publish string   `json:"publish_address"`
			}
		}
	}
	decode(t, a, &nodes)
	for _, n := range nodes.Nodes {
		if n.Name != "node-2" || n.Version == "" || n.HTTP.Publish != m.api || !slices.Equal(n.HTTP.Bound, []string{m.api}) {
			t.Errorf("the local node is %+v", n)
		}
	}
	if len(nodes.Nodes) != 1 {
		t.Errorf("%d local nodes", len(nodes.Nodes))
	}
	// The tool takes the fingerprint from its own disk; a joining node looks for it behind the leaf.
	conn, err := tls.Dial("tcp", m.api, trusting(t, m))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	chain := conn.ConnectionState().PeerCertificates
	_, token := c.admin(t).enrollToken(t, m, "{}")
	sum := sha256.Sum256(chain[len(chain)-1].Raw)
	if len(chain) != 2 || token.Fingerprint != hex.EncodeToString(sum[:]) {
		t.Errorf("the token's fingerprint is not that of the second of the %d certificates", len(chain))
	}
	for range 2 { // such a key is good until it expires
		parseEnrolled(t, c, u.do(m, "GET", enrollNode, "", "Authorization: APIKey "+key.Encoded))
	}
}
