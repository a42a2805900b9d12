package zlayer_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"muster/api"
	"muster/handlers/internal/sole"
)

// TestNames: a member is found by each of its names, and never for another one, dead or alive, by each member in turn.
func TestNames(t *testing.T) {
	t.Parallel()
	var dead atomic.Uint64
	u := sole.NewPair(t, func(c *sole.Config) {
		c.Cluster.Life = func(nodeID uint64) string {
			if nodeID == dead.Load() {
				return "down"
			}
			return "alive"
		}
	}).Root()
	is := func(what, method, target, body string, status int, beginning string) {
		t.Helper()
		if a := u.Do(method, target, body); a.Status != status || !strings.HasPrefix(a.Body, beginning) {
			t.Errorf("%s: got %v\nwant %d %s", what, a, status, beginning)
		}
	}
	for _, m := range sole.Get[[]api.Member](u, "GET", "/api/v1/cluster/members", "") {
		for _, text := range []string{fmt.Sprint(m.NodeID), m.ID, m.Name, m.RaftAddress,
			strings.TrimPrefix(m.APIAddress, "https://")} {
			for range 2 {
				is(text, "GET", "/api/v1/cluster/members/"+text, "", 200, fmt.Sprintf(`{"result":{"nodeId":%d,`, m.NodeID))
			}
		}
	}
	// A machine with a live member's address or name is refused; the token stays good.
	const join = "/api/v1/cluster/join"
	token := u.JoinToken(`{}`).Token
	for range 2 {
		is("all of them", "GET", "/api/v1/cluster/members/127.0.0.1", "", 409,
			`{"error":"\"127.0.0.1\" can mean 2 members: 1 (`)
		is("all of them", "DELETE", "/v1/operator/raft/peer?address=127.0.0.1", "", 409, `"127.0.0.1" can mean 2 members`)
		is("a live address", "POST", join, joinBody(t, token, "raft_address", "127.0.0.1:7002"), 409,
			`{"error":"conflict","message":"Conflict: the address 127.0.0.1:7002 belongs to node `)
		is("a live name", "POST", join, joinBody(t, token, "name", "two"), 409,
			`{"error":"conflict","message":"Conflict: the name two belongs to node 2 (two), which is alive`)
		is("a live name, written otherwise", "POST", join, joinBody(t, token, "name", "Two."), 409,
			`{"error":"conflict","message":"Conflict: the name Two. belongs to node 2 (two), which is alive`)
		is("white space around a name", "POST", join, joinBody(t, token, "name", " node-9"), 400,
			`{"error":"bad_request","message":"Bad request: the name must be 1 to 64 bytes of UTF-8, without control `+
				`characters or`)
		is("another member's number as a name", "POST", join, joinBody(t, token, "name", "2"), 400,
			`{"error":"bad_request","message":"Bad request: the name must not be a whole number: 2 means the member with that `+
				`number`)
	}
	// One with a dead member's address is let in; from then on the address alone names nobody.
	dead.Store(2)
	is("a dead address", "POST", join, joinBody(t, token, "raft_address", "127.0.0.1:7002"), 200, `{"node_id":"`)
	for range 2 {
		is("two have it", "DELETE", "/v1/operator/raft/peer?address=127.0.0.1:7002", "", 409,
			`"127.0.0.1:7002" can mean 2 members`)
	}
}
