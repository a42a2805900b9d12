package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"muster/certs"
	"muster/client"
)

// TestCA: a certificate authority is replaced while everybody goes on working with it.
func TestCA(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	t.Run("refusals", func(t *testing.T) { testCARefusals(t, c) })
	t.Run("in use throughout", func(t *testing.T) { testCARotation(t, c) })
	t.Run("rollback", func(t *testing.T) { testCARollback(t, c) })
	t.Run("an operator's own", func(t *testing.T) { testOwnCA(t, c) })
	t.Run("certificates", func(t *testing.T) { testCertificates(t, c) })
	t.Run("a removed member", func(t *testing.T) { testCARemoved(t, c) })
}

// testCARefusals: what cannot be done is refused with a reason, a dry run says what would be done, and nothing changes.
const ellaForbidden = `{"error":"Forbidden"}`

func testCARefusals(t *testing.T, c *cluster) {
	u, m := c.admin(t), c.members[1]
	cert, key := operatorCA(t, 400, "Refused")
	pem := func(name string) string { return string(contentsOf(t, name)) }
	_, other := operatorCA(t, 400, "Other")
	own := func(kind, cert, key string) string {
		return bodyOf(t, client.CARequest{Kind: kind, CertPEM: cert, KeyPEM: key})
	}
	leaf := string(c.members[0].read(t, "tls/http.crt"))
	leafKey := string(c.members[0].read(t, "tls/http.key"))
	before := u.do(m, "GET", "/api/v1/cluster/ca", "").body
	for _, x := range []struct {
		body   string
		status int
		text   string
	}{
		{`[]`, 400, `the body must be a JSON object`},
		{`{"kind":7}`, 400, `kind must be a string`},
		{`{"kind":"both"}`, 400, `kind must be http, transport, workload or all`},
		{`{"action":"stop"}`, 400, `action must be start, continue, drop or rollback`},
		{`{"dryRun":"yes"}`, 400, `dryRun must be true or false`},
		{`{"dry_run":true}`, 400, `"dry_run" is not a field of this request; did you mean dryRun?`},
		{`{"overlap":5}`, 400, `overlap must be a duration such as 24h`},
		{`{"overlap":"soon"}`, 400, `overlap must be a duration of whole seconds between 0s and 2160h, such as 24h`},
		{`{"overlap":"-1s"}`, 400, `overlap must be a duration of whole seconds between 0s and 2160h, such as 24h`},
		{`{"overlap":"2161h"}`, 400, `overlap must be a duration of whole seconds between 0s and 2160h, such as 24h`},
		{`{"action":"drop","overlap":"1h"}`, 400, `overlap is not for the action drop, which ends the overlap`},
		{`{"force":true}`, 400,
			`force is for the actions continue and drop only: a rotation that has begun can continue without some members`},
		{own("http", pem(cert), ""), 400, `certPEM and keyPEM must be given together`},
		{`{"kind":"http","certPEM":"","keyPEM":""}`, 400, `certPEM and keyPEM must not be empty`},
		{own("all", pem(cert), pem(key)), 400,
			`kind must be http, transport or workload with certPEM: one CA is for one kind`},
		{own("http", "x", pem(key)), 400,
			`the CA certificate must be PEM text with one or more certificates, the CA's own first`},
		{own("http", pem(cert), "x"), 400, `the CA key must be one private key in PEM, not encrypted`},
		{own("http", pem(cert), pem(other)), 400, `the CA key does not belong to the CA certificate`},
		{own("http", leaf, leafKey), 400, `the CA certificate is not that of a CA: its basic constraints must say CA:TRUE`},
		{`{"action":"continue"}`, 409, `no rotation of the http CA is in progress`},
		{`{"action":"drop","kind":"transport"}`, 409, `no rotation of the transport CA is in progress`},
		{`{"action":"rollback","kind":"http"}`, 409, `no rotation of the http CA is in progress`},
	} {
		u.do(m, "POST", "/api/v1/cluster/ca/rotate", x.body).expect(t, x.body, x.status,
			string(marshalled(t, map[string]string{"error": x.text})))
	}
	for _, body := range []string{`{"dryRun":true}`, `{"kind":"transport","dryRun":true,"overlap":"0s"}`,
		own("http", pem(cert), pem(key))[:1] + `"dryRun":true,` + own("http", pem(cert), pem(key))[1:]} {
		if r := u.rotateCA(t, m, body); !r.DryRun || len(r.Steps) < 3 {
			t.Errorf("dry run of %.60s: %+v", body, r)
		}
	}
	if after := u.do(m, "GET", "/api/v1/cluster/ca", "").body; after != before {
		t.Errorf("the authorities were %s and are %s", before, after)
	}
	reader := c.as(t, u.apiToken(t, m, "reader", "cluster:read").Token)
	reader.ca(t, m, "http")
	reader.do(m, "POST", "/api/v1/cluster/ca/rotate", `{"dryRun":true}`).expect(t, "a rotation with cluster:read", 403,
		ellaForbidden)
	keeper := c.as(t, u.apiToken(t, m, "keeper", "keys:manage", "cluster:manage").Token)
	keeper.do(m, "POST", "/api/v1/cluster/ca/rotate", `{}`).expect(t, "a rotation without management", 403, ellaForbidden)
	for query, text := range map[string]string{
		"nodeId=0":           "nodeId must be a member's number",
		"expiresWithin=soon": "expiresWithin must be a duration such as 720h",
		"current=maybe":      "current must be true or false",
		"limit=0":            "limit must be a whole number between 1 and 10000",
	} {
		u.do(m, "GET", "/api/v1/cluster/certificates?"+query, "").expect(t, query, 400,
			string(marshalled(t, map[string]string{"error": text})))
	}
}

func marshalled(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// testCARotation replaces both authorities under clients that know the old one alone, clients that know the new one
// alone, and machines that join with tokens of before and of now. Not one call fails.
func testCARotation(t *testing.T, c *cluster) {
	u, m := c.admin(t), c.members[1]
	old := string(c.members[0].read(t, "ca.crt"))
	oldGeneration := inState(t, u.ca(t, m, "http"), "active")
	if strings.TrimSpace(oldGeneration.Certificate) != strings.TrimSpace(old) {
		t.Fatalf("ca.crt is not the active CA")
	}
	oldToken := u.create(t, m, `{"maxUses":100000,"ttlSeconds":3600}`).Token
	strayToken := u.create(t, m, `{}`).Token
	held := c.members[2].hold(t, old)

	loads := []*load{c.reads(t, "a client with the old CA", old),
		c.joins(t, "joins with a token of before", func() (string, error) { return oldToken, nil }),
		c.joins(t, "joins with new tokens", func() (string, error) {
			x, err := try[client.NewJoinToken](u, m, "POST", "/api/v1/cluster/join-tokens", `{"ttlSeconds":600}`)
			return x.Token, err
		})}
	change := u.rotateCA(t, m, `{"kind":"all","overlap":"1h"}`)
	t.Logf("%q %q", change.Steps, change.Warnings)
	u.do(m, "POST", "/api/v1/cluster/ca/rotate", `{"kind":"all"}`).is(t, "a second rotation", 409,
		`{"error":"a rotation of the http CA is in progress, in the phase `)
	eventually(t, formed, "every member trusts the new CA", func() error {
		k, err := u.tryCA(m, "http")
		if err == nil && phase(k) == "trust" {
			err = fmt.Errorf("%+v", k.Rotation)
		}
		return err
	})
	begun := u.ca(t, m, "http")
	if phase(begun) == "none" {
		t.Fatalf("the rotation is over: %+v", begun)
	}
	now := inState(t, begun, "active").Certificate
	loads = append(loads, c.reads(t, "a client with the new CA", now))
	u.awaitPhase(t, m, "overlap", "http", "transport")

	oldFile, newFile := file(t, "old.crt", old), file(t, "new.crt", now)
	inTheOverlap(t, c, u, m, oldFile, newFile, now)
	// A real member with a token of before.
	late := c.add()
	late.args = append(late.args, "--join", oldToken)
	late.start(t)
	late.awaitReady(t)
	eventually(t, formed, "the new member answers the leader", func() error {
		k, err := u.tryCA(m, "transport")
		if err == nil && len(k.Rotation.Pending) > 0 {
			err = fmt.Errorf("%+v", k.Rotation.Pending)
		}
		return err
	})
	for _, l := range loads {
		l.end(t)
	}
	held("after the rotation")

	after := c.reads(t, "a client with the new CA, while the old one is dropped", now)
	u = c.trusting(t, now)
	u.rotateCA(t, m, `{"kind":"all","action":"drop"}`)
	u.awaitPhase(t, m, "none", "http", "transport")
	for _, x := range c.members {
		eventually(t, formed, fmt.Sprintf("node %d has dropped the old CA", x.n), func() error {
			if got := string(x.read(t, "ca.crt")); got != now {
				return fmt.Errorf("ca.crt is\n%s", got)
			}
			if n := strings.Count(string(x.read(t, "tls/transport.crt")), "BEGIN CERTIFICATE"); n != 2 {
				return fmt.Errorf("the chain of the cluster listener has %d certificates", n)
			}
			if err := opensslTrusts(t, x, oldFile); err == nil {
				return fmt.Errorf("it verifies with the old CA")
			}
			return opensslTrusts(t, x, newFile)
		})
	}
	stray := c.add()
	out := command{}.run(t, append(stray.args, "--join", strayToken)...)
	if out.code != 1 || !strings.Contains(out.stderr, "does not present the pinned CA") {
		t.Errorf("a token that pins the dropped CA: exit %d: %s", out.code, out.stderr)
	}
	c.members = c.members[:len(c.members)-1]
	after.end(t)
	late.awaitSQL(t, "SELECT state || length(sealed_key) || length(cross_pem) FROM authorities WHERE generation = 1",
		"retired00\nretired00\nretired00")
	for _, x := range c.members { // each leads with the new keys
		if x != late {
			u.lead(t, x)
			u.create(t, x, `{}`)
		}
	}
}

// inTheOverlap: both CAs are trusted, and the new one signs.
func inTheOverlap(t *testing.T, c *cluster, u *user, m *member, oldFile, newFile, now string) {
	t.Helper()
	// OpenSSL is the verifier that stops at the first certificate with the right name.
	for _, x := range c.members {
		for what, ca := range map[string]string{"old": oldFile, "new": newFile} {
			if err := opensslTrusts(t, x, ca); err != nil {
				t.Errorf("node %d with the %s CA alone: %v", x.n, what, err)
			}
		}
		for _, kind := range []string{"http", "transport"} {
			if err := issuedBy(x, "tls/"+kind+".crt", inState(t, u.ca(t, m, kind), "active").Certificate); err != nil {
				t.Error(err)
			}
		}
		if n := strings.Count(string(x.read(t, "ca.crt")), "BEGIN CERTIFICATE"); n != 2 {
			t.Errorf("ca.crt of node %d has %d certificates, want both", x.n, n)
		}
	}
	k := u.ca(t, m, "http")
	if r := k.Rotation; r.DropAt == nil || len(r.Pending) != 0 || r.Old != 1 || r.New != 2 || r.Overlap != "1h0m0s" ||
		inState(t, k, "trusted").Generation != 1 {
		t.Errorf("in the overlap: %+v", k)
	}
	if claims := parsedToken(t, u.create(t, m, `{}`).Token); claims.CAFingerprint != inState(t, k, "active").Fingerprint {
		t.Errorf("a token of now pins %s", claims.CAFingerprint)
	}
}

func parsedToken(t *testing.T, text string) certs.JoinClaims {
	t.Helper()
	token, err := certs.ParseJoinToken(text)
	if err != nil {
		t.Fatal(err)
	}
	return token.Claims()
}

// testCARollback: before the old CA is dropped everything can be taken back, also after the new one has issued.
func testCARollback(t *testing.T, c *cluster) {
	u, m := c.fresh(t), c.leader(t)
	was := inState(t, u.ca(t, m, "http"), "active")
	u.rotateCA(t, m, `{"kind":"http","overlap":"1h"}`)
	u.awaitPhase(t, m, "overlap", "http")
	now := inState(t, u.ca(t, m, "http"), "active")
	if now.Fingerprint == was.Fingerprint {
		t.Fatal("the rotation has changed nothing")
	}
	loads := []*load{c.reads(t, "a client with the first CA", was.Certificate),
		c.reads(t, "a client with the second CA", now.Certificate)}
	pinned := u.create(t, m, `{"maxUses":1000}`).Token
	loads = append(loads, c.joins(t, "joins with a token of the second CA", func() (string, error) { return pinned, nil }))
	u.do(m, "POST", "/api/v1/cluster/ca/rotate", `{"action":"continue","kind":"http"}`).is(t, "continue in the overlap",
		409, `{"error":"the rotation of the http CA only waits for the end of the overlap`)
	u.rotateCA(t, m, `{"action":"rollback","kind":"http"}`)
	u.do(m, "POST", "/api/v1/cluster/ca/rotate", `{"action":"rollback","kind":"http"}`).is(t, "a second rollback", 409,
		`{"error":"the rotation of the http CA is already being rolled back"}`)
	u.awaitPhase(t, m, "overlap", "http")
	for _, x := range c.members[:3] {
		if err := issuedBy(x, "tls/http.crt", was.Certificate); err != nil {
			t.Error(err)
		}
	}
	for _, l := range loads {
		l.end(t)
	}
	u = c.trusting(t, was.Certificate)
	out := muster(t, "ca", "rotate", "--drop", "--yes", "--kind", "http", "--data", c.members[0].dir, "-o", "json")
	if out.code != 0 || len(jsonOf[client.CAChange](t, out).Warnings) == 0 {
		t.Errorf("ca rotate --drop: %+v", out)
	}
	k := u.ca(t, m, "http")
	if g := inState(t, k, "active"); g.Fingerprint != was.Fingerprint || k.Rotation != nil ||
		k.Generations[len(k.Generations)-1].State != "retired" {
		t.Errorf("after the rollback: %+v", k)
	}
}

// testOwnCA: an operator's CA takes the place of ours, and what is about to expire is warned of once.
func testOwnCA(t *testing.T, c *cluster) {
	u, m := c.fresh(t), c.leader(t)
	old := string(m.read(t, "ca.crt"))
	cert, key := operatorCA(t, 20, "Corporate")
	load := c.reads(t, "a client with the CA of before", old)
	out := muster(t, "ca", "rotate", "--kind", "http", "--cert", cert, "--key", key, "--overlap", "1h", "--data",
		c.members[0].dir)
	if out.code != 0 || !strings.Contains(out.stderr, "CN=Corporate") ||
		!strings.Contains(out.stderr, "expires in 19 days") || out.stdout != "" {
		t.Errorf("ca rotate --cert: exit %d\n%s\n%s", out.code, out.stdout, out.stderr)
	}
	secret, _ := os.ReadFile(key)
	c.secret("the operator's key", strings.Split(string(secret), "\n")[1])
	k := u.ca(t, m, "http")
	if g := inState(t, k, "active"); g.Origin != "operator" || g.DaysLeft != 19 || phase(k) != "overlap" {
		t.Errorf("%+v", k)
	}
	for _, x := range c.members {
		if err := opensslTrusts(t, x, cert); err != nil {
			t.Errorf("node %d with the operator's CA: %v", x.n, err)
		}
	}
	again := bodyOf(t, client.CARequest{Kind: "transport", CertPEM: string(contentsOf(t, cert)), KeyPEM: string(secret)})
	u.do(m, "POST", "/api/v1/cluster/ca/rotate", again).is(t, "the HTTP CA for the cluster listener", 409,
		`{"error":"this is the http CA`)
	m.awaitSQL(t,
		"SELECT count(*), max(detail LIKE 'the http authority%') FROM audit WHERE action = 'certificate.expiring' AND "+
			"object = 'ca/http'", "1|1")
	if found := sqlite(t, m.db(),
		"SELECT count(*) FROM audit WHERE detail LIKE '%PRIVATE%' OR detail LIKE '%BEGIN%'"); found != "0" {
		t.Error("the audit has key material")
	}
	load.end(t)
	u = c.trusting(t, string(contentsOf(t, cert)))
	u.rotateCA(t, m, `{"kind":"http","action":"drop"}`)
	search(t, c, map[string]string{c.token: "the administrator's token",
		strings.Split(string(secret), "\n")[1]: "the operator's key"})
}

func contentsOf(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
