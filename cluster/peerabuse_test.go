package cluster

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"muster/certs"
	"muster/netlimit"
	"muster/store"
)

// What a peer makes this cluster store stays within its budget, whichever way it tries: the newest is stored, and what
// came in between is not.
func TestPeerBudget(t *testing.T) {
	m := startMember(t, netlimit.Limits{})
	id, secret := m.token(t, "noisy")
	_, answer := m.ask(t, frame{Exchange: &exchangeFrame{id, secret}})
	if answer.Secret == nil {
		t.Fatalf("the exchange: %+v", answer)
	}
	open := frame{Open: &openFrame{PeerID: id, Secret: answer.Secret.Secret}}
	var roots []string
	for range 2 {
		roots = append(roots, string(certs.EncodeCert(ownLeaf(t, "ca.example").Certificate[0])))
	}
	before, rows, begin := m.revision(t), m.audits(t), time.Now()
	c, answer := m.ask(t, open)
	if answer.Opened == nil {
		t.Fatalf("the stream: %+v", answer)
	}
	ponged := make(chan bool)
	go func() {
		defer close(ponged)
		for {
			if f, err := c.read(); err != nil || f.Pong != nil {
				return
			}
		}
	}()
	send := func(f frame) {
		if err := c.write(f, 10*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 130 { // trust and members change with each message, as many as are read at once
		send(frame{Trust: &trustFrame{Sequence: uint64(i + 1), PEMs: roots[i%2 : i%2+1]}})
		send(frame{Members: &membersFrame{First: true, Last: true, List: []store.PeerMember{{ID: "1", Name: fmt.Sprint("m", i), Health: "alive"}}}})
		send(frame{Heartbeat: &struct{}{}})
		time.Sleep(5 * time.Millisecond) // so that each could be stored by itself
	}
	send(frame{Ping: &struct{}{}})
	<-ponged
	for range 60 { // streams come and go
		if c, err := m.stranger(t); err == nil && c.write(open, time.Second) == nil {
			_, _ = c.read()
			c.Close()
		}
	}
	took := time.Since(begin)
	most := budgetWrites + int(took/budgetWriteEvery) + 10
	commits, audits := int(m.revision(t)-before), m.audits(t)-rows
	t.Logf("%d commits and %d audit rows in %v", commits, audits, took)
	if commits > most+int(took/time.Second) || audits > 2*most { // others than the peer write a little, too
		t.Errorf("%d commits and %d audit rows in %v, more than %d", commits, audits, took, most)
	}
}

// One list with the same member twice would be applied again and again.
func TestMembersAreUnique(t *testing.T) {
	s := &stream{imports: make(chan []store.PeerMember, 1)}
	m := func(id string) store.PeerMember { return store.PeerMember{ID: id, Name: "n"} }
	if err := s.gather(&membersFrame{First: true, List: []store.PeerMember{m("1"), m("2")}}); err != nil {
		t.Fatal(err)
	}
	if err := s.gather(&membersFrame{Last: true, List: []store.PeerMember{m("3"), m("1")}}); err == nil {
		t.Error("a list with a member twice is taken")
	}
	for _, x := range []store.PeerMember{{ID: "a b"}, {ID: strings.Repeat("1", 65)}, {ID: "1", Name: "a\nb"}, {ID: "1", Name: "\x1b[2J"}, {ID: "1", RaftAddress: "a b"},
		{ID: "1", APIAddress: "a\r\nb"}, {ID: "1", RaftAddress: strings.Repeat("a", 301)}, {ID: "1", Health: "ALIVE"}, {ID: "1", NodeID: 1<<53 + 1}} {
		if s.gather(&membersFrame{First: true, Last: true, List: []store.PeerMember{x}}) == nil {
			t.Errorf("%+v is taken for a member", x)
		}
	}
	big := make([]store.PeerMember, maxPeerMembers)
	for i := range big {
		big[i] = store.PeerMember{ID: fmt.Sprint(i), Name: strings.Repeat("n", 255), RaftAddress: strings.Repeat("a", 300)}
	}
	if s.gather(&membersFrame{First: true, Last: true, List: big}) == nil {
		t.Error("a list of more bytes than may be stored is taken")
	}
}

// An authority is one certificate and nothing around it.
func TestPeerRootsAreBounded(t *testing.T) {
	good := string(certs.EncodeCert(ownLeaf(t, "ca.example").Certificate[0]))
	if err := checkRoots([]string{good}); err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{"two": good + good, "rubbish behind": good + "x", "long": good + strings.Repeat("\n", maxPeerRoot),
		"headers": strings.Replace(good, "-----\n", "-----\nA: b\n\n", 1)} {
		if checkRoots([]string{text}) == nil {
			t.Errorf("an authority with %s is taken", what)
		}
	}
}

func TestBudget(t *testing.T) {
	now := time.Unix(1e9, 0)
	b := newBudget(now)
	written := 0
	for range 100_000 { // a second of trying
		now = now.Add(10 * time.Microsecond)
		if b.wait(now, false) == 0 {
			b.charge(now, 100)
			written++
		}
	}
	if written != budgetWrites {
		t.Errorf("%d writes in a second", written)
	}
	if d := b.wait(now, false); d <= 0 || d > budgetWriteEvery+time.Millisecond {
		t.Errorf("the next write is in %v", d)
	}
	now = now.Add(time.Hour)
	b.charge(now, budgetBytes+10*budgetBytesRate) // one write may be large; the next one waits for it
	if d := b.wait(now, true); d < 9*time.Second || d > 11*time.Second || b.wait(now, false) != 0 {
		t.Errorf("after a large write: %v, and %v for a small one", d, b.wait(now, false))
	}
	opened := 0
	for range 1000 {
		if b.open(now) {
			opened++
		}
	}
	if opened != openBurst || !b.open(now.Add(openEvery+time.Millisecond)) {
		t.Errorf("%d streams at once", opened)
	}
}

// Before the other side has shown who it is, it may say little and only for a while.
func TestFirstFrameIsShort(t *testing.T) {
	m := startMember(t, netlimit.Limits{})
	for _, n := range []uint32{0, firstFrameLimit + 1, 1 << 20, 1 << 31} {
		c, err := m.stranger(t)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Conn.Write(binary.BigEndian.AppendUint32(nil, n))
		if _, err := c.Conn.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Errorf("%d bytes announced: %v", n, err)
		}
	}
	c, err := m.stranger(t)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = c.Conn.Write(append(binary.BigEndian.AppendUint32(nil, 100), "{"...)) // and nothing more
	if _, err := c.Conn.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("half a message: %v", err)
	}
	_, answer := m.ask(t, frame{Exchange: &exchangeFrame{strings.Repeat("x", 1000), "secret"}})
	if answer.Refused == nil || answer.Refused.Code != refusedSecret {
		t.Errorf("a wrong secret: %+v", answer)
	}
}

// Wrong secrets of either kind and handshakes that come to nothing cost an address its access for a while, few lines in
// the log, and the database nothing.
func TestWrongSecretsAreLimited(t *testing.T) {
	m := startMember(t, netlimit.Limits{})
	id, _ := m.token(t, "guessed")
	before := m.audits(t)
	refused, hungUp := 0, 0
	for i := range 400 {
		f := frame{Exchange: &exchangeFrame{id, fmt.Sprint("wrong ", i)}}
		if i%2 == 1 {
			f = frame{Open: &openFrame{PeerID: id, Secret: fmt.Sprint("wrong ", i)}}
		}
		c, err := m.stranger(t)
		var answer *frame
		if err == nil {
			if err = c.write(f, time.Second); err == nil {
				answer, err = c.read()
			}
			c.Close()
		}
		switch {
		case err != nil:
			hungUp++
		case answer.Refused != nil && answer.Refused.Code != refusedNotLeader:
			refused++
		default:
			t.Fatalf("try %d: %+v", i, answer)
		}
	}
	t.Logf("%d refused, %d hung up on", refused, hungUp)
	if refused < 100 || hungUp < 50 {
		t.Errorf("%d of 400 were refused and %d hung up on", refused, hungUp)
	}
	if n := strings.Count(m.log.String(), "a peer was refused"); n > 100 {
		t.Errorf("%d lines in the log", n)
	}
	if n := m.audits(t) - before; n != 0 {
		t.Errorf("%d audit rows", n)
	}
}

// An address that fails too often is hung up on, unless a member or a peer has come from there.
func TestStrangers(t *testing.T) {
	s := newStrangers(discard)
	now := time.Unix(1e9, 0)
	a, b := tcp("192.0.2.1"), tcp("192.0.2.2")
	for range 100 { // no limit below a hundred a minute
		s.failed(a, now)
	}
	if s.hangUp(a, now) || s.refusePeer(a, now) {
		t.Error("refused after 100 failures")
	}
	for range 100 {
		s.failed(a, now)
	}
	let := 0
	for range 1000 {
		if !s.hangUp(a, now) {
			let++
		}
	}
	if let != probationBurst || !s.refusePeer(a, now) || s.hangUp(b, now) || s.refusePeer(b, now) {
		t.Errorf("after 200 failures %d of 1000 get in, or there is a difference at another address", let)
	}
	if s.hangUp(a, now.Add(time.Minute)) {
		t.Error("still refused a minute later")
	}
	s.member(a, now)
	if s.hangUp(a, now) || !s.refusePeer(a, now) {
		t.Error("members are refused, or other clusters are not")
	}
	s.peer(a, now)
	let = 0
	for range 1000 {
		if !s.refusePeer(a, now) {
			let++
		}
	}
	if let != probationBurst {
		t.Errorf("%d connections of a known peer at once", let)
	}
	if s.hangUp(a, now) {
		t.Error("a known address is hung up on")
	}
	for i := range 3 * failingAddresses { // memory is bounded
		x := tcp(fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255))
		s.failed(x, now)
		s.member(x, now)
		s.peer(x, now)
	}
	if len(s.failing) > failingAddresses || len(s.members) > knownAddresses || len(s.peers) > knownAddresses {
		t.Errorf("%d, %d and %d addresses are remembered", len(s.failing), len(s.members), len(s.peers))
	}
}

// Strangers who hold connections keep no member out, and none that has come loses its connection to them.
func TestStrangersHoldNoPlaces(t *testing.T) {
	m := startMember(t, netlimit.Limits{All: 64, PerAddress: 16, Strangers: 32})
	flood := func() {
		for range 200 {
			conn, err := tcpDial(m.address)
			if err != nil {
				continue
			}
			t.Cleanup(func() { conn.Close() })
		}
	}
	ask := func(c io.ReadWriter) error {
		if _, err := c.Write([]byte{1}); err != nil {
			return err
		}
		_, err := io.ReadFull(c, make([]byte, 8))
		return err
	}
	flood()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	first, err := m.Transport.dial(ctx, m.node.NodeID, protoAsk, false)
	if err != nil {
		t.Fatalf("a member is kept out: %v", err)
	}
	defer first.Close()
	if err := ask(first); err != nil {
		t.Fatal(err)
	}
	flood()
	_ = first.SetDeadline(time.Now().Add(20 * time.Second))
	if err := ask(first); err != nil {
		t.Errorf("a member has lost its connection: %v", err)
	}
	if n := m.Transport.limiter.Open(); n > 64 {
		t.Errorf("%d connections are open", n)
	}
}

// The fence lets nobody through when it cannot read, and does not say then that somebody is removed.
func TestFenceFailsClosed(t *testing.T) {
	m := startMember(t, netlimit.Limits{})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := m.Store.Fence(ctx, 1); err != nil {
		t.Errorf("a member: %v", err)
	}
	if err := m.Store.Fence(ctx, 99); !isGone(err) {
		t.Errorf("a stranger: %v", err)
	}
	m.Transport.Expel(98)
	if err := m.Transport.admits(98); !isGone(err) {
		t.Errorf("who was expelled: %v", err)
	}
	if err := m.confirmMember(ctx, 99); !isGone(err) {
		t.Errorf("a stranger, confirmed: %v", err)
	}
	if err := m.confirmMember(ctx, 1); err != nil {
		t.Errorf("a member, confirmed: %v", err)
	}
	closing, stop := context.WithTimeout(ctx, time.Second)
	defer stop()
	if err := m.Store.Close(closing); err != nil {
		t.Fatal(err)
	}
	for _, id := range []uint64{1, 99} {
		if err := m.Store.Fence(ctx, id); err == nil || isGone(err) {
			t.Errorf("node %d when nothing can be read: %v", id, err)
		}
	}
}
