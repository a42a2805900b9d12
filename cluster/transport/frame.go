package transport

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// Forwarded requests to the leader share one connection, as frames: waiting frames are written together, and answers
// come as they are ready. A frame is its length (4 bytes, big-endian, of the rest), its kind (1 byte), the number of
// its request, and fields. Numbers are unsigned varints; texts are preceded by their length.
const protoCalls = "muster-calls/1"

type kind byte

const (
	kindRequest kind = iota + 1 // epoch, again, since, made, method, target, host, headers, body
	kindCancel                  // the caller has gone
	kindTold                    // the answer if it is committed; see store.Attempt
	kindAnswer                  // revision, last, status, headers, the beginning of the body
	kindMore                    // last, more of the body
	kindStale                   // epoch, revision: it was meant for another leadership and not begun
	kindPing
	kindPong
)

const (
	maxFrame  = 4 << 20  // a body of 1 MiB, its headers, and the result of an earlier attempt
	bodyPart  = 64 << 10 // of an answer in one frame
	maxQueued = 1 << 20  // bytes of waiting answers from which on writers block
	maxTold   = 256 << 10
	maxUntold = 8 << 20 // waiting bytes from which on a member that reads nothing is told nothing
	// maxHeaders bounds the header lines of a request or an answer. A client's request has at most a tenth.
	maxHeaders = 1024
)

var errFrame = errors.New("a frame cannot be read")

// begin appends the beginning of a frame and returns its position; end fills in its length.
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

// hopByHop are headers of a connection (RFC 9110, section 7.6.1) and headers that the frame has as fields.
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

// fields reads a frame. After the first missing field all are empty and err is set.
type fields struct {
	kind kind
	id   uint64
	rest []byte
	err  error
}

// readFrame blocks for the next frame. The caller owns its bytes.
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

// bytes returns a part of the frame, with no capacity beyond it.
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
	if n > maxHeaders || n > uint64(len(f.rest)) {
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
