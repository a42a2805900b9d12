package peering

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"muster/certs"
	"muster/store"
)

// What a peer makes this cluster store stays within its budget, whichever way it tries: the newest is stored, and what
// came in between is not.
func TestPeerBudget(t *testing.T) {
	t.Parallel()
	m := startMember(t)
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
			f, err := c.read()
			if err != nil {
				return
			}
			if f.Pong != nil {
				ponged <- true
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
		send(frame{Members: &membersFrame{First: true, Last: true,
			List: []store.PeerMember{{ID: "1", Name: fmt.Sprint("m", i), Health: "alive"}}}})
		send(frame{Heartbeat: &struct{}{}})
		send(frame{Ping: &struct{}{}}) // it is read, so that each could be stored by itself
		<-ponged
	}
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
	t.Parallel()
	s := &stream{imports: make(chan []store.PeerMember, 1)}
	m := func(id string) store.PeerMember { return store.PeerMember{ID: id, Name: "n"} }
	if err := s.gather(&membersFrame{First: true, List: []store.PeerMember{m("1"), m("2")}}); err != nil {
		t.Fatal(err)
	}
	if err := s.gather(&membersFrame{Last: true, List: []store.PeerMember{m("3"), m("1")}}); err == nil {
		t.Error("a list with a member twice is taken")
	}
	for _, x := range []store.PeerMember{{ID: "a b"}, {ID: strings.Repeat("1", 65)}, {ID: "1", Name: "a\nb"},
		{ID: "1", Name: "\x1b[2J"}, {ID: "1", RaftAddress: "a b"},
		{ID: "1", APIAddress: "a\r\nb"}, {ID: "1", RaftAddress: strings.Repeat("a", 301)}, {ID: "1",
			Health: "ALIVE"}, {ID: "1", NodeID: 1<<53 + 1}} {
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
	for what, text := range map[string]string{"two": good + good, "rubbish behind": good + "x",
		"long":    good + strings.Repeat("\n", maxPeerRoot),
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
	t.Parallel()
	m := startMember(t)
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
	t.Parallel()
	m := startMember(t)
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
	if n := strings.Count(m.logged.String(), "a peer was refused"); n > 100 {
		t.Errorf("%d lines in the log", n)
	}
	if n := m.audits(t) - before; n != 0 {
		t.Errorf("%d audit rows", n)
	}
}
