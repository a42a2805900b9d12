package e2e

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster/certs"
	"muster/client"
	"muster/store"
)

// testRemoval: what a removed member knew is worth nothing, and the others lose nothing.
func testRemoval(t *testing.T, c *cluster) {
	u := c.admin(t)
	leader := c.leader(t)
	stays, goes := newMachine(t), newMachine(t)
	stayToken, goToken := u.create(t, leader, `{}`), u.create(t, leader, `{}`)
	stay, gone := stays.enter(t, u, leader, stayToken.Token), goes.enter(t, u, leader, goToken.Token)
	unused := u.create(t, leader, `{}`).Token
	unusedSigned := u.create(t, leader, `{"format":"zlayer"}`).Token
	u.put(t, leader, "survives", "a value that survives removals")
	names := get[[]struct{ Name string }](t, u, leader, "GET", "/api/v1/cluster/secrets", "")
	values := map[string]string{}
	for i, x := range names {
		if i%200 == 0 || x.Name == "survives" || x.Name == "db.password" {
			v, err := u.value(leader, x.Name)
			if err != nil {
				t.Fatal(err)
			}
			values[x.Name] = v
		}
	}
	before := u.awaitRetired(t, leader)
	oldBearer := certs.InternalBearer(gone.JoinSecret)

	begin := time.Now()
	stage := func(what string) { t.Logf("%s after %v", what, time.Since(begin).Round(10*time.Millisecond)) }
	// A machine that is no Raft server.
	u.do(leader, "DELETE", fmt.Sprintf("/api/v1/cluster/members/%d?force=true", gone.RaftNodeID), "").expect(t, "removal",
		200, `{"result":{"message":"Cluster member removed"}}`)
	for _, m := range c.members { // at once, on every member
		c.as(t, gone.NodeJWT).do(m, "GET", "/api/v1/cluster/members", "").expect(t, "the identity of the removed", 401,
			`{"error":"Invalid token"}`)
		c.as(t, gone.NodeJWT).do(m, "POST", "/api/v1/cluster/node-token", "").expect(t, "renewal by the removed", 401,
			`{"error":"Invalid token"}`)
		c.nobody(t).do(m, "GET", "/api/v1/cluster/members", "", "X-ZLayer-Internal-Token: "+oldBearer).expect(t,
			"the bearer of before", 401, `{"error":"Invalid token"}`)
		goes.refused(t, u, m, u.create(t, m, `{}`).Token, 403,
			"Forbidden: this node was removed from the cluster and its key is refused; …")
		newMachine(t).refused(t, u, m, unused, 401, "Unauthorized: …")
		newMachine(t).refused(t, u, m, unusedSigned, 401, "Unauthorized: …")
		if a := u.do(m, "POST", "/api/v1/cluster/join", goes.body(t, goToken.Token)); a.status != 403 && a.status != 401 {
			t.Errorf("the removed machine with its old token: %v", a)
		}
	}
	after := u.newest(t, leader)
	if after.Generation != before.Generation+1 || after.Reason != fmt.Sprintf("node %d removed", gone.RaftNodeID) ||
		after.Holders != before.Holders-1 {
		t.Errorf("the generation was %+v and is %+v", before, after)
	}
	u.awaitRetired(t, leader)
	again := stays.enter(t, u, leader, u.create(t, leader, `{}`).Token)
	if again.NodeID != stay.NodeID || again.DEKGeneration != after.Generation || again.JoinSecret == stay.JoinSecret ||
		stays.unseal(t, again) == stays.unseal(t, stay) {
		t.Errorf("who stayed gets generation %d, the same secret: %v", again.DEKGeneration,
			again.JoinSecret == stay.JoinSecret)
	}
	for _, m := range c.members {
		c.as(t, again.NodeJWT).members(t, m)
		if a := c.nobody(t).do(m, "GET", "/api/v1/cluster/members", "", "X-ZLayer-Internal-Token: "+
			certs.InternalBearer(again.JoinSecret)); a.status != 200 {
			t.Errorf("the bearer of now: %v", a)
		}
	}

	stage("the machine is gone")
	// A real member, with all that it had on its disk.
	victim := c.others(leader)[1]
	loot := *victim
	loot.dir = filepath.Join(t.TempDir(), "loot")
	awaitCopies(t, c, victim) // one that shows the last re-encryption done: nothing is sealed under an older generation
	if out, err := exec.Command("cp", "-r", victim.dir, loot.dir).CombinedOutput(); err != nil {
		t.Logf("cp: %v: %.200s", err, out) // the mirror may be replaced under it
	}
	lootGeneration := parse(t, sqlite(t, loot.db(), "SELECT generation FROM dek_generations WHERE state = 'active'"))
	lootDEK, err := ageOpens(t, loot.db(), loot.file("node.key"), lootGeneration, uint64(victim.n))
	if err != nil {
		t.Fatal(err)
	}
	if out := (command{limit: 20 * time.Second}).run(t, "member", "remove", fmt.Sprint(victim.n), "--force", "--yes",
		"--data", c.members[0].dir, "--addr", leader.api); out.code != 0 {
		t.Fatalf("member remove: %+v", out)
	}
	left := c.others(victim)
	c.members = left
	if code, err := victim.exit(10 * time.Second); err != nil || code != 1 {
		t.Errorf("the member that was removed: exit status %d, %v", code, err)
		victim.kill()
	}
	newest := u.awaitRetired(t, leader)
	if newest.Generation != after.Generation+1 {
		t.Errorf("after the removal of node %d the generation is %+v", victim.n, newest)
	}
	stage("the member is gone")
	survivorsLead(t, c, u, values)
	awaitCopies(t, c, c.members...)
	for _, m := range left {
		if got := sqlite(t, m.db(),
			fmt.Sprintf("SELECT count(*) FROM dek_wraps WHERE raft_node_id IN (%d, %d) OR generation <> %d", victim.n,
				gone.RaftNodeID, newest.Generation)); got != "0" {
			t.Errorf("the mirror of node %d has %s wraps too many", m.n, got)
		}
		if dek, err := ageOpens(t, m.db(), m.file("node.key"), newest.Generation, uint64(m.n)); err != nil || dek == lootDEK {
			t.Errorf("node %d: %v; the key that the removed member had: %v", m.n, err, dek == lootDEK)
		}
	}
	stage("the survivors have led")
	t.Run("with stolen keys", func(t *testing.T) { testStolenKeys(t, c, &loot, lootDEK, again) })
}

// survivorsLead: each survivor leads with its own wrap and without a restart.
func survivorsLead(t *testing.T, c *cluster, u *user, values map[string]string) {
	t.Helper()
	for _, m := range c.members {
		u.lead(t, m)
		for name, want := range values {
			if got, err := u.value(m, name); err != nil || got != want {
				t.Errorf("node %d leads: %s is %q, %v", m.n, name, got, err)
			}
		}
		u.put(t, m, fmt.Sprintf("by-%d", m.n), fmt.Sprintf("written while node %d leads", m.n))
	}
}

// testStolenKeys: a removed member kept its disk. With it, it can read the join keys of before, the tokens' ids and
// everybody's public keys; that must not make it anybody.
func testStolenKeys(t *testing.T, c *cluster, loot *member, dek certs.DEK, now client.JoinResponse) {
	u := c.admin(t)
	m := c.leader(t)
	open := func(purpose string) (key []byte, kid string) {
		row := strings.Split(sqlite(t, loot.db(), `SELECT epoch, kid FROM cluster_keys WHERE purpose = '`+purpose+
			`' AND state = 'active'`), "|")
		name := store.KeySecret(purpose, parse(t, row[0]))
		sealed := strings.Split(sqlite(t, loot.db(), "SELECT hex(sealed), dek_generation FROM sealed_secrets WHERE name = '"+
			name+"'"), "|")
		key, err := dek.Open(name, parse(t, sealed[1]), unhex(t, sealed[0]))
		if err != nil {
			t.Fatalf("the thief cannot open %s, and this test proves nothing: %v", name, err)
		}
		return key, row[1]
	}
	key, _ := open(store.KeyJoinHMAC)
	// Whoever came last with a token of muster's own format that is still running.
	victim := strings.Split(sqlite(t, loot.db(),
		`SELECT u.token_id, u.raft_node_id, m.recipient FROM join_token_uses u JOIN join_tokens t ON t.id = u.token_id
		JOIN members m USING (raft_node_id) WHERE t.format = 'muster' AND m.recipient IS NOT NULL AND t.raft_node_id IS NULL
		ORDER BY t.created_at DESC, t.id DESC LIMIT 1`), "|")
	pub, err := certs.PublicKey(victim[2])
	if err != nil {
		t.Fatal(err)
	}
	var numbers []int
	for _, b := range pub {
		numbers = append(numbers, int(b))
	}
	claims := certs.JoinClaims{
		ID:            victim[0],
		IssuedAt:      time.Now().Add(-time.Minute).Unix(),
		ExpiresAt:     time.Now().Add(time.Hour).Unix(),
		ClusterID:     c.id,
		LCP:           "sha256:" + strings.Repeat("ab", 32),
		CAFingerprint: "sha256:" + strings.Repeat("ab", 32),
		Addresses:     []string{m.api},
	}
	token, err := certs.MintJoinToken(key, claims)
	if err != nil {
		t.Fatal(err)
	}
	own, err := certs.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := certs.NewCSR(own, "thief")
	if err != nil {
		t.Fatal(err)
	}
	a := c.nobody(t).do(m, "POST", "/api/v1/cluster/join",
		joinBody(t, token, "secrets_pubkey", numbers, "advertise_addr", "10.66.66.66", "transport_csr", csr))
	var r client.JoinResponse
	_ = json.Unmarshal([]byte(a.body), &r)
	if a.status == 200 {
		t.Errorf("with the retired join key of a removed member anybody becomes node %d: it gets the join secret of now "+
			"(%v), an identity for the API (%v) and a certificate for the cluster listener (%v)",
			r.RaftNodeID, r.JoinSecret != "" && r.JoinSecret == now.JoinSecret || len(r.JoinSecret) == 64, r.NodeJWT != "",
			strings.Contains(r.TransportCert, "BEGIN CERTIFICATE"))
		for _, x := range u.members(t, m) {
			if x.NodeID == r.RaftNodeID {
				t.Errorf("and the member is now at %s", x.RaftAddress)
			}
		}
	} else if a.status != 401 {
		t.Errorf("a token made with a stolen key: %v", a)
	}
	// Its identities: a node's token made with the key of before.
	seed, kid := open(store.KeyJWT)
	forged, err := certs.MintNodeJWT(ed25519.NewKeyFromSeed(seed), kid, c.id, now.NodeID, now.RaftNodeID, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c.as(t, forged).do(m, "GET", "/api/v1/cluster/members", "").expect(t, "an identity made with a stolen key", 401,
		`{"error":"Invalid token"}`)
}

func parse(t *testing.T, text string) (n uint64) {
	t.Helper()
	if _, err := fmt.Sscan(text, &n); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return n
}
