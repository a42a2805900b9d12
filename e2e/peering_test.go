package e2e

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/client"
)

// TestPeering connects a cluster of three with one of a single member, in both directions.
func TestPeering(t *testing.T) {
	t.Parallel()
	three := clusterWith(t, 3, peerFlags("dc1"))
	one := clusterWith(t, 1, peerFlags("dc2"))
	three.awaitVoters(t)
	leader := three.leader(t)
	a := side{three, three.admin(t), three.others(leader)[0]}
	b := side{one, one.admin(t), one.members[0]}
	t.Run("datacenter", func(t *testing.T) { testDatacenter(t, b, "dc2") })
	t.Run("token", func(t *testing.T) { testPeeringToken(t, a) })
	t.Run("life", func(t *testing.T) { testPeeringLife(t, a, b) })
	t.Run("secrets", func(t *testing.T) { testPeeringSecrets(t, a, b) })
	t.Run("unreachable", func(t *testing.T) { testPeeringUnreachable(t, a, b) })
	t.Run("again", func(t *testing.T) { testPeeringAgain(t, a, b) })
	t.Run("blocking", func(t *testing.T) { testPeeringBlocking(t, a) })
	t.Run("commands", func(t *testing.T) { testPeeringCommands(t, a, b) })
	t.Run("garbage", func(t *testing.T) { testPeeringGarbage(t, a) })
	t.Run("frozen", func(t *testing.T) { testPeeringFrozen(t, a, b) })
	t.Run("away", func(t *testing.T) { testPeeringAway(t, a, b) })
	t.Run("leaders", func(t *testing.T) { testPeeringLeaders(t, a, b) })
	t.Run("authorities", func(t *testing.T) { testPeeringAuthorities(t, a, b) })
	t.Run("secrecy", func(t *testing.T) { testPeeringSecrecy(t, a, b) })
}

// testDatacenter: the raft family says the name that the cluster was founded with.
func testDatacenter(t *testing.T, b side, name string) {
	for path, want := range map[string]string{"/v1/agent/members": `"ServerDC":"` + name + `"`,
		"/v1/agent/self": `"Datacenter":"` + name + `"`} {
		if a := b.u.do(b.at, "GET", path, ""); a.status != 200 || !strings.Contains(a.body, want) ||
			!strings.Contains(a.body, `"dc":"`+name+`"`) {
			t.Errorf("GET %s: %v; want %s", path, a, want)
		}
	}
}

func testPeeringToken(t *testing.T, a side) {
	text := a.token(t, "to-b", "Meta", object{"foo": "bar"}, "ServerExternalAddresses", []string{"32.1.2.3"}, "Partition",
		"DeFault")
	data, _ := json.Marshal(parseToken(t, text))
	k := parseToken(t, text)
	if k.ServerName != "server.dc1.peering."+a.id+".consul" || len(k.CA) != 1 || !strings.HasSuffix(k.CA[0], "-----\n") ||
		len(k.ServerAddresses) != 3 ||
		!slices.Equal(k.ManualServerAddresses, []string{"32.1.2.3"}) || k.Remote.Datacenter != "dc1" || len(k.PeerID) != 36 ||
		len(k.EstablishmentSecret) != 36 {
		t.Errorf("the token holds %s", data)
	}
	before, first := a.tryPeering("TO-B")
	if want := fmt.Sprintf(`{"ID":%q,"Name":"to-b","Meta":{"foo":"bar"},"State":"PENDING",`+
		`"StreamStatus":{"ImportedServices":null,"ExportedServices":null,`+
		`"LastHeartbeat":null,"LastReceive":null,"LastSend":null},"CreateIndex":%d,"ModifyIndex":%d,`+
		`"Remote":{"Partition":"","Datacenter":""},"StatusSince":`,
		k.PeerID, before.CreateIndex, before.CreateIndex); !strings.HasPrefix(first.body, want) {
		t.Errorf("a fresh peering is\n%s\nwant\n%s", first.body, want)
	}
	if first.header.Get("X-Consul-Index") != fmt.Sprint(before.ModifyIndex) {
		t.Errorf("X-Consul-Index %s, ModifyIndex %d", first.header.Get("X-Consul-Index"), before.ModifyIndex)
	}
	// Another token changes nothing but the index; Meta stays unless it is given.
	second := parseToken(t, a.token(t, "to-b"))
	after, _ := a.tryPeering("to-b")
	if second.PeerID != k.PeerID || second.EstablishmentSecret == k.EstablishmentSecret ||
		after.ModifyIndex <= before.ModifyIndex {
		t.Errorf("another token: %+v, the peering %+v", second, after)
	}
	after.ModifyIndex = before.ModifyIndex
	if x, y := fmt.Sprintf("%+v", before), fmt.Sprintf("%+v", after); x != y {
		t.Errorf("another token has changed the peering from\n%s to\n%s", x, y)
	}
	a.token(t, "to-b", "Meta", object{"foo": "new"})
	if p, _ := a.tryPeering("to-b"); p.Meta["foo"] != "new" {
		t.Errorf("Meta is %v", p.Meta)
	}
	list := a.u.do(a.at, "GET", "/v1/peerings?filter="+`Meta.foo+==+"new"+and+State+==+"PENDING"`, "")
	none := a.u.do(a.at, "GET", "/v1/peerings?filter="+`Name+!=+"to-b"`, "")
	if !strings.Contains(list.body, `"Name":"to-b"`) || none.body != "[]" {
		t.Errorf("filtered: %v and %v", list, none)
	}
	a.remove(t, "to-b")
}

func testPeeringLife(t *testing.T, a, b side) {
	token := a.token(t, "to-b", "Meta", object{"foo": "bar", "long": strings.Repeat("x", 500)})
	b.establish("to-a", token, "Meta", object{"k": "v"}).expect(t, "establish", 200, "{}")
	if p, _ := b.tryPeering("to-a"); p.State != "ESTABLISHING" || p.Meta["k"] != "v" ||
		p.PeerServerName != parseToken(t, token).ServerName {
		t.Errorf("after establishing it is %+v", p)
	}
	b.await(t, "to-a", "ACTIVE")
	a.await(t, "to-b", "ACTIVE")
	// Both sides see each other's members, by name and in full.
	eventually(t, formed, "the members are imported", func() error {
		for _, m := range a.members {
			p, _ := a.via(m).tryPeering("to-b")
			st := p.StreamStatus
			if !slices.Equal(st.ImportedServices, []string{"node-1"}) ||
				!slices.Equal(st.ExportedServices, []string{"node-1", "node-2", "node-3"}) ||
				st.LastHeartbeat == nil || st.LastSend == nil || p.Remote.Datacenter != "dc2" || len(p.PeerCAPems) != 1 ||
				p.PeerID != "" || p.Dialer {
				return fmt.Errorf("node %d has %+v", m.n, p)
			}
		}
		list, err := try[[]client.PeerMember](b.u, b.at, "GET", "/api/v1/peerings/to-a/members", "")
		if err != nil {
			return err
		}
		if len(list) != 3 {
			return fmt.Errorf("%+v", list)
		}
		for i, m := range list {
			if m.NodeID != uint64(i+1) || m.RaftAddress != a.members[i].raft || m.APIAddress != a.members[i].api ||
				m.Health != "alive" {
				return fmt.Errorf("%+v", m)
			}
		}
		return nil
	})
	if got := a.u.do(a.at, "GET", "/api/v1/peerings/nobody/members", ""); got.status != 404 {
		t.Errorf("members of no peering: %v", got)
	}
	// Large answers are compressed for who wants it.
	got := a.u.do(a.at, "GET", "/v1/peering/to-b?pretty", "", "Accept-Encoding: gzip")
	z, err := gzip.NewReader(strings.NewReader(got.body))
	if err != nil || got.header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("compressed: %v, %v", got.header, err)
	}
	if text, err := io.ReadAll(z); err != nil || !strings.HasPrefix(string(text), "{\n    \"ID\": ") ||
		!strings.HasSuffix(string(text), "}\n") {
		t.Errorf("pretty: %s, %v", text, err)
	}
	// The roles of a name stay what they are.
	again := a.post("/v1/peering/establish", object{"PeerName": "to-b", "PeeringToken": b.token(t, "other")})
	again.expect(t, "establish a name that waits for a dialer", 400,
		`cannot create peering with name: "to-b"; there is an existing peering expecting to be dialed`)
	b.post("/v1/peering/token", object{"PeerName": "to-a"}).expect(t, "a token for a name that dials", 400,
		`cannot create peering with name: "to-a"; there is already an established peering`)
	b.remove(t, "other")
	for query, want := range map[string]string{"SELECT name || ' ' || state || ' ' || direction || ' ' || datacenter || " +
		"' ' || members FROM v_peerings": "to-b ACTIVE they dial dc2 1"} {
		eventually(t, formed, query, func() error {
			if have := strings.TrimSpace(sqlite(t, a.at.db(), query)); have != want {
				return fmt.Errorf("%q", have)
			}
			return nil
		})
	}
	// Deletion reaches the other side at once; there the peering stays, without what it had imported.
	before, _ := b.tryPeering("to-a")
	a.remove(t, "to-b")
	p := b.await(t, "to-a", "TERMINATED")
	eventually(t, formed, "what was imported is gone", func() error {
		if p, _ = b.tryPeering("to-a"); p.StreamStatus.ImportedServices != nil {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
	if p.ID != before.ID || p.StatusReason == "" || p.Meta["k"] != "v" {
		t.Errorf("terminated: %+v", p)
	}
	b.remove(t, "to-a")
}

func testPeeringSecrets(t *testing.T, a, b side) {
	refused := "a new peering token must be generated: invalid peering establishment secret"
	old, token := a.token(t, "to-b"), a.token(t, "to-b")
	b.establish("to-a", old).expect(t, "a superseded token", 403, refused)
	b.establish("to-a", parseToken(t, token).with(func(k *peeringToken) {
		k.PeerID = "11111111-2222-3333-4444-555555555555"
	})).expect(t, "an unknown peering", 403, refused)
	b.establish("to-a", parseToken(t, token).with(func(k *peeringToken) { k.EstablishmentSecret = "" })).expect(t,
		"no secret", 403, refused)
	if got := b.u.do(b.at, "GET", "/v1/peerings", ""); got.body != "[]" {
		t.Errorf("failed tries have left %v", got)
	}
	// Of two that use one token at the same time, one gets it.
	answers := make(chan answer, 2)
	for _, name := range []string{"first", "second"} {
		go func() { answers <- b.establish(name, token) }()
	}
	x, y := <-answers, <-answers
	if x.status > y.status {
		x, y = y, x
	}
	x.expect(t, "the one of two", 200, "{}")
	y.expect(t, "the other of two", 403, refused)
	var list []client.Peering
	if err := json.Unmarshal([]byte(b.u.do(b.at, "GET", "/v1/peerings", "").body), &list); err != nil || len(list) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	a.await(t, "to-b", "ACTIVE")
	before := b.await(t, list[0].Name, "ACTIVE")
	// A try that fails leaves an established peering as it is.
	b.establish(before.Name, token, "Meta", object{"x": "y"}).expect(t, "a used token", 403, refused)
	if after, _ := b.tryPeering(before.Name); after.State != "ACTIVE" || after.Meta != nil ||
		after.ModifyIndex != before.ModifyIndex {
		t.Errorf("a failed try has changed\n%+v to\n%+v", before, after)
	}
	// A new token on a running peering: nothing is interrupted, identity and addresses stay.
	b.establish(before.Name, parseToken(t, a.token(t, "to-b")).with(func(k *peeringToken) {
		k.ServerAddresses = append(k.ServerAddresses, "127.0.0.1:1")
	}), "Meta", object{"x": "y"}).expect(t, "a new token", 200, "{}")
	if after, _ := b.tryPeering(before.Name); after.State != "ACTIVE" || after.ID != before.ID || after.Meta["x"] != "y" ||
		!slices.Equal(after.PeerServerAddresses, before.PeerServerAddresses) {
		t.Errorf("a new token has changed\n%+v to\n%+v", before, after)
	}
	expiring := a.token(t, "soon", "TokenTTL", "1s")
	eventually(t, formed, "a second has passed", func() error {
		if p, _ := a.tryPeering("soon"); time.Since(p.StatusSince) < 2*time.Second {
			return fmt.Errorf("since %v", p.StatusSince)
		}
		return nil
	})
	b.establish("late", expiring).expect(t, "an expired token", 403, refused)
	a.remove(t, "soon")
	a.remove(t, "to-b")
	b.await(t, before.Name, "TERMINATED")
	b.remove(t, before.Name)
}

// testPeeringSecrecy: no secret is in a log, and none in clear in a database.
func testPeeringSecrecy(t *testing.T, a, b side) {
	for _, s := range []side{a, b} {
		for _, m := range s.members {
			for _, file := range []string{m.log, m.db(), filepath.Join(m.dir, "leader.db")} {
				text, err := os.ReadFile(file)
				if err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
				for secret, what := range s.secrets {
					if strings.Contains(string(text), secret) {
						t.Errorf("%s is in %s", what, file)
					}
				}
			}
		}
	}
}
