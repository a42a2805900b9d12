package peering

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"reflect"
	"testing"
	"time"
)

// FuzzDecodeFrame: a message of another cluster says one thing, and what is read is what was said.
func FuzzDecodeFrame(f *testing.F) {
	for _, seed := range []string{`{"exchange":{"peerId":"a","secret":"b"}}`, `{"heartbeat":{}}`,
		`{"trust":{"sequence":1,"pems":["x"]}}`, `{"open":null}`,
		`{"members":{"first":true,"last":true,"list":[{"id":"x","nodeId":1}]}}`, `{"ping":{},"pong":{}}`, `{} {}`, `null`,
		`{"x":1}`, `{"refused":{"code":"busy"}}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := decodeFrame(data)
		if err != nil {
			if got != nil {
				t.Fatal("an error, and a message")
			}
			return
		}
		set, v := 0, reflect.ValueOf(*got)
		for i := range v.NumField() {
			if !v.Field(i).IsNil() {
				set++
			}
		}
		if set != 1 {
			t.Fatalf("%q says %d things", data, set)
		}
	})
}

// FuzzReadFrame: whatever stands on the connection, no more is taken than a stranger's message may have, and the end of
// the connection ends the reading.
func FuzzReadFrame(f *testing.F) {
	framed := func(length uint32, text string) []byte {
		return append(binary.BigEndian.AppendUint32(nil, length), text...)
	}
	f.Add(framed(16, `{"heartbeat":{}}`), false)
	f.Add(framed(0, ""), false)
	f.Add(framed(firstFrameLimit+1, "x"), false)
	f.Add(framed(1<<32-1, "x"), true)
	f.Add([]byte{0, 0}, true)
	f.Fuzz(func(t *testing.T, data []byte, known bool) {
		c := &peerConn{Conn: &readOnly{Reader: bytes.NewReader(data)}, known: known}
		for range 100 {
			got, n, err := c.readSized()
			if err != nil {
				return
			}
			if limit := map[bool]int{false: firstFrameLimit, true: frameLimit}[known]; got == nil || n > limit {
				t.Fatalf("a message of %d bytes: %v", n, got)
			}
		}
	})
}

// readOnly is a connection on which everything has arrived.
type readOnly struct {
	net.Conn
	io.Reader
}

func (r *readOnly) Read(p []byte) (int, error) { return r.Reader.Read(p) }

func (r *readOnly) SetReadDeadline(time.Time) error { return nil }

func (r *readOnly) SetDeadline(time.Time) error { return nil }
