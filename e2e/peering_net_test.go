package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/client"
)

// testPeeringUnreachable: why an acceptor cannot be reached is said for each address, in time, and nothing is left.
func testPeeringUnreachable(t *testing.T, a, b side) {
	k := parseToken(t, a.token(t, "to-b"))
	foreign := parseToken(t, b.token(t, "foreign")).CA
	b.remove(t, "foreign")
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	go func() {
		for {
			conn, err := plain.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("220 not what you expect\r\n"))
			conn.Close()
		}
	}()
	dead := fmt.Sprintf("127.0.0.1:%d", freePort())
	var wg sync.WaitGroup
	const alike = "\": the other side cannot be reached\n" // whatever it is
	for _, x := range []struct {
		what   string
		change func(*peeringToken)
		lines  int
	}{
		{"another authority", func(k *peeringToken) { k.CA = foreign }, 3},
		{"another name", func(k *peeringToken) { k.ServerName = "wrong.name" }, 3},
		{"a port without TLS", func(k *peeringToken) { k.ServerAddresses = []string{plain.Addr().String()} }, 1},
		{"the API", func(k *peeringToken) { k.ServerAddresses = []string{a.at.api} }, 1},
		{"nobody", func(k *peeringToken) { k.ManualServerAddresses = []string{dead, "localhost:1"} }, 2},
	} {
		wg.Go(func() {
			got := b.establish("to-a", k.with(x.change))
			if got.status != 503 || strings.Count(got.body, alike) != x.lines ||
				strings.Count(got.body, "\t* failed to exchange peering secret through address ") != x.lines ||
				!strings.HasPrefix(got.body, fmt.Sprintf("%d error", x.lines)) {
				t.Errorf("%s: %v, want 503 with %d lines like %q", x.what, got, x.lines, alike)
			}
			if got.late(5 * time.Second) {
				t.Errorf("%s: the answer took %v", x.what, got.took)
			}
		})
	}
	wg.Wait()
	if got := b.u.do(b.at, "GET", "/v1/peerings", ""); got.body != "[]" {
		t.Errorf("failed tries have left %v", got)
	}
	// One good address among bad ones will do; what an operator gave stays the only way.
	b.establish("to-a", k.with(func(k *peeringToken) {
		k.ManualServerAddresses, k.ServerAddresses = []string{dead, a.at.raft}, []string{"localhost:1"}
	})).expect(t, "a dead address among good ones", 200, "{}")
	b.await(t, "to-a", "ACTIVE")
	a.await(t, "to-b", "ACTIVE")
	// Foreign connections to the cluster listener that never say who they are get nothing and disturb nobody.
	conn, err := net.Dial("tcp", a.at.raft)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = conn.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
	conn.Close()
	b.remove(t, "to-a")
	a.await(t, "to-b", "TERMINATED")
	a.remove(t, "to-b")
}

// testPeeringAgain: peerings that the other side has ended are taken up again, and deletion and creation follow at
// once.
func testPeeringAgain(t *testing.T, a, b side) {
	peer(t, a, "to-b", b, "to-a")
	dialer, _ := b.tryPeering("to-a")
	acceptor, _ := a.tryPeering("to-b")
	a.u.do(a.at, "DELETE", "/v1/peering/to-b", "").expect(t, "delete", 200, "")
	token := a.token(t, "to-b") // the deletion may still be under way
	b.await(t, "to-a", "TERMINATED")
	b.establish("to-a", token).expect(t, "establish a terminated peering", 200, "{}")
	after := b.await(t, "to-a", "ACTIVE")
	fresh := a.await(t, "to-b", "ACTIVE")
	if after.ID != dialer.ID || after.CreateIndex != dialer.CreateIndex || after.PeerID == dialer.PeerID ||
		fresh.ID == acceptor.ID || fresh.CreateIndex == acceptor.CreateIndex {
		t.Errorf("the dialer was %+v\nand is %+v,\nthe acceptor was %+v\nand is %+v", dialer, after, acceptor, fresh)
	}
	// The dialer ends it; a token for the terminated acceptor works without deleting anything.
	b.remove(t, "to-a")
	a.await(t, "to-b", "TERMINATED")
	token = a.token(t, "to-b")
	if p, _ := a.tryPeering("to-b"); p.State != "PENDING" || p.ID != fresh.ID {
		t.Errorf("after a token for a terminated peering: %+v", p)
	}
	b.establish("to-a", token).expect(t, "establish with it", 200, "{}")
	b.await(t, "to-a", "ACTIVE")
	a.await(t, "to-b", "ACTIVE")
	// The other direction at the same time is a peering of its own.
	peer(t, b, "back", a, "forth")
	for _, x := range []struct {
		s    side
		name string
	}{{a, "forth"}, {a, "to-b"}} {
		if p, _ := x.s.tryPeering(x.name); p.State != "ACTIVE" {
			t.Errorf("%s is %s", x.name, p.State)
		}
		x.s.remove(t, x.name)
	}
	b.await(t, "back", "TERMINATED")
	b.await(t, "to-a", "TERMINATED")
	b.remove(t, "back")
	b.remove(t, "to-a")
}

// testPeeringBlocking: blocking queries wake for what they wait for, on any member, and for nothing else.
func testPeeringBlocking(t *testing.T, a side) {
	ask := func(path string, index any, wait string) chan answer {
		done := make(chan answer, 1)
		go func() { done <- a.u.do(a.at, "GET", fmt.Sprintf("%s?index=%v&wait=%s", path, index, wait), "") }()
		return done
	}
	list := a.u.do(a.at, "GET", "/v1/peerings", "")
	waiting := ask("/v1/peerings", list.header.Get("X-Consul-Index"), "15s")
	a.token(t, "unwanted")
	if got := <-waiting; got.status != 200 || !strings.Contains(got.body, `"unwanted"`) ||
		got.header.Get("X-Consul-Index") <= list.header.Get("X-Consul-Index") &&
			len(got.header.Get("X-Consul-Index")) == len(list.header.Get("X-Consul-Index")) {
		t.Errorf("the list: %v (index %s after %s)", got, got.header.Get("X-Consul-Index"), list.header.Get("X-Consul-Index"))
	}
	missing := ask("/v1/peering/wanted", a.u.do(a.at, "GET", "/v1/peerings", "").header.Get("X-Consul-Index"), "15s")
	a.token(t, "wanted")
	if got := <-missing; got.status != 200 || !strings.Contains(got.body, `"wanted"`) {
		t.Errorf("one that was missing: %v", got)
	}
	p, _ := a.tryPeering("wanted")
	short := ask("/v1/peering/wanted", p.ModifyIndex, "1s")
	long := ask("/v1/peering/wanted", p.ModifyIndex, "15s")
	a.token(t, "unwanted") // does not concern them
	if got := <-short; got.status != 200 || got.header.Get("X-Consul-Index") != fmt.Sprint(p.ModifyIndex) ||
		got.took < time.Second {
		t.Errorf("a time-out: %v after %v", got, got.took)
	}
	a.token(t, "wanted")
	var now client.Peering
	if got := <-long; json.Unmarshal([]byte(got.body), &now) != nil || now.ModifyIndex <= p.ModifyIndex ||
		got.header.Get("X-Consul-Index") != fmt.Sprint(now.ModifyIndex) {
		t.Errorf("a change: %v", got)
	}
	gone := ask("/v1/peering/wanted", now.ModifyIndex+1, "15s") // DELETING is one change, its end the next
	a.u.do(a.at, "DELETE", "/v1/peering/wanted", "").expect(t, "delete", 200, "")
	if got := <-gone; got.status != 404 && got.status != 200 {
		t.Errorf("a deletion: %v", got)
	}
	a.remove(t, "unwanted")
	a.await(t, "wanted", "")
	before := a.u.do(a.at, "GET", "/v1/peerings", "").header.Get("X-Consul-Index")
	a.u.do(a.at, "DELETE", "/v1/peering/nobody", "")
	if after := a.u.do(a.at, "GET", "/v1/peerings", "").header.Get("X-Consul-Index"); after != before {
		t.Errorf("the index went from %s to %s while nothing changed", before, after)
	}
}

// testPeeringCommands: a token alone on stdout, read from stdin on the other side.
func testPeeringCommands(t *testing.T, a, b side) {
	out := muster(t, "peering", "token", "cli-b", "--meta", "team=x", "--address", a.at.raft, "--data", a.members[0].dir)
	if out.code != 0 || strings.Count(out.stdout, "\n") != 1 || !strings.Contains(out.stderr, "cli-b") {
		t.Fatalf("token: %+v", out)
	}
	a.secret("a peering token", strings.TrimSpace(out.stdout))
	if got := (command{stdin: out.stdout}).run(t, "peering", "establish", "cli-a", "-", "--data",
		b.at.dir); got.code != 0 || got.stdout != "" {
		t.Fatalf("establish: %+v", got)
	}
	b.await(t, "cli-a", "ACTIVE")
	a.await(t, "cli-b", "ACTIVE")
	for _, x := range []struct{ args, want string }{
		{"peering list", "cli-b"}, {"peering show cli-b", "team=x"}, {"peering members cli-b", b.at.raft},
		{"peering list -o json", `"State": "ACTIVE"`},
	} {
		eventually(t, formed, x.args, func() error {
			if got := muster(t, append(strings.Fields(x.args), "--data", a.members[0].dir)...); got.code != 0 ||
				!strings.Contains(got.stdout, x.want) {
				return fmt.Errorf("%+v", got)
			}
			return nil
		})
	}
	for _, x := range []struct {
		args string
		code int
	}{{"peering show nobody", 1}, {"peering establish cli-a nonsense", 1}, {"peering token", 2},
		{"peering token UPPER", 1}, {"peering delete cli-b", 1}, {"peering delete cli-b --yes", 0},
		{"peering delete nobody --yes", 1}} {
		if got := muster(t, append(strings.Fields(x.args), "--data", a.members[0].dir)...); got.code != x.code {
			t.Errorf("%s: %+v", x.args, got)
		}
	}
	a.await(t, "cli-b", "")
	b.await(t, "cli-a", "TERMINATED")
	b.remove(t, "cli-a")
}

// testPeeringLeaders: streams move with the leader, on either side, and the state that was known stays known.
func testPeeringLeaders(t *testing.T, a, b side) {
	peer(t, a, "we-accept", b, "they-dial")
	peer(t, b, "they-accept", a, "we-dial")
	seen := func(what string, since time.Time) {
		t.Helper()
		for _, x := range []struct {
			s    side
			name string
		}{{a, "we-accept"}, {a, "we-dial"}, {b, "they-dial"}, {b, "they-accept"}} {
			eventually(t, formed, what+": "+x.name+" is carried by the new leader", func() error {
				p, got := x.s.tryPeering(x.name)
				if got.err != nil {
					return got.err
				}
				if p.State != "ACTIVE" || p.StreamStatus.LastReceive == nil || p.StreamStatus.LastReceive.Before(since) {
					return fmt.Errorf("%v", got)
				}
				return nil
			})
		}
		t.Logf("%s: all streams are there after %v", what, time.Since(since).Round(10*time.Millisecond))
	}
	leader := a.leader(t)
	a.at = a.others(leader)[0]
	// A blocking query survives the change of leader.
	waiting := make(chan answer, 1)
	p, _ := a.tryPeering("we-dial")
	go func() {
		waiting <- a.u.do(a.at, "GET", fmt.Sprintf("/v1/peering/we-dial?index=%d&wait=4s", p.ModifyIndex+1000), "")
	}()
	begin := time.Now()
	leader.kill()
	a.leader(t)
	seen("the leader of three is killed", begin)
	leader.start(t)
	leader.awaitReady(t)
	if got := <-waiting; got.status != 200 || !strings.Contains(got.body, `"we-dial"`) || got.took < 4*time.Second {
		t.Errorf("a blocking query over the change of leader: %v after %v", got, got.took)
	}
	begin = time.Now()
	b.at.kill()
	b.at.start(t)
	b.at.awaitReady(t)
	seen("the single member is killed", begin)
	// A hand-over is no failure.
	before, _ := b.tryPeering("they-dial")
	leader = a.leader(t)
	to := a.others(leader)[0]
	a.at = to
	begin = time.Now()
	if out := muster(t, "raft", "transfer", fmt.Sprint(to.n), "--data", a.members[0].dir); out.code != 0 {
		t.Fatalf("transfer: %+v", out)
	}
	seen("leadership is handed over", begin)
	if after, _ := b.tryPeering("they-dial"); after.StatusSince != before.StatusSince {
		t.Errorf("a hand-over has changed the state: %+v", after)
	}
	for _, name := range []string{"we-accept", "we-dial"} {
		a.remove(t, name)
	}
	b.await(t, "they-dial", "TERMINATED")
	b.await(t, "they-accept", "TERMINATED")
	b.remove(t, "they-dial")
	b.remove(t, "they-accept")
}

// testPeeringAuthorities: the transport authorities of either side are replaced, and the peering goes on with the new
// ones alone.
func testPeeringAuthorities(t *testing.T, a, b side) {
	peer(t, a, "to-b", b, "to-a")
	learns := []struct {
		s      side
		name   string
		before []string
	}{{s: b, name: "to-a"}, {s: a, name: "to-b"}}
	for i := range learns {
		eventually(t, formed, "the authority is known to "+learns[i].name, func() error {
			p, got := learns[i].s.tryPeering(learns[i].name)
			if learns[i].before = p.PeerCAPems; len(p.PeerCAPems) != 1 {
				return fmt.Errorf("%v", got)
			}
			return nil
		})
	}
	for _, s := range []side{a, b} {
		s.u.rotateCA(t, s.at, `{"kind":"transport","overlap":"2s"}`)
	}
	for _, x := range learns {
		eventually(t, formed, "both authorities are known to "+x.name, func() error {
			if p, got := x.s.tryPeering(x.name); len(p.PeerCAPems) != 2 {
				return fmt.Errorf("%v", got)
			}
			return nil
		})
	}
	for _, x := range learns {
		x.s.u.awaitPhase(t, x.s.at, "none", "transport")
	}
	for _, x := range learns {
		eventually(t, formed, "only the new authority is known to "+x.name, func() error {
			p, got := x.s.tryPeering(x.name)
			if len(p.PeerCAPems) != 1 || p.PeerCAPems[0] == x.before[0] || p.State != "ACTIVE" {
				return fmt.Errorf("%v", got)
			}
			return nil
		})
	}
	b.at.stop(t)
	b.at.start(t)
	b.at.awaitReady(t)
	begin := time.Now()
	eventually(t, formed, "a stream under the new authority", func() error {
		p, got := b.tryPeering("to-a")
		if p.State != "ACTIVE" || p.StreamStatus.LastReceive == nil ||
			p.StreamStatus.LastReceive.Before(begin.Add(-time.Second)) {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
	b.remove(t, "to-a")
	a.await(t, "to-b", "TERMINATED")
	a.remove(t, "to-b")
}
