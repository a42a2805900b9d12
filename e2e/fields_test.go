package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
)

// TestFields: the fields of the requests around joining, each with every kind of value.
func TestFields(t *testing.T) {
	t.Parallel()
	onThree(t, part{"join", testJoinFields}, part{"token", testTokenFields}, part{"idempotency", testIdempotency})
}

// lowOrder are the X25519 public keys with which every shared secret is zero (RFC 7748, section 6.1;
// cr.yp.to/ecdh.html).
var lowOrder = []string{
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0100000000000000000000000000000000000000000000000000000000000000",
	"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
	"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
}

// joinFields is a join that would be accepted.
func joinFields(t *testing.T, token string) map[string]any {
	pub, _ := newKey(t)
	return map[string]any{"token": token, "advertise_addr": "127.0.0.1", "overlay_port": 51420, "raft_port": 1,
		"wg_public_key": "",
		"mode":          "replicate", "secrets_pubkey": pub}
}

// joinBody is the same as JSON, with these fields changed: name, value, name, value…; a nil value takes a field out.
func joinBody(t *testing.T, token string, change ...any) string {
	f := joinFields(t, token)
	for i := 0; i < len(change); i += 2 {
		if name := change[i].(string); change[i+1] == nil {
			delete(f, name)
		} else {
			f[name] = change[i+1]
		}
	}
	data, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// testJoinFields: every field of the join is checked, the refusal names it, and the token stays good.
func testJoinFields(t *testing.T, c *cluster) {
	token := c.admin(t).create(t, c.members[0], `{}`)
	null := json.RawMessage("null")
	bytes32 := make([]int, 32)
	for i := range bytes32 {
		bytes32[i] = i + 1
	}
	with := func(i, v int) []int {
		b := append([]int{}, bytes32...)
		b[i] = v
		return b
	}
	cases := map[string][]any{ // a missing value is nil
		"token": {nil, null, 1, true, []int{1}, map[string]int{}, ""},
		"advertise_addr": {nil, null, 1, "", "a b", "10.0.0.1:5000", "http://x", "10.0.0.1/24", strings.Repeat("a", 300),
			"a..b", "-\u00e9"},
		"overlay_port":  {nil, null, "51420", -1, 65536, 1.5, []int{}, true},
		"raft_port":     {nil, null, "7000", -1, 65536, 1e30},
		"api_port":      {"5000", -1, 65536, 0.5},
		"wg_public_key": {nil, null, 1, strings.Repeat("a", 256)},
		"mode":          {"learner", "Full", 1, []string{"full"}, ""},
		"os":            {"darwin", "plan9", 1},
		"arch":          {"386", "x86_64", 1},
		"labels": {[]string{"a"}, "a=b", map[string]int{"a": 1}, map[string]string{"": "x"},
			map[string]string{strings.Repeat("k", 257): "x"}},
		"secrets_pubkey": {"AAAA", bytes32[:31], append(bytes32, 1), with(3, 256), with(3, -1), []string{"a"}, []float64{1.5},
			map[string]int{}},
		"name":           {1, "", strings.Repeat("n", 65)},
		"cpu_total":      {"4", -1},
		"memory_total":   {"4", -1, 1.5},
		"disk_total":     {"4", -1},
		"gpus":           {"none", []int{1}, map[string]int{}},
		"services":       {"web", []int{1}},
		"raft_address":   {"127.0.0.1", "127.0.0.1:0", "127.0.0.1:99999", ":7000", 7000},
		"api_address":    {"https://127.0.0.1:5000", "127.0.0.1:x", 5000},
		"binary_version": {1, strings.Repeat("v", 65)},
		"max_schema":     {"1", -1},
		"http_csr":       {"not Base64!", "AAAA", 1},
		"transport_csr":  {"AAAA", []int{1, 2}},
	}
	for i := range lowOrder {
		var pub []int
		for j := 0; j < 64; j += 2 {
			var b int
			fmt.Sscanf(lowOrder[i][j:j+2], "%x", &b)
			pub = append(pub, b)
		}
		cases["secrets_pubkey"] = append(cases["secrets_pubkey"], pub)
	}
	unchanged(t, c, func(u *user) {
		n := 0
		for field, values := range cases {
			for _, value := range values {
				n++
				body := joinBody(t, token.Token, field, value)
				what := fmt.Sprintf("%s = %.60v", field, value)
				a := u.do(c.members[n%3], "POST", "/api/v1/cluster/join", body)
				if a.err != nil || a.status != 422 {
					t.Errorf("%s: %v, want 422", what, a)
					continue
				}
				message := a.envelope(t, what, "zlayer")
				if !strings.HasPrefix(message, "Validation error: ") || !strings.Contains(message, field) ||
					!strings.Contains(a.body, `"error":"validation_error"`) {
					t.Errorf("%s: %v does not name the field", what, a)
				}
				if strings.Contains(a.body, token.Token) {
					t.Errorf("%s: the answer repeats the token", what)
				}
			}
		}
		u.do(c.members[0], "POST", "/api/v1/cluster/join",
			joinBody(t, token.Token, "http_csr", "AAAA", "secrets_pubkey", nil)).
			envelope(t, "a certificate request without a key", "zlayer")
		for _, kind := range []string{"", "text/plain", "application/x-www-form-urlencoded", "nonsense;;"} {
			a := u.do(c.members[n%3], "POST", "/api/v1/cluster/join", joinBody(t, token.Token), "Content-Type: "+kind)
			a.expect(t, "Content-Type "+kind, 415,
				`{"error":"unsupported_media_type","message":"Unsupported media type: Content-Type must be application/json"}`)
		}
		if x := u.joinToken(t, c.members[0], token.ID); x.Uses != 0 || x.State != "valid" {
			t.Errorf("the token has been used by refused joins: %+v", x)
		}
	})
	// Unknown fields are ignored, and after all that the token is as good as new.
	a := c.nobody(t).do(c.members[2], "POST", "/api/v1/cluster/join",
		joinBody(t, token.Token, "unknown", 1, "hostname", "x"), "Content-Type: application/json; charset=utf-8")
	if a.status != 200 {
		t.Errorf("a good join with unknown fields: %v", a)
	}
}

// testTokenFields: the bodies of the other endpoints; exact texts where they are documented.
func testTokenFields(t *testing.T, c *cluster) {
	type refusal struct {
		body string
		text string // exact, or a word in it when it begins with *
	}
	const nodeRange, ttlRange = "nodeID must be in [1, 9007199254740991]", "ttlSeconds must be between 300 and 86400"
	unchanged(t, c, func(u *user) {
		for path, list := range map[string][]refusal{
			"/api/v1/cluster/pki/join-tokens": {
				{`{}`, nodeRange}, {`{"nodeID":0}`, nodeRange}, {`{"nodeID":-1}`, nodeRange},
				{`{"nodeID":9007199254740992}`, nodeRange},
				{`{"nodeID":9223372036854775807}`, nodeRange}, {`{"ttlSeconds":600}`, nodeRange}, {`{"nodeID":null}`, nodeRange},
				{`{"nodeID":"9"}`, "*decode body: nodeID must be a whole number"},
				{`{"nodeID":9.5}`, "*decode body: nodeID must be a whole number"},
				{`{"nodeID":[9]}`, "*decode body: nodeID must be a whole number"},
				{`{"nodeID":true}`, "*decode body: nodeID must be a whole number"},
				{`{"nodeID":18446744073709551616}`, "*decode body: nodeID must be a whole number"},
				{`{"nodeID":900,"ttlSeconds":"600"}`, "*decode body: ttlSeconds must be a whole number"},
				{`{"nodeID":900,"ttlSeconds":{}}`, "*decode body: ttlSeconds must be a whole number"},
				{`{"nodeID":900,"ttlSeconds":299}`, ttlRange}, {`{"nodeID":900,"ttlSeconds":86401}`, ttlRange},
				{`{"nodeID":900,"ttlSeconds":-5}`, ttlRange},
				{`{"nodeID":1}`, "node 1 is already a member of the cluster"},
			},
			"/api/v1/cluster/join-tokens": {
				{`{"nodeId":"9"}`, "*nodeId"}, {`{"nodeId":0}`, "*nodeId"}, {`{"nodeId":-3}`, "*nodeId"},
				{`{"nodeId":9007199254740992}`, "*nodeId"}, {`{"nodeId":1.5}`, "*nodeId"},
				{`{"ttlSeconds":0}`, "*ttlSeconds"}, {`{"ttlSeconds":"1h"}`, "*ttlSeconds"}, {`{"ttlSeconds":-1}`, "*ttlSeconds"},
				{`{"ttlSeconds":99999999999}`, "*ttlSeconds"},
				{`{"maxUses":0}`, "*maxUses"}, {`{"maxUses":-1}`, "*maxUses"}, {`{"maxUses":"many"}`, "*maxUses"},
				{`{"maxUses":1e12}`, "*maxUses"},
				{`{"nodeId":900,"maxUses":2}`, "maxUses must be 1 for a token with a nodeId: one id is one member"},
				{`{"mode":"learner"}`, "mode must be full or replicate"}, {`{"mode":1}`, "*mode"}, {`{"labels":[]}`, "*labels"},
				{`{"labels":{"a":1}}`, "*labels"},
				{`{"nodeId":2}`, "node 2 is already a member of the cluster"},
			},
			"/api/v1/api-tokens": {
				{`{}`, "*name"}, {`{"scopes":["enroll"]}`, "*name"}, {`{"name":"","scopes":["enroll"]}`, "*name"},
				{`{"name":1,"scopes":["enroll"]}`, "*name"},
				{`{"name":"` + strings.Repeat("n", 65) + `","scopes":["enroll"]}`, "*name"},
				{`{"name":"a\u0000b","scopes":["enroll"]}`, "*name"},
				{`{"name":"a\nb","scopes":["enroll"]}`, "*name"},
				{`{"name":"x"}`, "*scopes"}, {`{"name":"x","scopes":[]}`, "*scopes"}, {`{"name":"x","scopes":"enroll"}`, "*scopes"},
				{`{"name":"x","scopes":[1]}`, "*scopes"},
				{`{"name":"x","scopes":["root"]}`, "*scopes"}, {`{"name":"x","scopes":["enroll","*"]}`, "*scopes"},
				{`{"name":"x","scopes":null}`, "*scopes"},
				{`{"name":"x","scopes":["enroll"],"ttlSeconds":0}`, "*ttlSeconds"},
				{`{"name":"x","scopes":["enroll"],"ttlSeconds":-1}`, "*ttlSeconds"},
				{`{"name":"x","scopes":["enroll"],"ttlSeconds":"1"}`, "*ttlSeconds"},
				{`{"name":"x","scopes":["enroll"],"ttlSeconds":1e18}`, "*ttlSeconds"},
			},
			"/api/v1/sql": {
				{`{}`, "*query"}, {`{"query":""}`, "*query"}, {`{"query":1}`, "*query"}, {`{"query":["SELECT 1"]}`, "*query"},
				{`{"query":null}`, "*query"},
			},
		} {
			for i, x := range list {
				m := c.members[i%3]
				a := u.do(m, "POST", path, x.body)
				what := fmt.Sprintf("%s to %s", x.body, path)
				status := 400
				if strings.Contains(x.text, "already a member") {
					status = 409
				}
				if word, some := strings.CutPrefix(x.text, "*"); !some {
					a.expect(t, what, status, fmt.Sprintf(`{"error":%q}`, x.text))
				} else if a.status != status || !strings.Contains(a.envelope(t, what, "ella"), word) {
					t.Errorf("%s: %v, want %d and a sentence with %s", what, a, status, word)
				}
			}
		}
		for _, id := range []string{"nothing", "00000000000000000000000000000000", "%2e%2e", "%27%20OR%201=1--",
			strings.Repeat("a", 5000)} {
			u.do(c.members[1], "DELETE", "/api/v1/cluster/join-tokens/"+id, "").expect(t, "revoking "+id[:min(20, len(id))], 404,
				`{"error":"join token not found"}`)
			u.do(c.members[2], "DELETE", "/api/v1/api-tokens/"+id, "").expect(t, "revoking "+id[:min(20, len(id))], 404,
				`{"error":"API token not found"}`)
		}
	})
	u := c.admin(t) // the lenient side: key names in any case, unknown fields, what follows the first value
	for _, body := range []string{`{"nodeId":901,"TTLSECONDS":300}`, `{"nodeID":902,"unknown":{"a":[1]}} trailing`,
		`{"nodeID":903,"ttlSeconds":0}`, `{"nodeID":904,"ttlSeconds":null}`} {
		if a := u.do(c.members[0], "POST", "/api/v1/cluster/pki/join-tokens", body); a.status != 201 ||
			!strings.HasPrefix(a.body, `{"result":{"token":"AQA`) || !strings.Contains(a.body, `","expiresAt":`) {
			t.Errorf("%s: %v, want 201", body, a)
		}
	}
}

// testIdempotency: the same key and request give the same answer, whichever member is asked; another request with it is
// refused.
func testIdempotency(t *testing.T, c *cluster) {
	u := c.admin(t)
	for i, x := range []struct{ path, body, other string }{
		{"/api/v1/cluster/pki/join-tokens", `{"nodeID":950}`, `{"nodeID":951}`},
		{"/api/v1/cluster/join-tokens", `{"ttlSeconds":900}`, `{"ttlSeconds":901}`},
		{"/api/v1/api-tokens", `{"name":"twice","scopes":["enroll"]}`, `{"name":"thrice","scopes":["enroll"]}`},
	} {
		key := fmt.Sprintf("Idempotency-Key: order %d", i)
		first := u.do(c.members[0], "POST", x.path, x.body, key)
		if first.status != 201 {
			t.Errorf("%s: %v", x.path, first)
			continue
		}
		before := u.state(t, c.members[0])
		for _, m := range c.members {
			u.do(m, "POST", x.path, x.body, key).expect(t, fmt.Sprintf("%s again on node %d", x.path, m.n), 201, first.body)
			u.do(m, "POST", x.path, x.other, key).expect(t, fmt.Sprintf("%s with another body on node %d", x.path, m.n), 409,
				`{"error":"this Idempotency-Key was used for a different request"}`)
			long := "Idempotency-Key: " + strings.Repeat("k", 129)
			u.do(m, "POST", x.path, x.body, long).expect(t, x.path+" with a long key", 400,
				`{"error":"Idempotency-Key must be at most 128 characters long"}`)
		}
		if after := u.state(t, c.members[0]); after != before {
			t.Errorf("%s: repetitions have changed something:\n%s\nbefore:\n%s", x.path, after, before)
		}
		stranger := c.as(t, u.apiToken(t, c.members[0], fmt.Sprintf("stranger %d", i), "cluster:manage").Token)
		if i < 2 { // keys of different callers are different keys
			a := stranger.do(c.members[1], "POST", x.path, x.body, key)
			if a.status != 201 || a.body == first.body {
				t.Errorf("%s: somebody else with the same key: %v", x.path, a)
			}
		}
		if a := u.do(c.members[2], "POST", x.path, x.body, "Idempotency-Key: "+strings.Repeat("k", 120)+
			fmt.Sprint(i)); a.status != 201 || a.body == first.body {
			t.Errorf("%s with another key: %v", x.path, a)
		}
		// At the same moment, through all members: one of them does it, all tell.
		answers := map[string]bool{}
		var mu sync.Mutex
		var wait sync.WaitGroup
		for n := range 12 {
			wait.Go(func() {
				a := u.do(c.members[n%3], "POST", x.path, x.other, fmt.Sprintf("Idempotency-Key: at once %d", i))
				mu.Lock()
				defer mu.Unlock()
				answers[a.String()] = true
			})
		}
		wait.Wait()
		for a := range maps.Keys(answers) {
			if len(answers) != 1 || !strings.HasPrefix(a, "201 ") {
				t.Errorf("%s twelve times at once: %d different answers, one is %s", x.path, len(answers), a)
				break
			}
		}
	}
}
