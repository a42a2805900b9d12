package e2e

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"muster/certs"
	"muster/client"
)

// TestKeys takes one cluster of three through the life of its keys.
func TestKeys(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	for _, x := range []struct {
		name string
		test func(*testing.T, *cluster)
	}{
		{"unseal", testUnseal}, {"same identity", testSameIdentity}, {"legacy joiner", testLegacyJoiner},
		{"node identity", testNodeIdentity},
		{"one signed token, many machines", testSignedOnce}, {"secrets", testSecrets},
		{"rotation once", testRotationOnce}, {"joins and rotations", testJoinsAndRotations},
		{"rotation while the leader dies", testRotation}, {"removal", testRemoval},
		{"no secret in the open", testKeysInTheOpen}, {"hash of a secret", testSecretHash},
	} {
		t.Run(x.name, func(t *testing.T) {
			begin := time.Now()
			x.test(t, c)
			t.Logf("took %v", time.Since(begin).Round(10*time.Millisecond))
		})
	}
}

// testUnseal: what nacl/box makes of wrapped_dek is what `age -d` makes of the wraps, of the machine and of the
// members.
func testUnseal(t *testing.T, c *cluster) {
	u := c.admin(t)
	j := newMachine(t)
	r := j.enter(t, u, c.members[1], u.create(t, c.members[0], `{}`).Token)
	dek := j.unseal(t, r)
	awaitCopies(t, c, c.members...)
	for _, m := range c.members {
		if own, err := ageOpens(t, m.db(), m.file("node.key"), r.DEKGeneration, uint64(m.n)); err != nil || own != dek {
			t.Errorf("age -d -i %s: %v; the same as wrapped_dek: %v", m.file("node.key"), err, own == dek)
		}
		if own, err := ageOpens(t, m.db(), j.file, r.DEKGeneration, r.RaftNodeID); err != nil || own != dek {
			t.Errorf("the machine's own wrap in the mirror of node %d: %v; the same: %v", m.n, err, own == dek)
		}
		if _, err := ageOpens(t, m.db(), j.file, r.DEKGeneration, uint64(m.n)); err == nil {
			t.Errorf("the machine's key opens the wrap of node %d", m.n)
		}
	}
	// The lines in the manual.
	text, err := os.ReadFile("../docs/keys.md")
	_, rest, found := strings.Cut(string(text), "```sh\nsqlite3 ")
	lines, _, end := strings.Cut(rest, "```")
	if err != nil || !found || !end {
		t.Fatalf("docs/keys.md has no command: %v", err)
	}
	m := c.members[1]
	lines = strings.NewReplacer("DIR", m.dir, "NODE", fmt.Sprint(m.n)).Replace("sqlite3 " + lines)
	if out, err := exec.Command("sh", "-c", lines).CombinedOutput(); err != nil ||
		strings.ToLower(string(out)) != hexOf(dek[:]) {
		t.Errorf("%s: %v, %d bytes that are the key: %v", lines, err, len(out), strings.ToLower(string(out)) == hexOf(dek[:]))
	}
	if r.DEKGeneration != 1 || u.newest(t, c.members[0]).Generation != 1 {
		t.Errorf("a join has changed the generation: %d", r.DEKGeneration)
	}
	if got := sqlite(t, c.members[2].db(),
		"SELECT held_by FROM v_keys WHERE generation = 1"); got != fmt.Sprintf("1 2 3 %d", r.RaftNodeID) {
		t.Errorf("sqlite3 shows the holders %q", got)
	}
}

// testSameIdentity: asked again a machine is the same, through any member, also when the leader dies after the commit
// and before its answer; with a new token it is the same at new addresses.
func testSameIdentity(t *testing.T, c *cluster) {
	u := c.admin(t)
	j := newMachine(t)
	token := u.create(t, c.members[0], `{}`)
	first := j.enter(t, u, c.members[0], token.Token, "advertise_addr", "10.1.1.1")
	same := func(what string, r client.JoinResponse) {
		t.Helper()
		if r.NodeID != first.NodeID || r.RaftNodeID != first.RaftNodeID || r.OverlayIP != first.OverlayIP ||
			r.SliceCIDR != first.SliceCIDR || r.DEKGeneration != first.DEKGeneration {
			t.Errorf("%s: %+v, want %+v", what, r, first)
		}
		if j.unseal(t, r) != j.unseal(t, first) {
			t.Errorf("%s: another key", what)
		}
	}
	for _, m := range c.members {
		same(fmt.Sprintf("again through node %d", m.n), j.enter(t, u, m, token.Token, "advertise_addr", "10.1.1.1"))
	}
	if x := u.joinToken(t, c.members[0], token.ID); x.Uses != 1 || len(x.UsedBy) != 1 {
		t.Errorf("the token is %+v", x)
	}
	renewed := u.create(t, c.members[0], `{}`)
	same("with a new token",
		j.enter(t, u, c.members[1], renewed.Token, "advertise_addr", "10.1.1.2", "raft_port", 7001, "overlay_port", 4242))
	if x := u.joinToken(t, c.members[0], renewed.ID); x.Uses != 1 || len(x.UsedBy) != 1 ||
		x.UsedBy[0].NodeID != first.RaftNodeID {
		t.Errorf("the new token is %+v", x)
	}
	for _, x := range u.members(t, c.members[2]) {
		if x.NodeID == first.RaftNodeID && x.RaftAddress != "10.1.1.2:7001" {
			t.Errorf("after the re-join the member is %+v", x)
		}
	}
	newMachine(t).refused(t, u, c.members[0], renewed.Token, 401, "Unauthorized: Join token already used (replay)")

	joinedWhileLeaderDies(t, c, u)
}

// joinedWhileLeaderDies: a join that was committed before its leader died gives the same identity when it is repeated.
func joinedWhileLeaderDies(t *testing.T, c *cluster, u *user) {
	t.Helper()
	leader := c.leader(t)
	others := c.others(leader)
	gone := newMachine(t)
	token := u.create(t, others[0], `{}`)
	g := openGate(t, fmt.Sprintf("127.0.0.1:%d", freePort()), leader.api)
	g.shut.Store(true)
	through := *leader
	through.api = g.Addr().String()
	lost := make(chan answer, 1)
	own := c.admin(t)
	go func() { lost <- own.do(&through, "POST", "/api/v1/cluster/join", gone.body(t, token.Token)) }()
	eventually(t, formed, "the join is committed", func() error {
		if x := u.joinToken(t, others[0], token.ID); x.Uses != 1 {
			return fmt.Errorf("%+v", x)
		}
		return nil
	})
	leader.kill()
	g.cut()
	if a := <-lost; a.err == nil {
		t.Errorf("the answer came through: %v", a)
	}
	var retry client.JoinResponse
	eventually(t, formed, "the join succeeds when it is repeated", func() error {
		a := u.do(others[1], "POST", "/api/v1/cluster/join", gone.body(t, token.Token))
		if a.status != 200 {
			return fmt.Errorf("%v", a)
		}
		retry = admitted(t, "the repeated join", a)
		return nil
	})
	c.secret("a node identity", retry.NodeJWT)
	use := u.joinToken(t, others[0], token.ID)
	if len(use.UsedBy) != 1 || use.UsedBy[0].NodeID != retry.RaftNodeID {
		t.Errorf("the machine became node %d before the leader died and is node %d: %+v", use.UsedBy[0].NodeID,
			retry.RaftNodeID, use)
	}
	gone.unseal(t, retry)
	leader.start(t)
	leader.awaitReady(t)
	again := gone.enter(t, u, leader, token.Token)
	if again.NodeID != retry.NodeID || again.OverlayIP != retry.OverlayIP {
		t.Errorf("through the old leader: %+v, want %+v", again, retry)
	}
	next := newMachine(t).enter(t, u, c.members[0], u.create(t, c.members[0], `{}`).Token)
	if next.RaftNodeID <= retry.RaftNodeID {
		t.Errorf("after a restart of the leader the next machine is node %d, the one before it was %d", next.RaftNodeID,
			retry.RaftNodeID)
	}
	c.awaitVoters(t)
}

// testLegacyJoiner: a machine without a key gets what needs no key, and nothing that says null.
func testLegacyJoiner(t *testing.T, c *cluster) {
	u := c.admin(t)
	for _, format := range []string{"muster", "zlayer"} {
		token := u.create(t, c.members[0], `{"maxUses":3,"format":"`+format+`"}`)
		for i, key := range []any{nil, json.RawMessage("null")} {
			a := u.do(c.members[i], "POST", "/api/v1/cluster/join", joinBody(t, token.Token, "secrets_pubkey", key))
			r := admitted(t, "a join without a key", a)
			var fields map[string]json.RawMessage
			if err := json.Unmarshal([]byte(a.body), &fields); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"node_jwt", "wrapped_dek", "dek_generation", "http_cert", "http_ca", "transport_cert",
				"transport_ca"} {
				if _, there := fields[name]; there {
					t.Errorf("without a key the answer has %s: %s", name, a.body)
				}
			}
			if strings.Contains(a.body, "null") || len(r.JoinSecret) != 64 || len(r.Peers) == 0 {
				t.Errorf("without a key the answer is %s", a.body)
			}
		}
	}
}

// testNodeIdentity: the identity verifies with nothing but the published keys, lets the node read, and renews itself.
func testNodeIdentity(t *testing.T, c *cluster) {
	u := c.admin(t)
	r := newMachine(t).enter(t, u, c.members[1], u.create(t, c.members[0], `{"mode":"replicate"}`).Token)
	for _, m := range c.members {
		a := c.nobody(t).do(m, "GET", "/.well-known/jwks.json", "")
		var set jose.JSONWebKeySet
		if err := json.Unmarshal([]byte(a.body), &set); err != nil || a.status != 200 || len(set.Keys) != 1 ||
			!set.Keys[0].IsPublic() || strings.Contains(a.body, `"d":`) {
			t.Fatalf("the keys of node %d: %v", m.n, a)
		}
		token, err := jwt.ParseSigned(r.NodeJWT, []jose.SignatureAlgorithm{jose.EdDSA})
		if err != nil {
			t.Fatal(err)
		}
		var claims certs.NodeClaims
		if err := token.Claims(set, &claims); err != nil || claims.NodeID != r.NodeID || claims.RaftNodeID != r.RaftNodeID ||
			claims.Subject != "node:"+r.NodeID ||
			claims.Issuer != "muster:"+c.id || claims.Expiry.Time().Sub(claims.IssuedAt.Time()) != 24*time.Hour ||
			len(claims.Roles) != 1 || claims.Roles[0] != "node" {
			t.Errorf("the identity says %+v, %v", claims, err)
		}
	}
	node := c.as(t, r.NodeJWT)
	bearer := "X-ZLayer-Internal-Token: " + certs.InternalBearer(r.JoinSecret)
	for _, m := range c.members {
		if list := node.members(t, m); len(list) < 4 {
			t.Errorf("the node sees %d members", len(list))
		}
		if a := c.nobody(t).do(m, "GET", "/api/v1/cluster/members", "", bearer); a.status != 200 {
			t.Errorf("with the internal bearer, on node %d: %v", m.n, a)
		}
	}
	for _, x := range [][2]string{{"POST", "/api/v1/cluster/join-tokens"}, {"GET", "/api/v1/cluster/secrets"},
		{"POST", "/api/v1/cluster/keys/rotate"}, {"GET", "/api/v1/api-tokens"}} {
		for _, a := range []answer{node.do(c.members[0], x[0], x[1], ""),
			c.nobody(t).do(c.members[0], x[0], x[1], "", bearer)} {
			a.expect(t, x[0]+" "+x[1]+" as a node", 403, `{"error":"Forbidden"}`)
		}
	}
	fresh := get[client.NodeToken](t, node, c.members[2], "POST", "/api/v1/cluster/node-token", "")
	c.secret("a node identity", fresh.NodeJWT)
	if left := time.Until(fresh.ExpiresAt); left < 23*time.Hour || left > 25*time.Hour {
		t.Errorf("renewed until %v", fresh.ExpiresAt)
	}
	c.as(t, fresh.NodeJWT).members(t, c.members[0])
	u.do(c.members[0], "POST", "/api/v1/cluster/node-token", "").expect(t, "renewal with an API token", 403,
		`{"error":"only a node can renew its identity, with its present identity"}`)
	c.nobody(t).do(c.members[0], "POST", "/api/v1/cluster/node-token", "", bearer).expect(t, "renewal with the bearer",
		403, `{"error":"only a node can renew its identity, with its present identity"}`)

	parts := strings.Split(r.NodeJWT, ".")
	_, stranger, _ := ed25519.GenerateKey(nil)
	forged, err := certs.MintNodeJWT(stranger, certs.KeyID(stranger.Public().(ed25519.PublicKey)), c.id, r.NodeID,
		r.RaftNodeID, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + parts[1] + "."
	for what, token := range map[string]string{"a stranger's": forged, "alg none": none, "tampered": parts[0] + "." +
		parts[1] + "." + strings.Repeat("A", len(parts[2])), "no signature": parts[0] + "." + parts[1] + "."} {
		c.as(t, token).do(c.members[0], "GET", "/api/v1/cluster/members", "").expect(t, "an identity that is "+what, 401,
			`{"error":"Invalid token"}`)
	}
	for _, bad := range []string{strings.Repeat("0", 64), r.JoinSecret, certs.InternalBearer(r.JoinSecret + "x"), "x"} {
		c.nobody(t).do(c.members[0], "GET", "/api/v1/cluster/members", "", "X-ZLayer-Internal-Token: "+bad).expect(t,
			"a wrong internal bearer", 401, `{"error":"Invalid token"}`)
	}
}

// TestSmallOverlay: a CIDR with room for six. The seventh is told so and leaves no trace; a place that was given back
// is not given to the next at once.
func TestSmallOverlay(t *testing.T) {
	t.Parallel()
	clusters <- struct{}{}
	t.Cleanup(func() { <-clusters })
	c := &cluster{t: t, root: t.TempDir(), secrets: map[string]string{}}
	t.Cleanup(c.end)
	m := c.add()
	m.args = append(m.args, "--overlay-cidr", "10.9.0.0/29", "--overlay-slice", "32")
	m.start(t)
	m.awaitReady(t)
	c.adopt(t)
	u := c.admin(t)
	token := u.create(t, m, `{"maxUses":100,"mode":"replicate"}`)
	bodies := make([]string, 12)
	for i := range bodies {
		bodies[i] = joinBody(t, token.Token)
	}
	full := `{"error":"internal_error","message":"Internal error: No available overlay IPs in CIDR range"}`
	in := map[string]bool{}
	var last uint64
	for _, a := range atOnce(len(bodies), func(i int) answer {
		return u.do(m, "POST", "/api/v1/cluster/join", bodies[i])
	}) {
		if a.status != 200 {
			a.expect(t, "a join when the CIDR is full", 500, full)
			continue
		}
		p := placeOf(t, a)
		last = max(last, p.id)
		if in[p.ip] || in[p.slice] || !strings.HasPrefix(p.ip, "10.9.0.") || !strings.HasSuffix(p.slice, "/32") {
			t.Errorf("%+v, others have %v", p, in)
		}
		in[p.ip], in[p.slice] = true, true
	}
	if len(in) != 10 || last != 6 {
		t.Errorf("a CIDR with room for six has taken 1 and %d; the last is node %d", len(in)/2, last)
	}
	unchanged(t, c, func(u *user) {
		dump := func() string {
			awaitCopies(t, c, c.members...)
			return sqlite(t, m.db(),
				"SELECT * FROM sequences; SELECT * FROM overlay_allocations; SELECT * FROM join_token_uses; SELECT raft_node_id, "+
					"generation FROM dek_wraps; SELECT count(*) FROM certificates; SELECT count(*) FROM audit WHERE action = "+
					"'member.join'")
		}
		before := dump()
		for _, body := range bodies {
			if a := u.do(m, "POST", "/api/v1/cluster/join", body); a.status != 200 {
				a.expect(t, "a join when the CIDR is full", 500, full)
			}
		}
		if after := dump(); strings.ReplaceAll(after, "\n", " ") != strings.ReplaceAll(before, "\n", " ") {
			t.Errorf("joins that were refused have left something:\n%s\n\n%s", before, after)
		}
	})
	u.do(m, "DELETE", "/api/v1/cluster/members/4?force=true", "").expect(t, "removal", 200,
		`{"result":{"message":"Cluster member removed"}}`)
	newMachine(t).refused(t, u, m, u.create(t, m, `{}`).Token, 500,
		"Internal error: No available overlay IPs in CIDR range")
	// After a restart of the leader it is as before.
	m.kill()
	m.start(t)
	m.awaitReady(t)
	newMachine(t).refused(t, u, m, u.create(t, m, `{}`).Token, 500,
		"Internal error: No available overlay IPs in CIDR range")
	if list := u.members(t, m); len(list) != 5 {
		t.Errorf("%d members", len(list))
	}
}

// testSignedOnce: 200 machines with one single-use signed token at the same moment.
func testSignedOnce(t *testing.T, c *cluster) {
	u := c.admin(t)
	before := len(u.members(t, c.members[0]))
	token := u.create(t, c.members[0], `{"format":"zlayer"}`)
	bodies := make([]string, 200)
	for i := range bodies {
		bodies[i] = joinBody(t, token.Token)
	}
	in := 0
	for _, a := range atOnce(200, func(i int) answer {
		return u.patiently(c.members[i%3], "POST", "/api/v1/cluster/join", bodies[i])
	}) {
		if a.status == 200 {
			in++
			continue
		}
		a.expect(t, "one of 200 joins", 401,
			`{"error":"unauthorized","message":"Unauthorized: Join token already used (replay)"}`)
	}
	if after := len(u.members(t, c.members[0])); in != 1 || after != before+1 {
		t.Errorf("%d of 200 machines got in with a single-use token, %d more members", in, after-before)
	}
	checkOverlay(t, u, c)
}

func hexOf(b []byte) string { return hex.EncodeToString(b) }
