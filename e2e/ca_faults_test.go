package e2e

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"muster/client"
)

// TestCAFaults: a rotation survives the death of the leader in each phase, waits for who is away, and can do without.
func TestCAFaults(t *testing.T) {
	t.Parallel()
	clusters <- struct{}{}
	t.Cleanup(func() { <-clusters })
	cert, key := operatorCA(t, 400, "Founding")
	c := &cluster{t: t, root: t.TempDir(), secrets: map[string]string{}}
	t.Cleanup(c.end)
	testOwnFounding(t, c, cert, key)
	for len(c.members) < 3 {
		c.join(c.add())
	}
	c.awaitVoters(t)
	away := c.admit(t, nil)
	away.awaitReady(t)
	t.Run("leaders killed", func(t *testing.T) { testCALeadersKilled(t, c, away) })
	t.Run("left behind", func(t *testing.T) { testCALeftBehind(t, c, away) })
}

// testOwnFounding: the founder takes an operator's CA for the API, and refuses one that is none before it writes
// anything.
func testOwnFounding(t *testing.T, c *cluster, cert, key string) {
	m := c.add()
	plain := m.args
	_, other := operatorCA(t, 400, "Other")
	m.args = append(plain[:len(plain):len(plain)], "--http-ca-cert", cert, "--http-ca-key", other)
	if out := muster(t, m.args...); out.code != 1 ||
		!strings.Contains(out.stderr, "the CA key does not belong to the CA certificate") {
		t.Errorf("founding with another CA's key: %+v", out)
	}
	if _, err := os.Stat(m.file("node.json")); err == nil {
		t.Error("a refused founding has written node.json")
	}
	m.args = append(plain[:len(plain):len(plain)], "--http-ca-cert", cert, "--http-ca-key", key)
	m.start(t)
	m.awaitReady(t)
	c.adopt(t)
	if err := opensslTrusts(t, m, cert); err != nil {
		t.Errorf("the founder with the operator's CA: %v", err)
	}
	if g := inState(t, c.fresh(t).ca(t, m, "http"), "active"); g.Origin != "operator" ||
		g.Subject != "CN=Founding,O=Example" {
		t.Errorf("%+v", g)
	}
	// The operator's key is not given away: who enrolls gets an authority below it.
	var got struct {
		Cert []byte `json:"http_ca_cert"`
	}
	a := c.fresh(t).do(m, "GET", "/_security/enroll/node", "")
	if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.status != 200 {
		t.Fatalf("enroll: %v", a)
	}
	if ca, err := x509.ParseCertificate(got.Cert); err != nil || ca.Issuer.CommonName != "Founding" ||
		!strings.HasPrefix(ca.Subject.CommonName, "muster enrolled HTTP CA") {
		t.Errorf("the authority of who enrolls: %v, %v", ca, err)
	}
}

// waitsFor checks that a rotation is held back by one member and says why.
func (u *user) waitsFor(t *testing.T, m *member, want string, node uint64, reason string) {
	t.Helper()
	eventually(t, formed, fmt.Sprintf("the rotation waits for node %d in the phase %s", node, want), func() error {
		k, err := u.tryCA(m, "http")
		if err != nil {
			return err
		}
		if phase(k) != want || len(k.Rotation.Pending) != 1 || k.Rotation.Pending[0].NodeID != node ||
			!strings.HasPrefix(k.Rotation.Pending[0].Reason, reason) {
			return fmt.Errorf("it is in the phase %s: %+v", phase(k), k.Rotation)
		}
		return nil
	})
}

// killLeader kills whoever leads, waits for the next one and starts the killed one again.
func killLeader(t *testing.T, c *cluster, away *member) *member {
	t.Helper()
	running := c.members
	c.members = c.others(away)
	defer func() { c.members = running }()
	dead := c.leader(t)
	dead.kill()
	m := c.leader(t)
	dead.start(t)
	dead.awaitReady(t)
	return m
}

// testCALeadersKilled: whoever leads carries the rotation on where the last one stopped.
func testCALeadersKilled(t *testing.T, c *cluster, away *member) {
	u := c.fresh(t)
	m := c.others(away)[0]
	first := u.ca(t, m, "transport")
	id := u.memberID(t, m, away)

	away.pause()
	u.rotateCA(t, m, `{"kind":"all","overlap":"5s"}`)
	u.waitsFor(t, m, "trust", id, "does not answer")
	u.do(m, "POST", "/api/v1/cluster/ca/rotate", `{"action":"continue"}`).expect(t, "continue", 409,
		`{"error":"the rotation of the http CA waits for 1 members in the phase trust; force continues without them"}`)
	u.do(m, "POST", "/api/v1/cluster/ca/rotate", `{"action":"drop"}`).is(t, "drop", 409,
		`{"error":"the new http CA does not issue yet`)
	m = killLeader(t, c, away)
	u.waitsFor(t, m, "trust", id, "does not answer")

	out := muster(t, "ca", "rotate", "--force", "--no-wait", "--data", c.members[0].dir)
	if out.code != 0 || !strings.Contains(out.stderr, "1 members are left behind") {
		t.Errorf("ca rotate --force: %+v", out)
	}
	u.waitsFor(t, m, "issue", id, "does not answer")
	m = killLeader(t, c, away)
	u.waitsFor(t, m, "issue", id, "does not answer")

	// It knows the old CAs alone and was left behind: that each CA certifies the other lets it in all the same.
	away.carryOn()
	eventually(t, formed, "the overlap begins", func() error {
		k, err := u.tryCA(m, "transport")
		if err == nil && phase(k) != "overlap" {
			err = fmt.Errorf("%+v", k.Rotation)
		}
		return err
	})
	m = killLeader(t, c, away)
	u = c.trusting(t, u.ca(t, m, "http").Generations[1].Certificate)
	u.awaitPhase(t, m, "none", "http", "transport")
	for _, kind := range []string{"http", "transport"} {
		k := u.ca(t, m, kind)
		if k.Generations[0].State != "retired" || k.Generations[1].State != "active" || len(k.Generations) != 2 {
			t.Errorf("%s: %+v", kind, k.Generations)
		}
		for _, x := range c.members {
			if err := issuedBy(x, "tls/"+kind+".crt", k.Generations[1].Certificate); err != nil {
				t.Error(err)
			}
		}
	}
	if first.Generations[0].Fingerprint == inState(t, u.ca(t, m, "transport"), "active").Fingerprint {
		t.Error("the transport CA is the old one")
	}
	m.awaitSQL(t,
		"SELECT group_concat(action, ' ') FROM (SELECT action FROM audit WHERE object = 'ca/transport' ORDER BY revision, "+
			"seq)", "ca.rotate ca.issue ca.overlap ca.drop")
}

// testCALeftBehind: a member that was away for a whole rotation holds it back and can catch up; one without which it
// went to its end gets back with --rejoin, as the member that it was.
func testCALeftBehind(t *testing.T, c *cluster, away *member) {
	u := c.fresh(t)
	m := c.others(away)[0]
	id := u.memberID(t, m, away)
	was := away.identity()
	away.stop(t)
	u.rotateCA(t, m, `{"kind":"transport","overlap":"0s"}`)
	eventually(t, formed, "the rotation waits", func() error {
		k, err := u.tryCA(m, "transport")
		if err == nil && (phase(k) != "trust" || len(k.Rotation.Pending) != 1) {
			err = fmt.Errorf("%+v", k.Rotation)
		}
		return err
	})
	away.start(t)
	u.awaitPhase(t, m, "none", "transport")

	away.stop(t)
	u.rotateCA(t, m, `{"kind":"transport","overlap":"0s"}`)
	for _, want := range []string{"trust", "issue"} {
		eventually(t, formed, "the others are done in the phase "+want, func() error {
			k, err := u.tryCA(m, "transport")
			if err == nil && (phase(k) != want || len(k.Rotation.Pending) != 1 || k.Rotation.Pending[0].NodeID != id) {
				err = fmt.Errorf("%+v", k.Rotation)
			}
			return err
		})
		u.rotateCA(t, m, `{"kind":"transport","action":"continue","force":true}`)
	}
	u.awaitPhase(t, m, "none", "transport")
	for _, other := range c.others(away) { // until it has heard of the drop, a member takes the old authority's word
		eventually(t, formed, fmt.Sprintf("node %d trusts the new authority alone", other.n), func() error {
			if n := strings.Count(string(other.read(t, "tls/transport-ca.crt")), "BEGIN CERTIFICATE"); n != 1 {
				return fmt.Errorf("it trusts %d", n)
			}
			return nil
		})
	}
	silent := func() error {
		x, err := try[client.Member](u, m, "GET", fmt.Sprintf("/api/v1/cluster/members/%d", id), "")
		if err == nil && x.Status == "alive" {
			err = fmt.Errorf("%+v", x)
		}
		return err
	}
	eventually(t, formed, "it is taken for dead", silent)
	away.start(t)
	throughout(t, 500*time.Millisecond, "the member that was left behind is not heard of", silent)
	away.stop(t)
	away.args = append(away.args[:len(away.args)-2], "--rejoin", "--join", u.create(t, m, `{}`).Token)
	away.start(t)
	away.awaitReady(t)
	eventually(t, formed, "it is back", func() error {
		x, err := try[client.Member](u, m, "GET", fmt.Sprintf("/api/v1/cluster/members/%d", id), "")
		if err == nil && x.Status != "alive" {
			err = fmt.Errorf("%+v", x)
		}
		return err
	})
	if now := away.identity(); now != was {
		t.Errorf("it was %s and is %s", was, now)
	}
}
