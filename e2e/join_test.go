package e2e

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"muster/certs"
	"muster/client"
	"muster/store"
)

// TestJoin: machines join with tokens, one or many at once.
func TestJoin(t *testing.T) {
	t.Parallel()
	onThree(t,
		part{"the answer", testJoinAnswer},
		part{"bad tokens", testBadJoinTokens},
		part{"one token, many machines", testOneTokenManyMachines},
		part{"many joins", testManyJoins},
		part{"as another", testJoinAsAnother},
	)
}

// newKey makes an X25519 key pair; the public half as the join has it on the wire.
func newKey(t *testing.T) (public []int, private [32]byte) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range key.PublicKey().Bytes() {
		public = append(public, int(b))
	}
	return public, [32]byte(key.Bytes())
}

// testJoinAnswer: the documented answer, with and without a key, and the same one when it is asked for again.
func testJoinAnswer(t *testing.T, c *cluster) {
	u := c.admin(t)
	token := u.create(t, c.members[0], `{"maxUses":2}`)
	public, private := newKey(t)
	body := joinBody(t, token.Token, "secrets_pubkey", public, "labels", map[string]string{"rack": "a"})
	first := u.do(c.members[1], "POST", "/api/v1/cluster/join", body)
	var got client.JoinResponse
	if err := json.Unmarshal([]byte(first.body), &got); first.status != 200 || err != nil {
		t.Fatalf("join: %v", first)
	}
	order := []string{"node_id", "raft_node_id", "overlay_ip", "slice_cidr", "peers", "role", "wrapped_dek",
		"dek_generation", "join_secret"}
	at := 0
	for _, name := range order {
		i := strings.Index(first.body[at:], `"`+name+`":`)
		if i < 0 {
			t.Fatalf("the answer lacks %s, or not in the documented order: %s", name, first.body)
		}
		if name != "peers" {
			at += i
		} else {
			at = strings.Index(first.body, `],"role":`)
		}
	}
	if strings.Contains(first.body, "null") || len(got.WrappedDEK) != 80 || got.DEKGeneration != 1 ||
		got.Role != "learner" || len(got.JoinSecret) != 64 || got.RaftNodeID < 2 {
		t.Errorf("the answer is %s", first.body)
	}
	c.secret("the join secret", got.JoinSecret)
	sealed := make([]byte, len(got.WrappedDEK))
	for i, n := range got.WrappedDEK {
		sealed[i] = byte(n)
	}
	if dek, err := certs.OpenBox(sealed, private); err != nil || certs.DEK(dek) != c.members[0].dek(t) {
		t.Errorf("wrapped_dek does not open to the key that age finds: %v", err)
	}
	ids := map[uint64]bool{}
	for _, p := range got.Peers {
		ids[p.RaftNodeID] = true
		if p.NodeID == "" || p.AdvertiseAddr == "" || p.OverlayIP == "" || p.RaftNodeID == got.RaftNodeID {
			t.Errorf("peer %+v", p)
		}
	}
	if !ids[1] || !ids[2] || !ids[3] || !strings.Contains(first.body, `"wg_public_key":""`) {
		t.Errorf("the peers are %+v", got.Peers)
	}
	for _, m := range c.members { // whatever is asked again gets the same identity and uses nothing up
		var again client.JoinResponse
		a := u.do(m, "POST", "/api/v1/cluster/join", body)
		if err := json.Unmarshal([]byte(a.body), &again); err != nil || again.NodeID != got.NodeID ||
			again.RaftNodeID != got.RaftNodeID ||
			again.OverlayIP != got.OverlayIP || again.SliceCIDR != got.SliceCIDR {
			t.Errorf("the same join on node %d: %v, first %s", m.n, a, first.body)
		}
	}
	if x := u.joinToken(t, c.members[0], token.ID); x.Uses != 1 {
		t.Errorf("the token has %d uses after one join and its repetitions", x.Uses)
	}
	plain := u.do(c.members[2], "POST", "/api/v1/cluster/join", joinBody(t, token.Token, "secrets_pubkey", nil))
	if plain.status != 200 || strings.Contains(plain.body, "wrapped_dek") ||
		strings.Contains(plain.body, "dek_generation") || strings.Contains(plain.body, "null") ||
		!strings.Contains(plain.body, `"join_secret":"`) {
		t.Errorf("a join without a key: %v", plain)
	}
	if x := u.joinToken(t, c.members[0], token.ID); x.Uses != 2 || x.State != "used" {
		t.Errorf("the token is %+v", x)
	}
	for _, x := range u.members(t, c.members[0]) {
		if x.NodeID == got.RaftNodeID &&
			(x.ID != got.NodeID || x.Suffrage != "nonvoter" || x.Labels["rack"] != "a" || x.Mode != "replicate") {
			t.Errorf("the new member in the list: %+v", x)
		}
	}
}

// forger makes tokens that only somebody with the cluster's join key can make.
type forger struct {
	key    []byte
	claims certs.JoinClaims
}

func newForger(t *testing.T, c *cluster, token string) forger {
	t.Helper()
	parsed, err := certs.ParseJoinToken(token)
	if err != nil {
		t.Fatal(err)
	}
	m, name := c.members[0], store.KeySecret(store.KeyJoinHMAC, 1)
	sealed := unhex(t, sqlite(t, m.db(), "SELECT hex(sealed) FROM sealed_secrets WHERE name = '"+name+"'"))
	key, err := m.dek(t).Open(name, 1, sealed)
	if err != nil {
		t.Fatal(err)
	}
	return forger{key, parsed.Claims()}
}

func (f forger) make(t *testing.T, c *cluster, change func(*certs.JoinClaims)) string {
	t.Helper()
	claims := f.claims
	change(&claims)
	text, err := certs.MintJoinToken(f.key, claims)
	if err != nil {
		t.Fatal(err)
	}
	c.secret("a join token", text)
	return text
}

// badToken is a token that must not let anybody in.
type badToken struct {
	name    string
	token   string
	message string // of the HTTP answer, after "Unauthorized: "; a beginning when it ends in "…"
	local   string // what `serve --join` says when it does not even ask the cluster
}

// badTokens makes one of each kind, once for a cluster.
func badTokens(t *testing.T, c *cluster) []badToken {
	t.Helper()
	if c.bad == nil {
		c.bad = makeBadTokens(t, c)
	}
	return c.bad
}

func makeBadTokens(t *testing.T, c *cluster) []badToken {
	u := c.admin(t)
	m := c.members[0]
	good := u.create(t, m, `{"nodeId":800}`).Token
	used := u.create(t, m, `{}`)
	if a := u.do(m, "POST", "/api/v1/cluster/join", joinBody(t, used.Token)); a.status != 200 {
		t.Fatalf("using a token up: %v", a)
	}
	revoked := u.create(t, m, `{}`)
	u.do(m, "DELETE", "/api/v1/cluster/join-tokens/"+revoked.ID, "").expect(t, "revoking", 200,
		`{"result":{"message":"Join token revoked"}}`)
	other := found(t)
	foreign := other.admin(t).mint(t, other.members[0], 800).Token
	forge := newForger(t, c, good)
	hour := int64(3600)
	flipped := []byte(good)
	if at := len(flipped) - 10; flipped[at] != 'A' {
		flipped[at] = 'A'
	} else {
		flipped[at] = 'B'
	}
	_, stranger, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := certs.MintSignedToken(stranger, certs.SignedClaims{
		APIEndpoint:  m.api,
		RaftEndpoint: m.raft,
		OverlayCIDR:  "10.200.0.0/16",
		Exp:          certs.SignedTime(time.Now().Add(time.Hour)),
		Iat:          certs.SignedTime(time.Now()),
		Iss:          "11111111-1111-4111-8111-111111111111",
	})
	if err != nil {
		t.Fatal(err)
	}
	// A member's number, promised to a second machine before the first one came.
	early, late := u.create(t, m, `{"nodeId":801}`), u.create(t, m, `{"nodeId":801}`)
	if a := u.do(m, "POST", "/api/v1/cluster/join", joinBody(t, early.Token)); a.status != 200 {
		t.Fatalf("joining as 801: %v", a)
	}
	return []badToken{
		{"wrong signature", string(flipped), "Invalid join token: invalid_signature", ""},
		{"truncated", good[:len(good)-7], "Invalid join token: malformed…", "the join token cannot be read: …"},
		{"its first half", good[:len(good)/2], "Invalid join token: malformed…", "the join token cannot be read: …"},
		{"nonsense", "hello", "Invalid join token: malformed…", "the join token cannot be read: …"},
		{"too long", good + strings.Repeat("A", 90_000), "Invalid join token: malformed…",
			"the join token cannot be read: …"},
		{"with padding", good + "==", "Invalid join token: malformed…", "the join token cannot be read: …"},
		{"twice", good + good, "Invalid join token: malformed…", "the join token cannot be read: …"},
		{"a signed envelope", "eyJ2IjoxLCJraWQiOiIzNDc1MGY5OCIsImNsYWltcyI6e30sInNpZyI6IkFBQUEifQ",
			"Invalid join token: malformed…", "the join token cannot be read: …"},
		{"an envelope that somebody else has signed", signed, "signed token kid=…", "the join token cannot be read: …"},
		{"used", used.Token, "Join token already used (replay)", ""},
		{"revoked", revoked.Token, "token revoked", ""},
		{"foreign cluster", foreign,
			fmt.Sprintf("Invalid join token: it was made by another cluster (%s); this is cluster %s", other.id, c.id), "-"},
		{"expired", forge.make(t, c, func(x *certs.JoinClaims) {
			x.IssuedAt, x.ExpiresAt = x.IssuedAt-2*hour, x.IssuedAt-hour
		}), "Invalid join token: expired: it was good until …", ""},
		{"expired by two minutes",
			forge.make(t, c, func(x *certs.JoinClaims) { x.IssuedAt, x.ExpiresAt = x.IssuedAt-hour, x.IssuedAt-120 }),
			"Invalid join token: expired: it was good until …", ""},
		{"from a clock an hour fast",
			forge.make(t, c, func(x *certs.JoinClaims) { x.IssuedAt, x.ExpiresAt = x.IssuedAt+hour, x.ExpiresAt+hour }),
			"Invalid join token: not yet valid: …", ""},
		{"unknown id", forge.make(t, c, func(x *certs.JoinClaims) { x.ID = strings.Repeat("ab", 16) }),
			"the join token is not known to this cluster", ""},
		{"other node", late.Token, "409 Conflict: node 801 is already a member of the cluster", ""},
	}
}

// testBadJoinTokens: over HTTP each is refused with its own sentence, on every member, and nothing is used up.
func testBadJoinTokens(t *testing.T, c *cluster) {
	list := badTokens(t, c)
	unchanged(t, c, func(u *user) {
		for i, x := range list {
			for _, m := range c.members[i%2:] {
				a := u.do(m, "POST", "/api/v1/cluster/join", joinBody(t, x.token))
				status, message := 401, "Unauthorized: "+x.message
				if rest, ok := strings.CutPrefix(x.message, "409 "); ok {
					status, message = 409, rest
				}
				got := a.envelope(t, x.name, "zlayer")
				beginning, some := strings.CutSuffix(message, "…")
				if a.status != status || got != message && !(some && strings.HasPrefix(got, beginning)) {
					t.Errorf("%s on node %d: %v, want %d %s", x.name, m.n, a, status, message)
				}
				if len(x.token) > 20 && strings.Contains(a.body, x.token[:20]) {
					t.Errorf("%s: the answer repeats the token", x.name)
				}
			}
		}
	})
	// A member's key with the token of another node: refused, and the token stays good for its node.
	u := c.admin(t)
	public, _ := newKey(t)
	one, two := u.create(t, c.members[0], `{"nodeId":810}`), u.create(t, c.members[0], `{"nodeId":811}`)
	if a := u.do(c.members[0], "POST", "/api/v1/cluster/join",
		joinBody(t, one.Token, "secrets_pubkey", public)); a.status != 200 {
		t.Fatal(a)
	}
	unchanged(t, c, func(u *user) {
		u.do(c.members[1], "POST", "/api/v1/cluster/join", joinBody(t, two.Token, "secrets_pubkey", public)).expect(t,
			"a member with another node's token", 409,
			`{"error":"conflict","message":"Conflict: the token is for node 811 but this key belongs to node 810"}`)
	})
	if a := u.do(c.members[1], "POST", "/api/v1/cluster/join", joinBody(t, two.Token)); a.status != 200 ||
		placeOf(t, a).id != 811 {
		t.Errorf("node 811 with its own token: %v", a)
	}
}

// unhex decodes what sqlite3 prints of a blob.
func unhex(t *testing.T, text string) []byte {
	t.Helper()
	var out []byte
	if _, err := fmt.Sscanf(text, "%x", &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// place is what no two members may share.
type place struct {
	id    uint64
	uuid  string
	ip    string
	slice string
}

func placeOf(t *testing.T, a answer) place {
	var r client.JoinResponse
	if err := json.Unmarshal([]byte(a.body), &r); err != nil {
		t.Errorf("%v: %v", err, a)
	}
	return place{r.RaftNodeID, r.NodeID, r.OverlayIP, r.SliceCIDR}
}
