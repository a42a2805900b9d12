package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"muster/certs"
	"muster/internal/await"
	"muster/netlimit"
	"muster/store"
)

func tcp(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 4000} }

// An address that fails too often is hung up on, unless a member or a peer has come from there.
func TestStrangers(t *testing.T) {
	s := newStrangers(discard)
	now := time.Unix(1e9, 0)
	a, b := tcp("192.0.2.1"), tcp("192.0.2.2")
	for range 100 { // no limit below a hundred a minute
		s.Failed(a, now)
	}
	if s.hangUp(a, now) || s.refusePeer(a, now) {
		t.Error("refused after 100 failures")
	}
	for range 100 {
		s.Failed(a, now)
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
	s.Member(a, now)
	if s.hangUp(a, now) || !s.refusePeer(a, now) {
		t.Error("members are refused, or other clusters are not")
	}
	s.Peer(a, now)
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
		s.Failed(x, now)
		s.Member(x, now)
		s.Peer(x, now)
	}
	if len(s.failing) > failingAddresses || len(s.members) > knownAddresses || len(s.peers) > knownAddresses {
		t.Errorf("%d, %d and %d addresses are remembered", len(s.failing), len(s.members), len(s.peers))
	}
}

// Strangers who hold connections keep no member out, and none that has come loses its connection to them.
func TestStrangersHoldNoPlaces(t *testing.T) {
	ca, err := certs.NewCA(certs.Transport, agedCluster, time.Now().Add(-2*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	ends := time.Now().Add(time.Hour)
	one, two := newAgedNode(t, 1, ca, ends, ca), newAgedNode(t, 2, ca, ends, ca)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	listening := New(two.creds, Table(func(uint64) (string, bool) { return "", false }), func(uint64) error { return nil },
		discard)
	listening.Limits = netlimit.Limits{All: 64, PerAddress: 16, Strangers: 32}
	listening.Serve(l, Service{Replica: agedReplica{}, Handler: http.NotFoundHandler()})
	defer listening.Close()
	member := New(one.creds, Table(func(uint64) (string, bool) { return address, true }),
		func(uint64) error { return nil }, discard)
	defer member.Close()
	flood := func() {
		for range 200 {
			conn, err := net.DialTimeout("tcp", address, 5*time.Second)
			if err != nil {
				continue
			}
			t.Cleanup(func() { conn.Close() })
		}
	}
	flood()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	first, err := member.dial(ctx, 2, protoAsk, false)
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
	if n := listening.limiter.Open(); n > 64 {
		t.Errorf("%d connections are open", n)
	}
}

// ask asks a member once whom it follows.
func ask(c io.ReadWriter) error {
	if _, err := c.Write([]byte{1}); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 8))
	return err
}

// What strangers send is read at the pace of their address; what a member at the same one sends, at once.
func TestStrangersArePaced(t *testing.T) {
	member, listening := fromToLimited(t, netlimit.Limits{Bytes: 5000}, func(*Transport, uint64) error { return nil })
	address := listening.listener.Addr().String()
	for range 10 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("no handshake of TLS")); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	await.True(t, "strangers wait, and end", func() bool {
		return listening.limiter.Paced() > 0 && listening.limiter.Open() == 0
	})
	ctx, cancel := context.WithTimeout(t.Context(), await.Limit)
	defer cancel()
	conn, err := member.dial(ctx, 2, protoAsk, false)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := ask(conn); err != nil {
		t.Fatal(err)
	}
	before := listening.limiter.Paced()
	for range 100 {
		if err := ask(conn); err != nil {
			t.Fatal(err)
		}
	}
	if after := listening.limiter.Paced(); after != before {
		t.Errorf("a member has waited %d times", after-before)
	}
}

// Who was expelled is refused, whatever the fence says; others are not.
func TestExpelled(t *testing.T) {
	ca, err := certs.NewCA(certs.Transport, agedCluster, time.Now().Add(-2*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	one := newAgedNode(t, 1, ca, time.Now().Add(time.Hour), ca)
	tr := New(one.creds, Table(func(uint64) (string, bool) { return "", false }), func(uint64) error { return nil },
		discard)
	defer tr.Close()
	tr.Expel(98)
	if err := tr.admits(98); !errors.Is(err, store.ErrNotMember) || !store.WasRemoved(err) {
		t.Errorf("who was expelled: %v", err)
	}
	if err := tr.admits(97); err != nil {
		t.Errorf("another: %v", err)
	}
}
