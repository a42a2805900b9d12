package handlers_test

import (
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"

	"muster/handlers/internal/sole"
)

// fieldRefusal is a body that is refused.
type fieldRefusal struct {
	body string
	text string // exact, or a word in it when it begins with *
}

const nodeRange, ttlRange = "nodeID must be in [1, 9007199254740991]", "ttlSeconds must be between 300 and 86400"

// fieldRefusals are, for each endpoint, bodies that it refuses; exact texts where they are documented.
var fieldRefusals = map[string][]fieldRefusal{
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
}

// TestTokenFields: the bodies of the other endpoints; exact texts where they are documented.
func TestTokenFields(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	s.Unchanged(func(u *sole.User) {
		for path, list := range fieldRefusals {
			for _, x := range list {
				a := u.Do("POST", path, x.body)
				what := fmt.Sprintf("%s to %s", x.body, path)
				status := 400
				if strings.Contains(x.text, "already a member") {
					status = 409
				}
				if word, some := strings.CutPrefix(x.text, "*"); !some {
					a.Expect(t, what, status, fmt.Sprintf(`{"error":%q}`, x.text))
				} else if a.Status != status || !strings.Contains(a.Envelope(t, what, "ella"), word) {
					t.Errorf("%s: %v, want %d and a sentence with %s", what, a, status, word)
				}
			}
		}
		for _, id := range []string{"nothing", "00000000000000000000000000000000", "%2e%2e", "%27%20OR%201=1--",
			strings.Repeat("a", 5000)} {
			u.Do("DELETE", "/api/v1/cluster/join-tokens/"+id, "").Expect(t, "revoking "+id[:min(20, len(id))], 404,
				`{"error":"join token not found"}`)
			u.Do("DELETE", "/api/v1/api-tokens/"+id, "").Expect(t, "revoking "+id[:min(20, len(id))], 404,
				`{"error":"API token not found"}`)
		}
	})
	u := s.Root() // the lenient side: key names in any case, unknown fields, what follows the first value
	for _, body := range []string{`{"nodeId":901,"TTLSECONDS":300}`, `{"nodeID":902,"unknown":{"a":[1]}} trailing`,
		`{"nodeID":903,"ttlSeconds":0}`, `{"nodeID":904,"ttlSeconds":null}`} {
		if a := u.Do("POST", "/api/v1/cluster/pki/join-tokens", body); a.Status != 201 ||
			!strings.HasPrefix(a.Body, `{"result":{"token":"AQA`) || !strings.Contains(a.Body, `","expiresAt":`) {
			t.Errorf("%s: %v, want 201", body, a)
		}
	}
}

// TestIdempotency: the same key and request give the same answer, whichever member is asked; another request with it is
// refused.
func TestIdempotency(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	u := s.Root()
	for i, x := range []struct{ path, body, other string }{
		{"/api/v1/cluster/pki/join-tokens", `{"nodeID":950}`, `{"nodeID":951}`},
		{"/api/v1/cluster/join-tokens", `{"ttlSeconds":900}`, `{"ttlSeconds":901}`},
		{"/api/v1/api-tokens", `{"name":"twice","scopes":["enroll"]}`, `{"name":"thrice","scopes":["enroll"]}`},
	} {
		key := fmt.Sprintf("Idempotency-Key: order %d", i)
		first := u.Do("POST", x.path, x.body, key)
		if first.Status != 201 {
			t.Errorf("%s: %v", x.path, first)
			continue
		}
		s.Unchanged(func(u *sole.User) {
			for range 2 {
				u.Do("POST", x.path, x.body, key).Expect(t, x.path+" again", 201, first.Body)
				u.Do("POST", x.path, x.other, key).Expect(t, x.path+" with another body", 409,
					`{"error":"this Idempotency-Key was used for a different request"}`)
				long := "Idempotency-Key: " + strings.Repeat("k", 129)
				u.Do("POST", x.path, x.body, long).Expect(t, x.path+" with a long key", 400,
					`{"error":"Idempotency-Key must be at most 128 characters long"}`)
			}
		})
		stranger := s.As(u.APIToken(fmt.Sprintf("stranger %d", i), "cluster:manage").Token)
		if i < 2 { // keys of different callers are different keys
			a := stranger.Do("POST", x.path, x.body, key)
			if a.Status != 201 || a.Body == first.Body {
				t.Errorf("%s: somebody else with the same key: %v", x.path, a)
			}
		}
		if a := u.Do("POST", x.path, x.body, "Idempotency-Key: "+strings.Repeat("k", 120)+
			fmt.Sprint(i)); a.Status != 201 || a.Body == first.Body {
			t.Errorf("%s with another key: %v", x.path, a)
		}
		// At the same moment, through all members: one of them does it, all tell.
		answers := map[string]bool{}
		var mu sync.Mutex
		var wait sync.WaitGroup
		for range 12 {
			wait.Go(func() {
				a := u.Do("POST", x.path, x.other, fmt.Sprintf("Idempotency-Key: at once %d", i))
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
