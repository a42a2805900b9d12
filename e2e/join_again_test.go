package e2e

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"muster/certs"
)

// testJoinAsAnother: who has a good token and a member's public key, which is no secret, does not become that member.
func testJoinAsAnother(t *testing.T, c *cluster) {
	u := c.admin(t)
	own, err := certs.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := certs.NewCSR(own, "thief")
	if err != nil {
		t.Fatal(err)
	}
	awaitCopies(t, c, c.members[0])
	for _, victim := range c.members {
		recipient := sqlite(t, c.members[0].db(), "SELECT recipient FROM members WHERE raft_node_id = "+fmt.Sprint(victim.n))
		pub, err := certs.PublicKey(recipient)
		if err != nil {
			t.Fatal(err)
		}
		var numbers []int
		for _, b := range pub {
			numbers = append(numbers, int(b))
		}
		before := get[any](t, u, c.members[0], "GET", memberURL(victim.n, ""), "")
		for what, more := range map[string][]any{"without a request for certificates": nil, "with a key of its own": {"transport_csr", csr}} {
			fields := append([]any{"secrets_pubkey", numbers, "advertise_addr", "10.66.66.66"}, more...)
			a := c.nobody(t).do(c.members[1], "POST", "/api/v1/cluster/join", joinBody(t, u.create(t, c.members[1], `{}`).Token, fields...))
			if a.status != 403 || !strings.Contains(a.body, "send a transport_csr signed with their key") {
				t.Errorf("as node %d, %s: %v", victim.n, what, a)
			}
		}
		if after := get[any](t, u, c.members[0], "GET", memberURL(victim.n, ""), ""); !reflect.DeepEqual(before, after) {
			t.Errorf("node %d was %v and is %v", victim.n, before, after)
		}
	}
}
