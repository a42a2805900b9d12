package ella_test

import (
	"testing"

	"muster/handlers/internal/sole"
)

// TestMintedBodies: what cannot be decoded is refused with the documented words, the field and the rule.
func TestMintedBodies(t *testing.T) {
	s := sole.New(t)
	const (
		object = "the body must be a JSON object"
		node   = "nodeID must be a whole number between 1 and 9007199254740991"
		ttl    = "ttlSeconds must be a whole number between 300 and 86400"
	)
	for body, why := range map[string]string{"": object, " ": object, "{": object, "null": object, "[]": object,
		"1": object, `"x"`: object, "\xff": object,
		`{"nodeID":"12"}`: node, `{"NODEID":"12"}`: node, `{"nodeID":1.5}`: node, `{"nodeID":[1]}`: node,
		`{"nodeID":{}}`: node, `{"nodeID":true}`: node,
		`{"nodeID":1e400}`: node, `{"nodeID":"12","ttlSeconds":"x"}`: node, `{"nodeID":12,"ttlSeconds":"600"}`: ttl,
		`{"ttlSeconds":{}}`: ttl, `{"nodeID":12,"ttlSeconds":1e99}`: ttl} {
		w := s.Call("POST", "/api/v1/cluster/pki/join-tokens", s.Admin, body)
		if want := `{"error":"decode body: ` + why + `"}`; w.Code != 400 || w.Body.String() != want {
			t.Errorf("%s: %d %s, want %s", body, w.Code, w.Body, want)
		}
	}
}
