package zlayer_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"muster/certs"
	"muster/handlers/internal/sole"
)

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

	return map[string]any{"token": token, "advertise_addr": "127.0.0.1", "overlay_port": 51420, "raft_port": 1,
		"wg_public_key": "",
		"mode":          "replicate", "secrets_pubkey": newKey(t)}
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

// newKey returns the public key of a machine, as the join wants it.
func newKey(t *testing.T) (numbers []int) {
	t.Helper()
	id, err := certs.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	public, err := certs.PublicKey(id.Recipient().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range public {
		numbers = append(numbers, int(b))
	}
	return numbers
}

// badFields lists, for each field of the join, values that it must not have; a missing value is nil.
func badFields() map[string][]any {
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
	return cases
}

// TestJoinFields: every field of the join is checked, the refusal names it, and the token stays good.
func TestJoinFields(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	token := s.Root().JoinToken(`{}`)
	cases := badFields()
	s.Unchanged(func(u *sole.User) {
		n := 0
		for field, values := range cases {
			for _, value := range values {
				n++
				body := joinBody(t, token.Token, field, value)
				what := fmt.Sprintf("%s = %.60v", field, value)
				a := u.Do("POST", "/api/v1/cluster/join", body)
				if a.Status != 422 {
					t.Errorf("%s: %v, want 422", what, a)
					continue
				}
				message := a.Envelope(t, what, "zlayer")
				if !strings.HasPrefix(message, "Validation error: ") || !strings.Contains(message, field) ||
					!strings.Contains(a.Body, `"error":"validation_error"`) {
					t.Errorf("%s: %v does not name the field", what, a)
				}
				if strings.Contains(a.Body, token.Token) {
					t.Errorf("%s: the answer repeats the token", what)
				}
			}
		}
		u.Do("POST", "/api/v1/cluster/join",
			joinBody(t, token.Token, "http_csr", "AAAA", "secrets_pubkey", nil)).
			Envelope(t, "a certificate request without a key", "zlayer")
		for _, kind := range []string{"", "text/plain", "application/x-www-form-urlencoded", "nonsense;;"} {
			a := u.Do("POST", "/api/v1/cluster/join", joinBody(t, token.Token), "Content-Type: "+kind)
			a.Expect(t, "Content-Type "+kind, 415,
				`{"error":"unsupported_media_type","message":"Unsupported media type: Content-Type must be application/json"}`)
		}
		if got := s.Query("SELECT uses FROM join_tokens WHERE id = '" + token.ID + "'"); got != "0" {
			t.Errorf("the token has been used by refused joins: %s", got)
		}
	})
	// Unknown fields are ignored, and after all that the token is as good as new.
	a := s.Nobody().Do("POST", "/api/v1/cluster/join",
		joinBody(t, token.Token, "unknown", 1, "hostname", "x"), "Content-Type: application/json; charset=utf-8")
	if a.Status != 200 {
		t.Errorf("a good join with unknown fields: %v", a)
	}
}
