package e2e

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"muster/certs"
	"muster/client"
)

// testTokenBindings: each thing that a token can be bound to lets the right machine in and no other, and a refusal uses
// nothing up.
func testTokenBindings(t *testing.T, c *cluster) {
	u := c.admin(t)
	j, other := newMachine(t), newMachine(t)
	sum := sha256.Sum256(j.pub[:])
	leader := c.leader(t)
	follower := c.others(leader)[0]
	type try struct {
		who    *machine // nil: no key
		change []any
		ok     bool
	}
	for _, x := range []struct {
		name, token string
		refusal     string
		tries       []try
	}{
		{"cidr", fmt.Sprintf(`{"bindCidr":"%s/32"}`, u.from), "", []try{{j, nil, true}}},
		{"another cidr", `{"bindCidr":"10.0.0.0/8"}`, "the token is for machines in 10.0.0.0/8 only", []try{{j, nil, false}}},
		{"the members' own address", `{"bindCidr":"127.0.0.1/32"}`, "the token is for machines in 127.0.0.1/32 only",
			[]try{{j, nil, false}}},
		{"IPv6", `{"bindCidr":"fd00::/8"}`, "the token is for machines in fd00::/8 only", []try{{j, nil, false}}},
		{"name pattern", `{"bindName":"web-?*"}`, "the token is for machines named web-?* only",
			[]try{{other, []any{"name", "db-1"}, false}, {other, []any{"name", "web-"}, false}, {other, nil, false},
				{other, []any{"name", "web-1"}, true}}},
		{"key hash", fmt.Sprintf(`{"bindKey":"%x"}`, sum), "the token is bound to another public key",
			[]try{{other, nil, false}, {nil, nil, false}, {j, nil, true}}},
	} {
		for _, format := range []string{"muster", "zlayer"} {
			body := strings.Replace(x.token, "{", `{"format":"`+format+`",`, 1)
			token := u.create(t, c.members[0], body)
			if token.Format != format {
				t.Errorf("%s: the format of the new token is %q", x.name, token.Format)
			}
			used := 0
			for i, y := range x.tries {
				change := append([]any{"secrets_pubkey", nil}, y.change...)
				if y.who != nil {
					change[1] = y.who.public
				}
				m := leader
				if i%2 == 0 {
					m = follower
				}
				a := u.do(m, "POST", "/api/v1/cluster/join", joinBody(t, token.Token, change...))
				if y.ok {
					admitted(t, x.name+" "+format, a)
					used++
				} else {
					a.expect(t, x.name+" "+format, 401,
						fmt.Sprintf(`{"error":"unauthorized","message":"Unauthorized: %s"}`, x.refusal))
				}
				if got := u.joinToken(t, m, token.ID); got.Uses != used || len(got.UsedBy) != used {
					t.Errorf("%s %s: after try %d the token is %+v", x.name, format, i+1, got)
				}
			}
		}
	}

	sharedToken(t, c, u, leader, follower)
	refusedBindings(t, c, follower)
}

// sharedToken: mode and labels are the operator's word, and a token for three machines lets three in.
func sharedToken(t *testing.T, c *cluster, u *user, leader, follower *member) {
	t.Helper()
	token := u.create(t, leader, `{"maxUses":3,"mode":"replicate","labels":{"rack":"b","zone":"x"}}`)
	var ids []uint64
	for i := range 3 {
		r := newMachine(t).enter(t, u, c.members[i], token.Token, "mode", "full", "labels",
			map[string]string{"rack": "a", "disk": "ssd"})
		ids = append(ids, r.RaftNodeID)
	}
	newMachine(t).refused(t, u, follower, token.Token, 401, "Unauthorized: Join token already used (replay)")
	for _, x := range u.members(t, leader) {
		for _, id := range ids {
			if x.NodeID == id && (x.Mode != "replicate" || x.Labels["rack"] != "b" || x.Labels["zone"] != "x" ||
				x.Labels["disk"] != "ssd") {
				t.Errorf("member %d: mode %s, labels %v", id, x.Mode, x.Labels)
			}
		}
	}
	got := u.joinToken(t, follower, token.ID)
	if got.State != "used" || got.Uses != 3 || len(got.UsedBy) != 3 || got.Labels["rack"] != "b" ||
		got.Mode != "replicate" || got.Format != "muster" {
		t.Errorf("the token is listed as %+v", got)
	}
	for i, use := range got.UsedBy {
		if use.NodeID != ids[i] || use.Remote != u.from.String() || time.Since(use.UsedAt) > time.Minute {
			t.Errorf("use %d is %+v", i, use)
		}
	}
	if list := u.do(leader, "GET", "/api/v1/cluster/join-tokens", ""); strings.Contains(list.body, token.Token) {
		t.Error("the list shows the token itself")
	}
}

// refusedBindings: what a token cannot be bound to is refused, and the reason is said.
func refusedBindings(t *testing.T, c *cluster, follower *member) {
	t.Helper()
	unchanged(t, c, func(u *user) {
		for body, want := range map[string]string{
			`{"format":"jwt"}`:                                   "format must be muster or zlayer",
			`{"format":1}`:                                       "format must be a string",
			`{"bindCidr":""}`:                                    "bindCidr must be a string of 1 to 64 bytes",
			`{"bindKey":""}`:                                     "bindKey must be a string of 1 to 64 bytes",
			`{"bindCidr":"10.0.0.1/8"}`:                          "bindCidr must be a prefix such as 10.0.0.0/8",
			`{"bindCidr":"10.0.0.1"}`:                            "bindCidr must be a prefix such as 10.0.0.0/8",
			`{"bindCidr":["10.0.0.0/8"]}`:                        "bindCidr must be a string",
			`{"bindName":"["}`:                                   "bindName must be a pattern such as web-*",
			`{"bindName":"` + strings.Repeat("a", 129) + `"}`:    "bindName must be a string of 1 to 128 bytes",
			`{"bindKey":"abcd"}`:                                 "bindKey must be the SHA-256",
			`{"bindKey":"` + strings.Repeat("AB", 32) + `"}`:     "bindKey must be the SHA-256",
			`{"labels":{"":"x"}}`:                                "labels must have keys",
			`{"labels":["a"]}`:                                   "labels must be an object of strings",
			`{"nodeId":999,"maxUses":2}`:                         "maxUses must be 1 for a token with a nodeId",
			`{"maxUses":0}`:                                      "maxUses must be a whole number between 1",
			`{"ttlSeconds":0}`:                                   "ttlSeconds must be a whole number between 1",
			`{"mode":"learner"}`:                                 "mode must be full or replicate",
			`{"format":"zlayer","nodeId":1}`:                     "node 1 is already a member",
			`{"format":"zlayer","ttlSeconds":99999999999999999}`: "ttlSeconds must be a whole number",
		} {
			a := u.do(follower, "POST", "/api/v1/cluster/join-tokens", body)
			if a.envelope(t, body, "ella"); a.status != 400 && a.status != 409 || !strings.Contains(a.body, want) {
				t.Errorf("%s: %v, want %q", body, a, want)
			}
		}
	})
}

// refused tries a join that must not succeed.
func (j *machine) refused(t *testing.T, u *user, m *member, token string, status int, message string) {
	t.Helper()
	a := u.do(m, "POST", "/api/v1/cluster/join", j.body(t, token))
	var e struct{ Message string }
	_ = json.Unmarshal([]byte(a.body), &e)
	beginning, some := strings.CutSuffix(message, "…")
	if a.err != nil || a.status != status || e.Message != message && !(some && strings.HasPrefix(e.Message, beginning)) {
		t.Errorf("got %v, want %d %s", a, status, message)
	}
}

// testSignedTokens: the format that stock joiners read, and every way of spelling one differently.
func testSignedTokens(t *testing.T, c *cluster) {
	u := c.admin(t)
	leader := c.leader(t)
	token := u.create(t, leader, `{"format":"zlayer","maxUses":2}`)
	signed, err := certs.ParseSignedToken(token.Token)
	if err != nil {
		t.Fatal(err)
	}
	claims := signed.Claims()
	if claims.APIEndpoint != leader.api || claims.RaftEndpoint != leader.raft || claims.OverlayCIDR != "10.200.0.0/16" ||
		signed.ID() != token.ID ||
		signed.ExpiresAt().Unix() != token.ExpiresAt.Unix() || claims.Iss == "" {
		t.Errorf("the claims are %+v", claims)
	}
	raw, _ := base64.RawURLEncoding.DecodeString(token.Token)
	outer := strings.Replace(string(raw), `{"v":1,`, `{"v":1,"x":1,`, 1)
	reordered := `{"kid":"` + signed.KeyID() + `",` +
		strings.Replace(strings.TrimPrefix(string(raw), "{"), `"kid":"`+signed.KeyID()+`",`, "", 1)
	spaced := strings.Replace(string(raw), `,"claims"`, `, "claims"`, 1)
	extra := strings.Replace(string(raw), `"claims":{`, `"claims":{"x":1,`, 1)
	tampered := strings.Replace(string(raw), "10.200.0.0/16", "10.201.0.0/16", 1)
	later := strings.Replace(string(raw), claims.Exp, "2099-01-01T00:00:00+00:00", 1)
	unknown := strings.Replace(string(raw), signed.KeyID(), "00000000", 1)
	two := strings.Replace(string(raw), `"v":1`, `"v":2`, 1)
	three := strings.Replace(string(raw), `"v":1`, `"v":3`, 1)
	enc := base64.RawURLEncoding.EncodeToString
	// has characters of its own, or not: padded at least
	std := base64.StdEncoding.EncodeToString(append([]byte(spaced), ' '))
	list := []struct{ name, token, want string }{
		{"standard Base64", base64.StdEncoding.EncodeToString(raw) + strings.Repeat("=", 3-(len(raw)+2)%3),
			"Unauthorized: Invalid join token: malformed: …"},
		{"standard Base64 of another spelling", std, "Unauthorized: Invalid join token: malformed: …"},
		{"padded", token.Token + "=", "Unauthorized: Invalid join token: malformed: …"},
		{"an extra outer field", enc([]byte(outer)), "Unauthorized: Invalid join token: malformed: …"},
		{"reordered", enc([]byte(reordered)), "Unauthorized: Invalid join token: malformed: …"},
		{"white space", enc([]byte(spaced)), "Unauthorized: Invalid join token: malformed: …"},
		{"an extra claim", enc([]byte(extra)), "Unauthorized: Invalid join token: malformed: …"},
		{"tampered", enc([]byte(tampered)), "Unauthorized: Ed25519 signature verification failed"},
		{"made to last longer", enc([]byte(later)), "Unauthorized: Ed25519 signature verification failed"},
		{"unknown kid", enc([]byte(unknown)),
			"Unauthorized: signed token kid=00000000 not trusted (unknown kid, expired grace, or never issued)"},
		{"version 2", enc([]byte(two)), "…"},
		{"version 3", enc([]byte(three)), "Unauthorized: unsupported signed token version: got v=3, expected v=1 or v=2"},
		{"truncated", token.Token[:len(token.Token)-40], "Unauthorized: Invalid join token: malformed: …"},
	}
	for _, x := range list {
		newMachine(t).refused(t, u, c.members[0], x.token, 401, x.want)
	}
	j := newMachine(t)
	first := j.enter(t, u, c.members[1], token.Token)
	if again := j.enter(t, u, c.members[2], " "+token.Token+"\n"); again.NodeID != first.NodeID ||
		again.RaftNodeID != first.RaftNodeID {
		t.Errorf("the same again: %+v", again)
	}
	u.do(c.members[1], "DELETE", "/api/v1/cluster/join-tokens/"+token.ID, "").expect(t, "revoking", 200,
		`{"result":{"message":"Join token revoked"}}`)
	newMachine(t).refused(t, u, c.members[0], token.Token, 401, "Unauthorized: token revoked")
	for _, x := range list[:7] { // another spelling does not bring it back
		newMachine(t).refused(t, u, c.members[2], x.token, 401, "Unauthorized: Invalid join token: malformed: …")
	}
}

// testTokenExpiry: a second before its end a token is good, a second after it is not.
func testTokenExpiry(t *testing.T, c *cluster) {
	u := c.admin(t)
	good := u.create(t, c.members[0], `{"maxUses":100}`)
	forge := newForger(t, c, good.Token)
	ends := func(in time.Duration) string {
		return forge.make(t, c, func(x *certs.JoinClaims) {
			x.ExpiresAt = time.Now().Add(in).Unix()
			x.IssuedAt = x.ExpiresAt - 600
		})
	}
	newMachine(t).enter(t, u, c.members[1], ends(time.Minute))
	newMachine(t).refused(t, u, c.members[1], ends(-2*time.Second), 401,
		"Unauthorized: Invalid join token: expired: it was good until …")
	early := forge.make(t, c, func(x *certs.JoinClaims) {
		x.IssuedAt = time.Now().Add(certs.JoinSkew + time.Minute).Unix()
	})
	newMachine(t).refused(t, u, c.members[1], early, 401, "Unauthorized: Invalid join token: not yet valid: …")
	newMachine(t).enter(t, u, c.members[1],
		forge.make(t, c, func(x *certs.JoinClaims) { x.IssuedAt = time.Now().Add(certs.JoinSkew - 5*time.Second).Unix() }))

	token := u.create(t, c.members[0], `{"format":"zlayer","ttlSeconds":5,"maxUses":1000}`)
	accepted := 0
	for refused := 0; refused < 3; time.Sleep(100 * time.Millisecond) {
		body := newMachine(t).body(t, token.Token)
		before := time.Now()
		a := u.do(c.members[accepted%3], "POST", "/api/v1/cluster/join", body)
		after := time.Now()
		switch {
		case a.status == 200 && !before.Before(token.ExpiresAt):
			t.Fatalf("accepted %v after its end", before.Sub(token.ExpiresAt))
		case a.status == 200:
			accepted++
		case a.status == 401 &&
			strings.Contains(a.body, "Unauthorized: signed token expired at "+certs.SignedTime(token.ExpiresAt)+" (now "):
			if refused++; after.Before(token.ExpiresAt) {
				t.Fatalf("refused %v before its end: %v", token.ExpiresAt.Sub(after), a)
			}
		default:
			t.Fatal(a)
		}
	}
	if x := u.joinToken(t, c.members[0], token.ID); accepted == 0 || x.Uses != accepted || x.State != "expired" {
		t.Errorf("accepted %d times; the token is %+v", accepted, x)
	}
}

// testJoinKeysRotated: tokens of before are good during the grace and not after it; a machine that came with one is
// recognised all the same.
func testJoinKeysRotated(t *testing.T, c *cluster) {
	u := c.admin(t)
	for i, format := range []string{"muster", "zlayer"} {
		old := u.create(t, c.members[0], `{"maxUses":10,"format":"`+format+`"}`).Token
		j := newMachine(t)
		first := j.enter(t, u, c.members[0], old)
		out := muster(t, "join-keys", "rotate", "--data", c.members[0].dir, "--grace", "1h", "-o", "json")
		var keys client.JoinKeys
		if err := json.Unmarshal([]byte(out.stdout), &keys); err != nil || out.code != 0 || len(keys.KIDs) != 2 ||
			time.Until(keys.GraceUntil) < 50*time.Minute {
			t.Fatalf("join-keys rotate: %+v, %v", out, err)
		}
		young := newMachine(t).enter(t, u, c.members[1], old)
		if !strings.Contains(strings.Join(young.Warnings, "\n"), "a key that has been rotated since") {
			t.Errorf("%s: the warnings are %q", format, young.Warnings)
		}
		if fresh := newMachine(t).enter(t, u, c.members[1],
			u.create(t, c.members[2], `{"format":"`+format+`"}`).Token); strings.Contains(strings.Join(fresh.Warnings, "\n"),
			"rotated") {
			t.Errorf("%s: the warnings with a new token are %q", format, fresh.Warnings)
		}
		if a := u.do(c.members[2], "POST", "/api/v1/cluster/join-keys/rotate", `{"graceSeconds":0}`); a.status != 200 {
			t.Fatal(a)
		}
		// The grace of the key before last goes on; that of the last one is over at once.
		newMachine(t).enter(t, u, c.members[1], old)
		for m, x := range c.members {
			if again := j.enter(t, u, x, old); again.NodeID != first.NodeID || again.RaftNodeID != first.RaftNodeID ||
				again.OverlayIP != first.OverlayIP || again.SliceCIDR != first.SliceCIDR {
				t.Errorf("%s: after the rotations the same machine gets %+v from node %d, it had %+v", format, again, m+1, first)
			}
		}
		short := u.create(t, c.members[0], `{"maxUses":10,"format":"`+format+`"}`).Token
		first = j.enter(t, u, c.members[0], short)
		if a := u.do(c.members[i], "POST", "/api/v1/cluster/join-keys/rotate", `{"graceSeconds":0}`); a.status != 200 {
			t.Fatal(a)
		}
		newMachine(t).refused(t, u, c.members[1], short, 401, "Unauthorized: …")
		if again := j.enter(t, u, c.members[2], short); again.NodeID != first.NodeID || again.RaftNodeID != first.RaftNodeID {
			t.Errorf("%s: when the grace is over the same machine gets %+v, it had %+v", format, again, first)
		}
	}
	unchanged(t, c, func(u *user) {
		for _, body := range []string{`{"graceSeconds":-1}`, `{"graceSeconds":7776001}`, `{"graceSeconds":"7d"}`,
			`{"graceSeconds":1.5}`, `[]`, `{`, `"x"`} {
			a := u.do(c.members[0], "POST", "/api/v1/cluster/join-keys/rotate", body)
			if a.envelope(t, body, "ella"); a.status != 400 {
				t.Errorf("join-keys/rotate %s: %v", body, a)
			}
		}
	})
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
