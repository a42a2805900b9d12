package peering

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"muster/certs"
	"muster/store"
)

// opened opens a stream of a new peering; it returns the secret of its streams, too.
func (m *testMember) opened(t *testing.T, name string) (c *peerConn, id, secret string) {
	t.Helper()
	id, secret = m.token(t, name)
	_, answer := m.ask(t, frame{Exchange: &exchangeFrame{id, secret}})
	if answer.Secret == nil {
		t.Fatalf("the exchange: %+v", answer.Refused)
	}
	secret = answer.Secret.Secret
	c, answer = m.ask(t, frame{Open: &openFrame{PeerID: id, Secret: secret}})
	if answer.Opened == nil {
		t.Fatalf("the stream: %+v", answer.Refused)
	}
	return c, id, secret
}

// lives reports whether a stream still answers.
func (c *peerConn) lives(t *testing.T) bool {
	t.Helper()
	if err := c.write(frame{Ping: &struct{}{}}, 10*time.Second); err != nil {
		return false
	}
	for {
		f, err := c.read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("the stream neither answers nor ends")
		}
		if err != nil {
			return false
		}
		if f.Pong != nil {
			return true
		}
	}
}

// Each kind of message, empty, on a stream that is open: an answer without a question, a first message once more, what
// only the other end may say, and lists of nothing end the stream. They change nothing but what they are for.
func TestEveryFrameOnAStream(t *testing.T) {
	t.Parallel()
	m := startMember(t)
	stays := map[string]bool{"Heartbeat": true, "Ping": true, "Pong": true}
	deletes := map[string]bool{"Terminated": true}
	for i := range reflect.TypeFor[frame]().NumField() {
		field := reflect.TypeFor[frame]().Field(i)
		name := strings.ToLower(field.Name)
		c, id, _ := m.opened(t, name)
		var f frame
		reflect.ValueOf(&f).Elem().Field(i).Set(reflect.New(field.Type.Elem()))
		if err := c.write(f, 10*time.Second); err != nil {
			t.Fatal(err)
		}
		if c.lives(t) != stays[field.Name] {
			t.Errorf("%s: whether the stream goes on is wrong", field.Name)
		}
		p, err := m.store.Peerings.ByName(t.Context(), store.Linearisable, name)
		if err != nil || p == nil || p.ID != id || (p.State == store.PeeringTerminated) != deletes[field.Name] {
			t.Errorf("%s: the peering is %+v, %v", field.Name, p, err)
		}
	}
}

// Bytes that are no message end an open stream: wrong lengths, other JSON, unknown kinds, one frame with two messages,
// counts beyond any real one.
func TestWrongFramesOnAStream(t *testing.T) {
	t.Parallel()
	m := startMember(t)
	sized := func(text string) string {
		return string(binary.BigEndian.AppendUint32(nil, uint32(len(text)))) + text
	}
	for name, text := range map[string]string{
		"no-length":    "\x00\x00\x00\x00",
		"long":         "\x00\x10\x00\x01{",
		"longest":      "\xff\xff\xff\xff{",
		"nothing":      sized("{}"),
		"null":         sized("null"),
		"unknown":      sized(`{"shutdown":{}}`),
		"two":          sized(`{"ping":{},"pong":{}}`),
		"followed":     sized(`{"ping":{}}{}`),
		"commas":       sized(`{"members":{"list":[` + strings.Repeat("{},", maxCommas+1) + `{}]}}`),
		"deep":         sized(strings.Repeat("[", 100_000)),
		"http":         "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"many-members": sized(`{"members":{"list":[` + strings.Repeat(`{"id":"1"},`, 10_000) + `{"id":"1"}]}}`),
	} {
		c, _, _ := m.opened(t, name)
		if _, err := io.WriteString(c.Conn, text); err != nil {
			t.Fatal(err)
		}
		if c.lives(t) {
			t.Errorf("%s: the stream goes on", name)
		}
	}
}

// A stream is of one peering: neither the ID nor the secret of another one opens it.
func TestSecretsOfAnotherPeering(t *testing.T) {
	t.Parallel()
	m := startMember(t)
	_, one, secretOne := m.opened(t, "one")
	two, _, secretTwo := m.opened(t, "two")
	for name, f := range map[string]frame{
		"open":     {Open: &openFrame{PeerID: one, Secret: secretTwo}},
		"leave":    {Leave: &openFrame{PeerID: one, Secret: secretTwo}},
		"exchange": {Exchange: &exchangeFrame{one, secretOne}},
	} {
		if _, answer := m.ask(t, f); answer.Refused == nil || answer.Refused.Code != refusedSecret {
			t.Errorf("%s: %+v", name, answer)
		}
	}
	if !two.lives(t) {
		t.Error("the other peering's stream has ended")
	}
}

// A peer that floods its stream, with any kind of message, is read slowly: others are served, and what it makes this
// cluster store stays within its budget.
func TestFloodsOnAStream(t *testing.T) {
	t.Parallel()
	m := startMember(t)
	root := func() string { return string(certs.EncodeCert(ownLeaf(t, "ca.example").Certificate[0])) }
	roots := []string{root(), root()}
	good, _, _ := m.opened(t, "good")
	before, begin, floods := m.revision(t), time.Now(), 0
	for name, next := range map[string]func(i int) frame{
		"heartbeat": func(int) frame { return frame{Heartbeat: &struct{}{}} },
		"ping":      func(int) frame { return frame{Ping: &struct{}{}} },
		"pong":      func(int) frame { return frame{Pong: &struct{}{}} },
		"trust": func(i int) frame {
			return frame{Trust: &trustFrame{Sequence: uint64(i + 1), PEMs: roots[i%2 : i%2+1]}}
		},
		"old-trust": func(i int) frame { return frame{Trust: &trustFrame{PEMs: roots[i%2 : i%2+1]}} },
		"members": func(i int) frame {
			return frame{Members: &membersFrame{First: true, Last: true,
				List: []store.PeerMember{{ID: "1", Name: fmt.Sprint("m", i), Health: "alive"}}}}
		},
		"members-without-end": func(i int) frame {
			return frame{Members: &membersFrame{First: i == 0, List: []store.PeerMember{{ID: fmt.Sprint(i), Name: "m"}}}}
		},
	} {
		floods++
		c, _, _ := m.opened(t, name)
		for i := range 2 * frameBurst {
			if c.write(next(i), time.Second) != nil {
				break // it is not read any more
			}
		}
		if !good.lives(t) {
			t.Fatalf("%s: another peer is not served", name)
		}
		c.Close()
	}
	took := time.Since(begin)
	most := floods*(budgetWrites+10) + int(took/budgetWriteEvery)*floods
	most += int(took / time.Second) // others write a little, too
	if n := int(m.revision(t) - before); n > most {
		t.Errorf("%d commits in %v, more than %d", n, took, most)
	}
}
