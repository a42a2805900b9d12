package e2e

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/certs"
	"muster/client"
	"muster/internal/enrolled"
)

// Enrollment as other software sees it, on one cluster of three.
func TestEnroll(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	for _, x := range []struct {
		name string
		test func(*testing.T, *cluster)
	}{
		{"it can be used", testEnrollUse},
		{"the official token tool", testEnrollTool},
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

	addr := enrolled.Serve(t, &tls.Config{Certificates: []tls.Certificate{one.HTTPLeaf(t, "127.0.0.1")}})
	if got, err := enrolled.Ask(trusting(t, c.members[1]), addr); err != nil || got != "hello from 0" {
		t.Errorf("HTTPS with a leaf under http_ca_key: %q, %v", got, err)
	}

	transport := x509.NewCertPool()
	transport.AddCert(one.TransportCA)
	addr = enrolled.Serve(t,
		&tls.Config{Certificates: []tls.Certificate{one.Pair()}, ClientAuth: tls.RequireAndVerifyClientCert,
			ClientCAs: transport})
	chained := func(s tls.ConnectionState) error { // verification_mode certificate: the chain counts, names do not
		_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: transport,
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
		return err
	}
	if got, err := enrolled.Ask(&tls.Config{Certificates: []tls.Certificate{two.Pair()}, InsecureSkipVerify: true,
		VerifyConnection: chained}, addr); err != nil || got != "hello from 1" {
		t.Errorf("mutual TLS between two that have enrolled: %q, %v", got, err)
	}
	if got, err := enrolled.Ask(&tls.Config{InsecureSkipVerify: true}, addr); err == nil {
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
		if err := verdict(one.Pair()); err == nil || !strings.Contains(err.Error(), "tls: ") {
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

// testEnrollCLI: the commands, as scripts use them.
func testEnrollCLI(t *testing.T, c *cluster) {
	dir := c.members[0].dir
	out := muster(t, "enroll-token", "create", "--ttl", "1h", "--max-uses", "2", "--name", "from a script", "--data", dir)
	text := strings.TrimSuffix(out.stdout, "\n")
	token, err := certs.ParseEnrollToken(text)
	if out.code != 0 || err != nil || !strings.Contains(out.stderr, "can be used 2 times") ||
		!strings.Contains(out.stderr, "loopback") {
		t.Fatalf("create: %+v, %v", out, err)
	}
	c.secret("an enrollment token", text)
	id, secret, _ := strings.Cut(token.Key, ":")
	c.secret("the secret of an enrollment token", secret)
	// As a joining node does it: the first address, trusting who shows the fingerprint.
	host, port, err := net.SplitHostPort(token.Addresses[0])
	if err != nil || host != "127.0.0.1" || port == "" {
		t.Errorf("the first address is %s", token.Addresses[0])
	}
	conn, err := tls.Dial("tcp", token.Addresses[0], &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimPrefix(certs.Fingerprint(conn.ConnectionState().PeerCertificates[1].Raw),
		"sha256:"); got != token.Fingerprint {
		t.Errorf("the fingerprint is %s, the token's %s", got, token.Fingerprint)
	}
	conn.Close()
	parseEnrolled(t, c, c.nobody(t).do(c.members[0], "GET", enrollNode, "", apiKeyHeader(token.Key)))
	expect := func(code int, inStdout, inStderr string, args ...string) outcome {
		t.Helper()
		out := muster(t, append(args, "--data", dir)...)
		if out.code != code || !strings.Contains(out.stdout, inStdout) || !strings.Contains(out.stderr, inStderr) {
			t.Errorf("muster %v: %+v, want %d, %q, %q", args, out, code, inStdout, inStderr)
		}
		return out
	}
	expect(0, "1 of 2", "", "enroll-token", "list")
	expect(0, id, "", "enrollment", "list", "-o", "json")
	var list []client.EnrollToken
	if err := json.Unmarshal([]byte(expect(0, "", "", "enroll-token", "list", "-o", "json").stdout), &list); err != nil ||
		len(list) == 0 {
		t.Errorf("list -o json: %v", err)
	}
	expect(0, "", "is revoked, and 1 enrollment with it", "enroll-token", "revoke", id)
	expect(1, "", `there is no enrollment token "nothing"`, "enroll-token", "revoke", "nothing")
	expect(1, "", `there is no enrollment "nothing"`, "enrollment", "revoke", "nothing")
	expect(2, "", "--scope", "enroll-token", "create", "--scope", "x")
	expect(2, "", "--ttl", "enroll-token", "create", "--ttl", "0s")
	expect(0, "enrollment.enabled       true", "", "settings", "get")
	expect(0, "true\n", "", "settings", "get", "enrollment.enabled")
	expect(0, "enrollment.enabled  false", "", "settings", "set", "enrollment.enabled=false")
	expect(0, "enrollment.enabled  true", "", "settings", "set", "enrollment.enabled=")
	expect(1, "", "enrollment.enabled must be true or false (400)", "settings", "set", "enrollment.enabled=perhaps")
	expect(1, "", "x is not a setting; use one of ", "settings", "get", "x")
	expect(2, "", "is not NAME=VALUE", "settings", "set", "x")
}
