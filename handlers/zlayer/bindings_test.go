package zlayer_test

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"

	"muster/api"
	"muster/handlers/internal/sole"
)

// TestTokenBindings: each thing that a token can be bound to lets the right machine in and no other, and a refusal uses
// nothing up. Each member in turn is asked.
func TestTokenBindings(t *testing.T) {
	t.Parallel()
	u := sole.NewPair(t, beside).Root()
	j, other := newMachine(t), newMachine(t)
	sum := sha256.Sum256(j.key())
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
		{"cidr", fmt.Sprintf(`{"bindCidr":"%s/32"}`, u.Remote), "", []try{{j, nil, true}}},
		{"another cidr", `{"bindCidr":"10.0.0.0/8"}`, "the token is for machines in 10.0.0.0/8 only",
			[]try{{j, nil, false}, {j, nil, false}}},
		{"the members' own address", `{"bindCidr":"127.0.0.1/32"}`, "the token is for machines in 127.0.0.1/32 only",
			[]try{{j, nil, false}, {j, nil, false}}},
		{"IPv6", `{"bindCidr":"fd00::/8"}`, "the token is for machines in fd00::/8 only", []try{{j, nil, false}}},
		{"name pattern", `{"bindName":"web-?*"}`, "the token is for machines named web-?* only",
			[]try{{other, []any{"name", "db-1"}, false}, {other, []any{"name", "web-"}, false}, {other, nil, false},
				{other, []any{"name", "web-1"}, true}}},
		{"key hash", fmt.Sprintf(`{"bindKey":"%x"}`, sum), "the token is bound to another public key",
			[]try{{other, nil, false}, {nil, nil, false}, {j, nil, true}}},
	} {
		for _, format := range []string{"muster", "zlayer"} {
			token := u.JoinToken(strings.Replace(x.token, "{", `{"format":"`+format+`",`, 1))
			if token.Format != format {
				t.Errorf("%s: the format of the new token is %q", x.name, token.Format)
			}
			used := 0
			for i, y := range x.tries {
				change := append([]any{"secrets_pubkey", nil}, y.change...)
				if y.who != nil {
					change[1] = y.who.public
				}
				a := u.Do("POST", "/api/v1/cluster/join", joinBody(t, token.Token, change...))
				if y.ok {
					admitted(t, x.name+" "+format, a)
					used++
				} else {
					a.Expect(t, x.name+" "+format, 401,
						fmt.Sprintf(`{"error":"unauthorized","message":"Unauthorized: %s"}`, x.refusal))
				}
				if got := listed(t, u, token.ID); got.Uses != used || len(got.UsedBy) != used {
					t.Errorf("%s %s: after try %d the token is %+v", x.name, format, i+1, got)
				}
			}
		}
	}
}

// TestSharedToken: mode and labels are the operator's word, and a token for three machines lets three in.
func TestSharedToken(t *testing.T) {
	t.Parallel()
	u := sole.NewPair(t, beside).Root()
	token := u.JoinToken(`{"maxUses":3,"mode":"replicate","labels":{"rack":"b","zone":"x"}}`)
	var ids []uint64
	for range 3 {
		r := newMachine(t).enter(t, u, token.Token, "mode", "full", "labels", map[string]string{"rack": "a", "disk": "ssd"})
		ids = append(ids, r.RaftNodeID)
	}
	for range 2 {
		newMachine(t).refused(t, u, token.Token, "Unauthorized: Join token already used (replay)")
	}
	for _, x := range sole.Get[[]api.Member](u, "GET", "/api/v1/cluster/members", "") {
		for _, id := range ids {
			if x.NodeID == id && (x.Mode != "replicate" || x.Labels["rack"] != "b" || x.Labels["zone"] != "x" ||
				x.Labels["disk"] != "ssd") {
				t.Errorf("member %d: mode %s, labels %v", id, x.Mode, x.Labels)
			}
		}
	}
	got := listed(t, u, token.ID)
	if got.State != "used" || got.Uses != 3 || len(got.UsedBy) != 3 || got.Labels["rack"] != "b" ||
		got.Mode != "replicate" || got.Format != "muster" {
		t.Fatalf("the token is listed as %+v", got)
	}
	for i, use := range got.UsedBy {
		if use.NodeID != ids[i] || use.Remote != u.Remote || time.Since(use.UsedAt) > time.Hour {
			t.Errorf("use %d is %+v", i, use)
		}
	}
	if list := u.Do("GET", "/api/v1/cluster/join-tokens", ""); strings.Contains(list.Body, token.Token) {
		t.Error("the list shows the token itself")
	}
}

// TestRefusedBindings: what a token cannot be bound to is refused, and the reason is said.
func TestRefusedBindings(t *testing.T) {
	t.Parallel()
	sole.NewPair(t).Unchanged(func(u *sole.User) {
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
			for range 2 {
				a := u.Do("POST", "/api/v1/cluster/join-tokens", body)
				if a.Envelope(t, body, "ella"); a.Status != 400 && a.Status != 409 || !strings.Contains(a.Body, want) {
					t.Errorf("%s: %v, want %q", body, a, want)
				}
			}
		}
	})
}
