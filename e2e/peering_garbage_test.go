package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// testPeeringGarbage: a dialer that does not keep to the protocol loses its stream and changes nothing.
func testPeeringGarbage(t *testing.T, a side) {
	k := parseToken(t, a.token(t, "bad"))
	for _, m := range a.members { // leader or not
		for _, first := range []string{"", "{}", "nonsense", `{"heartbeat":{}}`, `{"exchange":{},"open":{}}`,
			`{"exchange":{"peerId":"x","secret":"y","more":1}}`,
			`{"open":{"peerId":"","secret":"x"}}`, fmt.Sprintf(`{"open":{"peerId":%q,"secret":"x"}}`, k.PeerID),
			strings.Repeat("x", 2<<20)} {
			f := dialFake(t, m.raft, k)
			f.send(first)
			f.closed(t)
		}
	}
	secret := dialFake(t, a.at.raft, k).exchange(t, k)
	a.secret("a stream secret", secret)
	member := `{"members":{"first":true,"last":true,"list":[{"id":"1","name":"m1","nodeId":1,"raftAddress":"r",` +
		`"apiAddress":"a","health":"alive"}]}}`
	pems, _ := json.Marshal(k.CA)
	trust := fmt.Sprintf(`{"trust":{"sequence":1,"pems":%s}}`, pems)
	for _, x := range []struct{ text, reason string }{
		{"nonsense", "cannot be read"},
		{`{"members":{"first":true,"last":true,"list":[{"id":"","name":"","nodeId":1,"raftAddress":"","apiAddress":"",` +
			`"health":""}]}}`, "invalid member"},
		{`{"members":{"last":true,"list":[]}}`, "no beginning"},
		{`{"trust":{"sequence":9,"pems":["x"]}}`, "authority"},
		{`{"addresses":{"list":["1.2.3.4:5"]}}`, "not allowed on a stream"},
		{strings.Repeat(" ", 2<<20), "announces"},
	} {
		f := dialFake(t, a.at.raft, k)
		f.send(fmt.Sprintf(`{"open":{"peerId":%q,"secret":%q,"datacenter":"far"}}`, k.PeerID, secret))
		if got := f.receive(t); !strings.HasPrefix(got, `{"opened":`) {
			t.Fatalf("open: %s", got)
		}
		a.await(t, "bad", "ACTIVE")
		f.send(member)
		f.send(trust)
		f.send(`{"ping":{}}`)
		for got := f.receive(t); got != `{"pong":{}}`; got = f.receive(t) {
		}
		f.send(x.text)
		f.closed(t)
		p := a.await(t, "bad", "FAILING")
		eventually(t, formed, "the list before is there", func() error {
			if p, _ = a.tryPeering("bad"); len(p.StreamStatus.ImportedServices) != 1 {
				return fmt.Errorf("%+v", p)
			}
			return nil
		})
		if !strings.Contains(p.StatusReason, x.reason) || !slices.Equal(p.PeerCAPems, k.CA) || p.PeerServerAddresses != nil {
			t.Errorf("after %.40s: %+v, want %q", x.text, p, x.reason)
		}
	}
	// The newest stream counts; the one before it ends, and that is no failure.
	var streams []fakePeer
	for range 2 {
		f := dialFake(t, a.at.raft, k)
		f.send(fmt.Sprintf(`{"open":{"peerId":%q,"secret":%q}}`, k.PeerID, secret))
		f.receive(t)
		streams = append(streams, f)
	}
	streams[0].closed(t)
	a.await(t, "bad", "ACTIVE")
	a.u.do(a.at, "DELETE", "/v1/peering/bad", "").expect(t, "delete", 200, "")
	for got := ""; got != `{"terminated":{}}`; got = streams[1].receive(t) {
	}
	a.await(t, "bad", "")
	// Who comes later with the right secret is told, who has none is not.
	for s, want := range map[string]string{secret: "terminated", "wrong": "refused"} {
		f := dialFake(t, a.at.raft, k)
		f.send(fmt.Sprintf(`{"open":{"peerId":%q,"secret":%q}}`, k.PeerID, s))
		if got := f.receive(t); !strings.Contains(got, fmt.Sprintf(`"code":%q`, want)) {
			t.Errorf("after the deletion: %s, want %s", got, want)
		}
	}
}

// testPeeringFrozen: a peer that stands still is FAILING, with a reason, until it goes on.
func testPeeringFrozen(t *testing.T, a, b side) {
	peer(t, a, "to-b", b, "to-a")
	b.at.pause()
	p := a.await(t, "to-b", "FAILING")
	if !strings.Contains(p.StatusReason, "silent") {
		t.Errorf("the reason is %q", p.StatusReason)
	}
	b.at.carryOn()
	a.await(t, "to-b", "ACTIVE")
	b.await(t, "to-a", "ACTIVE")
	b.remove(t, "to-a")
	a.await(t, "to-b", "TERMINATED")
	a.remove(t, "to-b")
}

// testPeeringAway: deletions reach a cluster that was away, whichever side it is.
func testPeeringAway(t *testing.T, a, b side) {
	peer(t, a, "we-accept", b, "they-dial")
	peer(t, b, "they-accept", a, "we-dial")
	b.at.kill()
	for _, name := range []string{"we-accept", "we-dial"} {
		if p := a.await(t, name, "FAILING"); p.StatusReason == "" {
			t.Errorf("%s is FAILING without a reason", name)
		}
		a.remove(t, name)
	}
	b.at.start(t)
	b.at.awaitReady(t)
	for _, name := range []string{"they-accept", "they-dial"} {
		b.await(t, name, "TERMINATED")
		b.remove(t, name)
	}
}
