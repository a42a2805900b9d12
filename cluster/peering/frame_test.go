package peering

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster/certs"
	"muster/internal/addr"
	"muster/store"
)

func TestFramesAreStrict(t *testing.T) {
	for text, ok := range map[string]bool{
		`{"ping":{}}`: true,
		`{"exchange":{"peerId":"a","secret":"b"}}`:         true,
		`{"members":{"first":true,"last":true,"list":[]}}`: true,
		``:                                    false,
		`{}`:                                  false,
		`null`:                                false,
		`[]`:                                  false,
		`{"ping":null}`:                       false,
		`{"ping":{}}{"pong":{}}`:              false,
		`{"ping":{}} x`:                       false,
		`{"ping":{},"pong":{}}`:               false,
		`{"ping":{"more":1}}`:                 false,
		`{"bogus":{}}`:                        false,
		`{"open":{"peerId":1}}`:               false,
		`{"trust":{"sequence":-1,"pems":[]}}`: false,
		`{"members":{"list":[{"id":"x","nodeId":1.5}]}}`:  false,
		`{"open":{"peerId":"a","secret":"b"},"moved":{}}`: false,
		"{\"ping\":{}}\n": true,
		`{"refused":{"code":"secret","message":"no"}}`:                   true,
		strings.Repeat("[", 20_000):                                      false,
		`{"members":{"list":[` + strings.Repeat("{},", 25_000) + `{}]}}`: false,
		`{"trust":{"pems":[` + strings.Repeat(`"",`, 25_000) + `""]}}`:   false,
		`{"addresses":{"list":["a"]},"addresses":{"x":["b"]}}`:           false,
	} {
		if f, err := decodeFrame([]byte(text)); (err == nil) != ok {
			t.Errorf("%.60s: %+v, %v", text, f, err)
		}
	}
}

// pipe is two ends of a connection between clusters.
func pipe(t *testing.T) (a, b *peerConn) {
	x, y := net.Pipe()
	t.Cleanup(func() { x.Close(); y.Close() })
	return &peerConn{Conn: x}, &peerConn{Conn: y}
}

func TestFrameLengths(t *testing.T) {
	for _, n := range []uint32{0, frameLimit + 1, 1 << 31} {
		a, b := pipe(t)
		go func() { _, _ = a.Conn.Write(binary.BigEndian.AppendUint32(nil, n)) }()
		if f, err := b.read(); err == nil || !strings.Contains(err.Error(), "announces") {
			t.Errorf("%d bytes: %+v, %v", n, f, err)
		}
	}
	a, b := pipe(t)
	go func() {
		_, _ = a.Conn.Write(append(binary.BigEndian.AppendUint32(nil, 100), "{"...))
		a.Close()
	}()
	if _, err := b.read(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("half a message: %v", err)
	}
	if err := a.write(frame{Secret: &secretFrame{strings.Repeat("x", frameLimit)}}, time.Second); err == nil {
		t.Error("a message that is too large was sent")
	}
}

// What is sent arrives as it is, and anything else is an error, never a panic.
func TestFramesRoundTrip(t *testing.T) {
	text := rapid.StringN(0, 40, 80)
	members := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) store.PeerMember {
		return store.PeerMember{ID: text.Draw(t, "id"), Name: text.Draw(t, "name"),
			NodeID: rapid.Uint64Range(0, 1<<53).Draw(t, "node"), Health: "alive"}
	}), 0, 20)
	rapid.Check(t, func(rt *rapid.T) {
		f := rapid.SampledFrom([]frame{
			{Ping: &struct{}{}}, {Open: &openFrame{PeerID: text.Draw(rt, "peer"), Secret: text.Draw(rt, "secret")}},
			{Members: &membersFrame{First: true, List: members.Draw(rt, "members")}},
			{Trust: &trustFrame{Sequence: rapid.Uint64().Draw(rt, "sequence"),
				PEMs: rapid.SliceOfN(text, 1, 3).Draw(rt, "pems")}},
		}).Draw(rt, "frame")
		data, err := json.Marshal(f)
		if err != nil {
			rt.Fatal(err)
		}
		got, err := decodeFrame(data)
		if err != nil || !reflect.DeepEqual(*got, f) {
			rt.Fatalf("%s became %+v, %v", data, got, err)
		}
		at := rapid.IntRange(0, len(data)-1).Draw(rt, "at")
		data[at] = rapid.Byte().Draw(rt, "byte")
		_, _ = decodeFrame(data)
	})
}

func TestMembersInPieces(t *testing.T) {
	s := &stream{imports: make(chan []store.PeerMember, 1)}
	m := func(id string) store.PeerMember { return store.PeerMember{ID: id, Name: "n" + id} }
	for _, x := range []struct {
		what string
		f    membersFrame
		ok   bool
		want []store.PeerMember // that waits to be applied
	}{
		{"no beginning", membersFrame{List: []store.PeerMember{m("1")}}, false, nil},
		{"a beginning", membersFrame{First: true, List: []store.PeerMember{m("1")}}, true, nil},
		{"the end", membersFrame{Last: true, List: []store.PeerMember{m("2")}}, true, []store.PeerMember{m("1"), m("2")}},
		{"an end without a beginning", membersFrame{Last: true}, false, nil},
		{"nothing at all is a list, too", membersFrame{First: true, Last: true}, true, []store.PeerMember{}},
		{"a member without an id", membersFrame{First: true, Last: true, List: []store.PeerMember{m("")}}, false, nil},
		{"a member with a long name", membersFrame{First: true, Last: true,
			List: []store.PeerMember{{ID: "1", Name: strings.Repeat("x", 257)}}}, false, nil},
		{"too many", membersFrame{First: true, Last: true, List: make([]store.PeerMember, maxPeerMembers+1)}, false, nil},
	} {
		if err := s.gather(&x.f); (err == nil) != x.ok {
			t.Errorf("%s: %v", x.what, err)
		}
		var got []store.PeerMember
		select {
		case got = <-s.imports:
		default:
		}
		if (got == nil) != (x.want == nil) || !slices.Equal(got, x.want) {
			t.Errorf("%s: %+v waits to be applied, want %+v", x.what, got, x.want)
		}
	}
	for _, id := range []string{"old", "new"} { // the newest list takes the place of one that waits
		if err := s.gather(&membersFrame{First: true, Last: true, List: []store.PeerMember{m(id)}}); err != nil {
			t.Fatal(err)
		}
	}
	if got := <-s.imports; got[0].ID != "new" {
		t.Errorf("%+v is applied", got)
	}
}

func TestWhatIsExported(t *testing.T) {
	for _, x := range []struct {
		label, peer string
		want        bool
	}{
		{"", "a", true}, {"*", "a", true}, {"none", "a", false}, {"a", "a", true}, {"a", "b", false}, {"b, a",
			"a", true}, {"ab", "a", false}, {"x,*", "a", true},
	} {
		if got := exportsTo(x.label, x.peer); got != x.want {
			t.Errorf("the label %q exports to %s: %t", x.label, x.peer, got)
		}
	}
	x := exported{sequence: 1, roots: []string{"pem"}, addresses: []string{"a:1"}, members: make([]exportedMember, 1201)}
	for i := range x.members {
		x.members[i].ID = string(rune('a' + i%26))
	}
	x.members[0].to = "others"
	s := &stream{name: "a", status: &streamStatus{}}
	var sent exported
	queue := s.news(&sent, x, nil)
	var kinds []string
	total := 0
	for _, f := range queue {
		switch {
		case f.Trust != nil:
			kinds = append(kinds, "trust")
		case f.Addresses != nil:
			kinds = append(kinds, "addresses")
		case f.Members != nil:
			kinds = append(kinds, "members")
			total += len(f.Members.List)
			if f.Members.First != (total <= membersPerFrame) || f.Members.Last != (total == 1200) {
				t.Errorf("after %d members: first %t, last %t", total, f.Members.First, f.Members.Last)
			}
		}
	}
	if got := strings.Join(kinds, " "); got != "trust addresses members members members" || total != 1200 {
		t.Errorf("%s with %d members", got, total)
	}
	if again := s.news(&sent, x, nil); len(again) != 0 {
		t.Errorf("what is known is sent again: %+v", again)
	}
	x.members = x.members[:2]
	if again := s.news(&sent, x, queue); len(again) != 3 { // what was not sent yet of the old list is not sent any more
		t.Errorf("%d messages", len(again))
	}
	s = &stream{name: "a", dialer: true, meta: map[string]string{metaExport: "none"}, status: &streamStatus{}}
	sent = exported{}
	if queue = s.news(&sent, x, nil); len(queue) != 2 || queue[1].Members == nil || len(queue[1].Members.List) != 0 {
		t.Errorf("a dialer that exports nothing says %+v", queue)
	}
}

func TestPeerInputIsChecked(t *testing.T) {
	for _, list := range [][]string{nil, {""}, {"a"}, {"a:"}, {":1"}, {"a:0"}, {"a:65536"}, {"::1:5"},
		make([]string, 65)} {
		if checkAddresses(list) == nil {
			t.Errorf("the addresses %q are taken", list)
		}
	}
	if err := checkAddresses([]string{"a:1", "[::1]:65535", "1.2.3.4:5"}); err != nil {
		t.Error(err)
	}
	for _, list := range [][]string{nil, {"x"}, {"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"},
		make([]string, 17)} {
		if checkRoots(list) == nil {
			t.Errorf("the authorities %q are taken", list)
		}
	}
}

func TestBackoff(t *testing.T) {
	for tries, most := range map[int]time.Duration{0: time.Second, 1: 2 * time.Second, 3: 8 * time.Second,
		4: 8 * time.Second, 60: 8 * time.Second, 1 << 40: 8 * time.Second} {
		for range 50 {
			if d := backoff(tries, dialRest); d < most*4/5 || d > most*6/5 {
				t.Errorf("after %d tries: %v", tries, d)
			}
		}
	}
}

// An exchange ends in time, also when nobody ever answers, and says so for each address.
func TestExchangeEndsInTime(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	silent := l.Addr().String()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
	defer cancel()
	d := peerDialer{addr.DialPolicy{Any: true, Loopback: true}}
	_, err = d.exchangeAny(ctx, slog.New(slog.DiscardHandler), []string{silent, "127.0.0.1:1"},
		certs.PeeringName("dc1", certs.NewUUID()), nil, exchangeFrame{"id", "secret"})
	if err == nil || ctx.Err() != nil || !strings.HasPrefix(err.Error(), "2 errors occurred:\n\t* ") ||
		!strings.HasSuffix(err.Error(), "\n\n") ||
		strings.Count(err.Error(), ": the other side cannot be reached\n") != 2 {
		t.Errorf("%v, %v", err, ctx.Err())
	}
}
