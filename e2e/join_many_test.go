package e2e

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/certs"
	"muster/client"
)

// testOneTokenManyMachines: 200 machines with one single-use token at the same moment: one gets in.
func testOneTokenManyMachines(t *testing.T, c *cluster) {
	u := c.admin(t)
	before := len(u.members(t, c.members[0]))
	token := u.create(t, c.members[0], `{}`)
	answers := atOnce(200, func(i int) answer {
		return u.patiently(c.members[i%3], "POST", "/api/v1/cluster/join", joinBody(t, token.Token))
	})
	in := 0
	for _, a := range answers {
		switch {
		case a.status == 200:
			in++
		default:
			a.expect(t, "one of 200 joins", 401,
				`{"error":"unauthorized","message":"Unauthorized: Join token already used (replay)"}`)
		}
	}
	if after := len(u.members(t, c.members[0])); in != 1 || after != before+1 {
		t.Errorf("%d of 200 machines got in with a single-use token, %d more members", in, after-before)
	}
	// The same machine 100 times: one member.
	token = u.create(t, c.members[0], `{}`)
	body := joinBody(t, token.Token)
	places := map[place]int{}
	for _, a := range atOnce(100, func(i int) answer {
		return u.patiently(c.members[i%3], "POST", "/api/v1/cluster/join", body)
	}) {
		if a.status != 200 {
			t.Errorf("the same join a hundred times: %v", a)
			continue
		}
		places[placeOf(t, a)]++
	}
	if after := len(u.members(t, c.members[0])); len(places) != 1 || after != before+2 {
		t.Errorf("one machine that asks 100 times has %d identities and %d members", len(places), after-before-1)
	}
}

// testManyJoins: joins at the same moment through all members never share an id, an address or a slice.
func testManyJoins(t *testing.T, c *cluster) {
	u := c.admin(t)
	many := u.create(t, c.members[0], `{"maxUses":30}`)
	var tokens []string
	for i := range 30 {
		tokens = append(tokens, u.create(t, c.members[i%3], `{}`).Token)
	}
	for i := range 6 { // promised numbers among the next free ones
		tokens = append(tokens, u.mint(t, c.members[i%3], lastID(t, u, c)+10+uint64(i)).Token)
	}
	answers := atOnce(30+len(tokens), func(i int) answer {
		token := many.Token
		if i >= 30 {
			token = tokens[i-30]
		}
		return u.patiently(c.members[i%3], "POST", "/api/v1/cluster/join", joinBody(t, token))
	})
	cidr := netip.MustParsePrefix("10.200.0.0/16")
	seen := map[string]uint64{}
	for _, a := range answers {
		if a.status != 200 {
			t.Errorf("one of many joins: %v", a)
			continue
		}
		p := placeOf(t, a)
		for _, key := range []string{fmt.Sprint("id ", p.id), "uuid " + p.uuid, "ip " + p.ip, "slice " + p.slice} {
			if other, taken := seen[key]; taken {
				t.Errorf("nodes %d and %d share %s", other, p.id, key)
			}
			seen[key] = p.id
		}
		slice, err := netip.ParsePrefix(p.slice)
		ip, err2 := netip.ParseAddr(p.ip)
		if err != nil || err2 != nil || !cidr.Overlaps(slice) || !cidr.Contains(ip) || slice.Bits() != 28 {
			t.Errorf("node %d has %s and %s", p.id, p.ip, p.slice)
		}
	}
	checkOverlay(t, u, c)
	if x := u.joinToken(t, c.members[0], many.ID); x.Uses != 30 || x.State != "used" {
		t.Errorf("the token for 30 machines: %+v", x)
	}
}

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
		before := steady(get[client.Member](t, u, c.members[0], "GET", memberURL(victim.n, ""), ""))
		for what, more := range map[string][]any{"without a request for certificates": nil,
			"with a key of its own": {"transport_csr", csr}} {
			fields := append([]any{"secrets_pubkey", numbers, "advertise_addr", "10.66.66.66"}, more...)
			a := c.nobody(t).do(c.members[1], "POST", "/api/v1/cluster/join",
				joinBody(t, u.create(t, c.members[1], `{}`).Token, fields...))
			if a.status != 403 || !strings.Contains(a.body, "send a transport_csr signed with their key") {
				t.Errorf("as node %d, %s: %v", victim.n, what, a)
			}
		}
		if after := steady(get[client.Member](t, u, c.members[0], "GET", memberURL(victim.n, ""),
			"")); !reflect.DeepEqual(before, after) {
			t.Errorf("node %d was %v and is %v", victim.n, before, after)
		}
	}
}

func lastID(t *testing.T, u *user, c *cluster) (last uint64) {
	for _, x := range u.members(t, c.members[0]) {
		if x.NodeID < 700 {
			last = max(last, x.NodeID)
		}
	}
	return last
}

// checkOverlay looks at all members at once: nothing is shared, and no address lies in a slice.
func checkOverlay(t *testing.T, u *user, c *cluster) {
	t.Helper()
	list := get[[]struct {
		NodeID                   uint64
		ID, OverlayIP, SliceCIDR string
	}](t, u, c.members[0], "GET", "/api/v1/cluster/members", "")
	var ids []uint64
	seen := map[string]uint64{}
	for _, x := range list {
		ids = append(ids, x.NodeID)
		for _, key := range []string{"uuid " + x.ID, "ip " + x.OverlayIP, "slice " + x.SliceCIDR} {
			if other, taken := seen[key]; taken {
				t.Errorf("nodes %d and %d share %s", other, x.NodeID, key)
			}
			seen[key] = x.NodeID
		}
	}
	for _, x := range list {
		ip, err := netip.ParseAddr(x.OverlayIP)
		if err != nil {
			t.Errorf("node %d: %v", x.NodeID, err)
		}
		for _, y := range list {
			if slice, err := netip.ParsePrefix(y.SliceCIDR); err != nil || slice.Contains(ip) {
				t.Errorf("the address %s of node %d lies in the slice %s of node %d", ip, x.NodeID, slice, y.NodeID)
			}
		}
	}
	if !slices.IsSorted(ids) || len(slices.Compact(slices.Clone(ids))) != len(ids) {
		t.Errorf("the ids of the members are %v", ids)
	}
}

// atOnce runs n calls at the same moment.
func atOnce(n int, call func(i int) answer) []answer {
	answers := make([]answer, n)
	begin := make(chan struct{})
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() {
			<-begin
			answers[i] = call(i)
		})
	}
	time.Sleep(10 * time.Millisecond)
	close(begin)
	wait.Wait()
	return answers
}
