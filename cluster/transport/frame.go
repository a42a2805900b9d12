package transport

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// Requests that a member passes on to the leader share one connection, as frames: what waits is written together, and
// answers come as they are ready. A frame is its length (4 bytes, big endian, of what follows), its kind (1 byte), the
// number of the request that it belongs to, and fields. Numbers are unsigned varints, texts have their length before
// them.
const protoCalls = "muster-calls/1"

type kind byte

const (
	kindRequest kind = iota + 1 // epoch, again, since, made, method, target, host, headers, body
	kindCancel                  // nobody waits for the answer
	kindTold                    // what will be answered once it is committed; see store.Attempt
	kindAnswer                  // revision, last, status, headers, the beginning of the body
	kindMore                    // last, more of the body
	kindStale                   // epoch, revision: it was meant for another leadership and not begun
	kindPing
	kindPong
)

const (
	maxFrame  = 4 << 20  // a body of 1 MiB, its headers, and what was told
	bodyPart  = 64 << 10 // of an answer in one frame
	maxQueued = 1 << 20  // bytes of answers that wait to be written before those who write more have to wait
	maxTold   = 256 << 10
)

var errFrame = errors.New("a frame cannot be read")

// begin appends the beginning of a frame and returns where it starts; end fills in how long it has become.
func begin(b []byte, k kind, id uint64) ([]byte, int) {
	at := len(b)
	b = append(b, 0, 0, 0, 0, byte(k))
	return binary.AppendUvarint(b, id), at
}

func end(b []byte, at int) []byte {
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	return b
}

func appendText[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// hopByHop are headers that say something of a connection (RFC 9110, section 7.6.1), or what the frame says itself.
var hopByHop = map[string]bool{"Connection": true, "Content-Length": true, "Host": true, "Keep-Alive": true,
	"Proxy-Connection": true, "Te": true, "Trailer": true, "Transfer-Encoding": true, "Upgrade": true}

func appendHeader(b []byte, h http.Header, drop map[string]bool) []byte {
	n := 0
	for k, values := range h {
		if !drop[k] {
			n += len(values)
		}
	}
	b = binary.AppendUvarint(b, uint64(n))
	for k, values := range h {
		if drop[k] {
			continue
		}
		for _, v := range values {
			b = appendText(appendText(b, k), v)
		}
	}
	return b
}

// fields reads a frame. After the first field that is not there, all are empty and err says so.
type fields struct {
	kind kind
	id   uint64
	rest []byte
	err  error
}

// readFrame reads the next frame. Its bytes are the caller's. It blocks until there is one.
func readFrame(r *bufio.Reader) (fields, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return fields{}, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n == 0 || n > maxFrame {
		return fields{}, fmt.Errorf("%w: it has %d bytes", errFrame, n)
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(r, data); err != nil {
		return fields{}, err
	}
	f := fields{kind: kind(data[0]), rest: data[1:]}
	f.id = f.number()
	return f, f.err
}

func (f *fields) number() uint64 {
	v, n := binary.Uvarint(f.rest)
	if n <= 0 {
		f.rest, f.err = nil, errFrame
		return 0
	}
	f.rest = f.rest[n:]
	return v
}

func (f *fields) bool() bool { return f.number() == 1 }

// bytes are part of the frame, without room behind them.
func (f *fields) bytes() []byte {
	n := f.number()
	if n > uint64(len(f.rest)) {
		f.rest, f.err = nil, errFrame
		return nil
	}
	b := f.rest[:n:n]
	f.rest = f.rest[n:]
	return b
}

func (f *fields) text() string { return string(f.bytes()) }

func (f *fields) header() http.Header {
	n := f.number()
	if n > uint64(len(f.rest)) { // each takes two bytes at least
		f.rest, f.err = nil, errFrame
		return http.Header{}
	}
	h := make(http.Header, n)
	values := make([]string, n)
	for i := range values {
		k := f.text()
		values[i] = f.text()
		if have := h[k]; have != nil {
			h[k] = append(have, values[i])
		} else {
			h[k] = values[i : i+1 : i+1]
		}
	}
	return h
}
