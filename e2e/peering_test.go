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
	t.Run("paths", func(t *testing.T) { testPeeringPaths(t, a) })
	t.Run("input", func(t *testing.T) { testPeeringInput(t, a, b) })
	t.Run("access", func(t *testing.T) { testPeeringAccess(t, a) })
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

func testPeeringPaths(t *testing.T, a side) {
	for _, x := range []struct {
		method, path string
		status       int
		body, header string
	}{
		{"GET", "/v1/peering/", 400, "Must specify a name to fetch.", ""},
		{"DELETE", "/v1/peering/", 400, "Must specify a name to fetch.", ""},
		{"GET", "/v1/peering", 307, "", "Location: /v1/peering/"},
		{"POST", "/v1/peering?x=1", 307, "", "Location: /v1/peering/?x=1"},
		{"GET", "//v1/peerings", 307, "", "Location: /v1/peerings"},
		{"GET", "/v1/peerings/", 404, "Invalid URL path: not a recognized HTTP API endpoint\n",
			"X-Consul-Default-Acl-Policy: "},
		{"GET", "/v1/peering/foo/", 404, `Peering not found for "foo/"`, "X-Consul-Index: "},
		{"GET", "/v1/peering/foo/bar", 404, `Peering not found for "foo/bar"`, ""},
		{"GET", "/v1/peering/foo%2Fbar", 404, `Peering not found for "foo/bar"`, ""},
		{"GET", "/v1/peering/NOBODY", 404, `Peering not found for "NOBODY"`, "X-Consul-Default-Acl-Policy: deny"},
		{"GET", "/v1/peering/foo%01", 400, "", ""},
		{"GET", "/v1/peerings?token=%zz", 400, "", ""},
		{"PUT", "/v1/peering/foo", 405, "method PUT not allowed", "Allow: OPTIONS,GET,DELETE"},
		{"GET", "/v1/peering/token", 405, "method GET not allowed", "Allow: OPTIONS,POST"},
		{"DELETE", "/v1/peering/establish", 405, "method DELETE not allowed", "Allow: OPTIONS,POST"},
		{"POST", "/v1/peerings", 405, "method POST not allowed", "Allow: OPTIONS,GET"},
		{"OPTIONS", "/v1/peering/token", 200, "", "Allow: OPTIONS,POST"},
		{"OPTIONS", "/v1/peering/foo", 200, "", "Allow: OPTIONS,GET,DELETE"},
		{"OPTIONS", "/v1/peerings", 200, "", "Allow: OPTIONS,GET"},
		{"HEAD", "/v1/peerings", 405, "", "Allow: OPTIONS,GET"},
		{"DELETE", "/v1/peering/nobody", 200, "", "Content-Length: 0"},
		{"GET", "/v1/peerings", 200, "[]", "Content-Type: application/json"},
		{"GET", "/v1/peerings?pretty", 200, "[]\n", "Vary: Accept-Encoding"},
		{"GET", "/v1/peerings?stale&consistent", 400, "Cannot specify ?stale with ?consistent, conflicting semantics.",
			"Content-Type: text/plain; charset=utf-8"},
		{"GET", "/v1/peerings?stale&dc=nowhere&near=x&ns=y&cached&leader", 200, "[]",
			"X-Consul-Query-Backend: blocking-query"},
		{"GET", "/v1/peerings?wait=x", 400, "Invalid wait time", "X-Consul-Default-Acl-Policy: deny"},
		{"GET", "/v1/peering/foo?index=-1", 400, "Invalid index", ""},
		{"GET", "/v1/peerings?max_stale=zz", 400, `Invalid max_stale value "zz"`, ""},
		{"GET", "/v1/peerings?partition=default", 400,
			`Invalid query parameter: "partition" - Partitions are a Consul Enterprise feature`, ""},
		{"DELETE", "/v1/peering/foo?partition=foo", 400,
			`Invalid query parameter: "partition" - Partitions are a Consul Enterprise feature`, ""},
		{"GET", "/v1/peerings?partition=", 200, "[]", "X-Consul-Knownleader: true"},
	} {
		for _, m := range a.members {
			got := a.u.do(m, x.method, x.path, "")
			what := fmt.Sprintf("%s %s on node %d", x.method, x.path, m.n)
			got.expect(t, what, x.status, x.body)
			if name, want, _ := strings.Cut(x.header, ": "); name != "" && got.err == nil && got.header.Get(name) != want {
				t.Errorf("%s: %s is %q, want %q", what, name, got.header.Get(name), want)
			}
		}
	}
	for header, want := range map[string]string{
		"X-Consul-Partition: default": `Invalid header: "X-Consul-Partition" - Partitions are a Consul Enterprise feature`,
		"Cache-Control: max-age=x":    "Invalid Cache-Control header.",
	} {
		a.u.do(a.at, "GET", "/v1/peerings", "", header).expect(t, header, 400, want)
	}
	if got := a.u.do(a.at, "GET", "/v1/peerings?filter=Name+==", ""); got.status != 400 {
		t.Errorf("a filter with a mistake: %v", got)
	}
}

func testPeeringInput(t *testing.T, a, b side) {
	many := map[string]string{}
	for i := range 65 {
		many[fmt.Sprint("k", i)] = ""
	}
	badName := " is not a valid peer name: a valid peering name must consist of lower case alphanumeric characters or " +
		"'-', and must start and end with an alphanumeric character"
	meta := "meta tags failed validation: Couldn't load metadata pair "
	good := parseToken(t, b.token(t, "unused"))
	b.remove(t, "unused")
	for _, x := range []struct {
		path string
		body any
		want string
	}{
		{"token", "", "Body decoding failed: EOF"},
		{"token", "abc", "Body decoding failed: invalid character 'a' looking for beginning of value"},
		{"token", `{"PeerName":`, "Body decoding failed: unexpected EOF"},
		{"token", `{"PeerName":"p","Bogus":1}`, `Body decoding failed: json: unknown field "Bogus"`},
		{"token", `[]`,
			"Body decoding failed: json: cannot unmarshal array into Go value of type api.PeeringGenerateTokenRequest"},
		{"token", `"x"`,
			"Body decoding failed: json: cannot unmarshal string into Go value of type api.PeeringGenerateTokenRequest"},
		{"token", `{"PeerName":1}`,
			"Body decoding failed: json: cannot unmarshal number into Go struct field PeeringGenerateTokenRequest.PeerName of " +
				"type string"},
		{"token", `{"PeerName":"p","Meta":{"a":1}}`,
			"Body decoding failed: json: cannot unmarshal number into Go struct field PeeringGenerateTokenRequest.Meta of " +
				"type string"},
		{"token", `{}`, "PeerName is required in the payload when generating a new peering token."},
		{"token", `null`, "PeerName is required in the payload when generating a new peering token."},
		{"token", object{"PeerName": "p", "Partition": "foo"}, "Partitions are a Consul Enterprise feature"},
		{"token", object{"PeerName": "UPPER"}, "UPPER" + badName},
		{"token", object{"PeerName": "a.b"}, "a.b" + badName},
		{"token", object{"PeerName": "-a"}, "-a" + badName},
		{"token", object{"PeerName": strings.Repeat("a", 64)}, strings.Repeat("a", 64) + badName},
		{"token", object{"PeerName": "token"},
			"token is not a valid peer name: /v1/peering/token is an endpoint, so a peering of that name could be neither " +
				"read nor deleted"},
		{"token", object{"PeerName": "p", "Meta": many},
			"meta tags failed validation: Node metadata cannot contain more than 64 key/value pairs"},
		{"token", object{"PeerName": "p", "Meta": object{"": "v"}}, meta + "('', 'v'): Key cannot be blank"},
		{"token", object{"PeerName": "p", "Meta": object{"a b": "v"}}, meta +
			"('a b', 'v'): Key contains invalid characters"},
		{"token", object{"PeerName": "p", "Meta": object{"consul-x": "v"}}, meta +
			"('consul-x', 'v'): Key prefix 'consul-' is reserved for internal use"},
		{"token", object{"PeerName": "p", "ServerExternalAddresses": []string{"nonsense"}},
			"nonsense is not a valid peering server address"},
		{"token", object{"PeerName": "p", "ServerExternalAddresses": []string{""}}, " is not a valid peering server address"},
		{"token", object{"PeerName": "p", "TokenTTL": "soon"}, "TokenTTL must be a duration from 1s to 8784h, such as 24h"},
		{"establish", "", "Body decoding failed: EOF"},
		{"establish", `[]`,
			"Body decoding failed: json: cannot unmarshal array into Go value of type api.PeeringEstablishRequest"},
		{"establish", `{}`, "PeerName is required in the payload when establishing a peering."},
		{"establish", object{"PeerName": "p"}, "PeeringToken is required in the payload when establishing a peering."},
		{"establish", object{"PeerName": "--AA--", "PeeringToken": "x"}, "--AA--" + badName},
		{"establish", object{"PeerName": "establish", "PeeringToken": "x"},
			"establish is not a valid peer name: /v1/peering/establish is an endpoint, so a peering of that name could be " +
				"neither read nor deleted"},
		{"establish", object{"PeerName": "p", "PeeringToken": "++!/+++"},
			"failed to decode token: illegal base64 data at input byte 2"},
		{"establish", object{"PeerName": "p", "PeeringToken": "Cg=="}, "unexpected end of JSON input"},
		{"establish", object{"PeerName": "p", "PeeringToken": "W10="},
			"json: cannot unmarshal array into Go value of type structs.PeeringToken"},
		{"establish", object{"PeerName": "p", "PeeringToken": "e30K"}, "peering token server addresses value is empty"},
		{"establish", object{"PeerName": "p", "PeeringToken": good.with(func(k *peeringToken) { k.CA = []string{"x"} })},
			"peering token invalid CA: no PEM-encoded data found"},
		{"establish", object{"PeerName": "p",
			"PeeringToken": good.with(func(k *peeringToken) { k.ServerAddresses = []string{"1.2.3.4"} })},
			"1.2.3.4 is not a valid peering server address"},
		{"establish", object{"PeerName": "p",
			"PeeringToken": good.with(func(k *peeringToken) { k.ManualServerAddresses = []string{"::1:80"} })},
			"::1:80 is not a valid peering server address"},
		{"establish", object{"PeerName": "p", "PeeringToken": good.with(func(k *peeringToken) { k.ServerName = "" })},
			"peering token server name value is empty"},
		{"establish", object{"PeerName": "p", "PeeringToken": good.with(func(k *peeringToken) { k.PeerID = "" })},
			"peering token peer ID value is empty"},
		{"establish", object{"PeerName": "p", "PeeringToken": good.with(func(k *peeringToken) { k.CA = nil })},
			"peering token CA value is empty: peers are reached over TLS only"},
		{"establish", object{"PeerName": "p", "PeeringToken": good.with(func(*peeringToken) {}), "Meta": many},
			"meta tags failed validation: Node metadata cannot contain more than 64 key/value pairs"},
	} {
		body, ok := x.body.(string)
		if !ok {
			data, _ := json.Marshal(x.body)
			body = string(data)
		}
		// What is wrong with the request is said before who asks.
		for _, u := range []*user{a.u, a.nobody(t)} {
			got := u.do(a.at, "POST", "/v1/peering/"+x.path, body)
			got.expect(t, x.path+" "+body[:min(len(body), 80)], 400, x.want)
			if got.err == nil && got.header.Get("Content-Type") != "text/plain; charset=utf-8" {
				t.Errorf("%s: Content-Type %q", x.path, got.header.Get("Content-Type"))
			}
		}
	}
	self := a.token(t, "self")
	want := fmt.Sprintf("cannot create a peering within the same cluster %q. Refer to the `exported-services` "+
		"documentation if you want to export between partitions without peering",
		parseToken(t, self).ServerName)
	a.establish("myself", self).expect(t, "peering with itself", 400, want)
	a.remove(t, "self")
	if got := a.u.do(a.at, "GET", "/v1/peerings", ""); got.body != "[]" {
		t.Errorf("refused requests have left %v", got)
	}
}

func testPeeringAccess(t *testing.T, a side) {
	reader := a.u.apiToken(t, a.at, "reader", "peering:read")
	writer := a.u.apiToken(t, a.at, "writer", "peering:write")
	other := a.u.apiToken(t, a.at, "other", "cluster:manage")
	anonymous := "Permission denied: anonymous token lacks permission '%s'. The anonymous token is used implicitly when " +
		"a request does not specify a token."
	lacks := "Permission denied: token with AccessorID '%s' lacks permission '%s'"
	read, write := "GET /v1/peering/nobody", "DELETE /v1/peering/nobody"
	for _, x := range []struct {
		what, call, header, query string
		status                    int
		body                      string
	}{
		{"nobody reads", read, "", "", 403, fmt.Sprintf(anonymous, "peering:read")},
		{"nobody writes", write, "", "", 403, fmt.Sprintf(anonymous, "peering:write")},
		{"anonymous", read, "X-Consul-Token: anonymous", "", 403, fmt.Sprintf(anonymous, "peering:read")},
		{"basic", read, "Authorization: Basic YTpi", "", 403, fmt.Sprintf(anonymous, "peering:read")},
		{"unknown", read, "X-Consul-Token: nope", "", 403, "ACL not found"},
		{"reader reads", read, "X-Consul-Token: " + reader.Token, "", 404, `Peering not found for "nobody"`},
		{"reader writes", write, "X-Consul-Token: " + reader.Token, "", 403, fmt.Sprintf(lacks, reader.ID, "peering:write")},
		{"writer reads", read, "Authorization: bearer   " + writer.Token + " more", "", 404,
			`Peering not found for "nobody"`},
		{"writer writes", write, "X-Consul-Token: " + writer.Token, "", 200, ""},
		{"another right", read, "X-Consul-Token: " + other.Token, "", 403, fmt.Sprintf(lacks, other.ID, "peering:read")},
		{"in the query", read, "", "?token=" + reader.Token, 404, `Peering not found for "nobody"`},
		{"the query counts first", read, "X-Consul-Token: " + reader.Token, "?token=nope", 403, "ACL not found"},
		{"the header counts before bearer", read, "X-Consul-Token: nope", "", 403, "ACL not found"},
	} {
		method, path, _ := strings.Cut(x.call, " ")
		u := a.nobody(t)
		var headers []string
		if x.header != "" {
			headers = append(headers, x.header)
		}
		u.do(a.at, method, path+x.query, "", headers...).expect(t, x.what, x.status, x.body)
	}
	// The query is for this family alone.
	if got := a.nobody(t).do(a.at, "GET", "/api/v1/cluster/members?token="+a.u.token, ""); got.status != 401 {
		t.Errorf("a token in the query of another family: %v", got)
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
