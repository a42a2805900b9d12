package transport

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"

	"muster/internal/await"
	"muster/store"
)

// member is a connection of a member for forwarded requests, at the end that answers.
type member struct {
	*called
	theirs net.Conn
	done   chan error
}

// newMember lets a member send everything that it has; nothing is read on its side.
func newMember(t *testing.T, handler http.HandlerFunc, sends io.Reader) *member {
	t.Helper()
	tr := New(&Credentials{}, Table(func(uint64) (string, bool) { return "", false }), func(uint64) error { return nil },
		discard)
	replica := &leading{}
	replica.epoch.Store(7)
	tr.service = Service{Replica: replica, Handler: handler}
	ours, theirs := net.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	m := &member{
		called: &called{
			t:     tr,
			out:   newOutbox(ours),
			ctx:   ctx,
			work:  make(chan *incoming),
			calls: map[uint64]context.CancelFunc{},
		},
		theirs: theirs,
		done:   make(chan error, 1),
	}
	tr.done.Go(m.out.run)
	go func() {
		err := m.read(bufio.NewReader(sends))
		close(m.work)
		m.done <- err
	}()
	t.Cleanup(func() {
		m.out.close(errGone)
		theirs.Close()
		cancel()
		tr.done.Wait()
	})
	return m
}

func requestFrame(t *testing.T, id uint64, a *store.Attempt) []byte {
	t.Helper()
	r, err := http.NewRequest("POST", "/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	return appendRequest(nil, id, r, nil, a)
}

// A member that sends without reading is not read any further: what it asks for does not pile up.
func TestFloodsAreNotAnswered(t *testing.T) {
	t.Parallel()
	ping, at := begin(nil, kindPing, 1)
	for name, frame := range map[string][]byte{
		"pings":                          end(ping, at),
		"requests to another leadership": requestFrame(t, 1, &store.Attempt{Epoch: 5}),
	} {
		m := newMember(t, nil, bytes.NewReader(bytes.Repeat(frame, 3*maxQueued/6)))
		await.True(t, name+" are answered", func() bool { return m.out.queued() > maxQueued })
		m.out.close(errGone)
		if err := <-m.done; !errors.Is(err, errGone) {
			t.Errorf("%s: %v", name, err)
		}
		if n := m.out.queued(); n > maxQueued+1000 {
			t.Errorf("%s: %d bytes wait to be sent", name, n)
		}
	}
}

// A number stands for one request at a time, so that their count is their number.
func TestNumbersOfRequestsAreTheirs(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	defer close(release)
	m := newMember(t, func(http.ResponseWriter, *http.Request) { <-release },
		bytes.NewReader(bytes.Repeat(requestFrame(t, 1, &store.Attempt{Epoch: 7}), 50)))
	if err := <-m.done; !errors.Is(err, errFrame) {
		t.Errorf("a number of a request in progress is taken: %v", err)
	}
}

// Frames that no member sends end the connection: unknown and wrong kinds, wrong lengths, counts beyond any real one.
func TestWrongFramesEndTheConnection(t *testing.T) {
	t.Parallel()
	of := func(k kind, rest ...byte) []byte {
		b, at := begin(nil, k, 1)
		return end(append(b, rest...), at)
	}
	many := binary.AppendUvarint([]byte{7, 0, 0, 0, 1, 'G', 2, '/', 'x', 0}, 2<<20) // headers
	cases := map[string][]byte{
		"kind 0":           of(0),
		"unknown":          of(99),
		"an answer":        of(kindAnswer, 1, 1, 1, 0),
		"more":             of(kindMore, 1),
		"stale":            of(kindStale, 1, 1),
		"told":             of(kindTold, 1),
		"a pong":           of(kindPong),
		"no length":        {0, 0, 0, 0},
		"a length of 4 GB": {0xff, 0xff, 0xff, 0xff, 1},
		"half a frame":     of(kindRequest, 7)[:5],
		"no fields":        of(kindRequest),
		"a text too long":  of(kindRequest, 7, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xf),
		"many headers":     of(kindRequest, append(many, make([]byte, 4<<20-100)...)...),
	}
	for name, frame := range cases {
		m := newMember(t, http.NotFound, bytes.NewReader(frame))
		if err := <-m.done; err == nil || errors.Is(err, io.EOF) { // it has read on
			t.Errorf("%s: %v", name, err)
		}
	}
}
