package peering

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"muster/store"
)

// The protocol between two clusters, muster-peer/1: JSON messages, each preceded by its length in four bytes,
// big-endian. The dialer sends first: it exchanges the secret of a token, opens a stream, or says farewell. On a stream
// both sides send at any time.

const (
	frameLimit      = 1 << 20
	firstFrameLimit = 4 << 10          // before the other side has authenticated, and for its answer
	frameTimeout    = 10 * time.Second // to write one message
	membersPerFrame = 500
	// maxCommas is more than any valid message has. Many small values take fifty times their length in memory.
	maxCommas = 20_000
)

// frame is one message: exactly one field is set.
type frame struct {
	Exchange *exchangeFrame `json:"exchange,omitempty"` // dialer: the secret of a token, for a stream secret
	Secret   *secretFrame   `json:"secret,omitempty"`   // the answer to it
	Open     *openFrame     `json:"open,omitempty"`     // dialer: begin a stream
	Opened   *openedFrame   `json:"opened,omitempty"`   // the answer to it
	Leave    *openFrame     `json:"leave,omitempty"`    // dialer: the peering was deleted while there was no stream
	Refused  *refusedFrame  `json:"refused,omitempty"`  // the answer to any of the three

	Heartbeat  *struct{}       `json:"heartbeat,omitempty"`
	Ping       *struct{}       `json:"ping,omitempty"` // asks for a Pong, after a silence
	Pong       *struct{}       `json:"pong,omitempty"`
	Addresses  *addressesFrame `json:"addresses,omitempty"` // acceptor: addresses of its members
	Trust      *trustFrame     `json:"trust,omitempty"`     // the sender's authorities from now on
	Members    *membersFrame   `json:"members,omitempty"`   // what the sender exports, in pieces
	Identity   *identityFrame  `json:"identity,omitempty"`  // trust bundle of the sender's software
	Terminated *struct{}       `json:"terminated,omitempty"`
	Moved      *struct{}       `json:"moved,omitempty"` // the sender no longer leads; its successor takes over the stream
}

type exchangeFrame struct {
	PeerID string `json:"peerId"`
	Secret string `json:"secret"`
}

type secretFrame struct {
	Secret string `json:"secret"`
}

type openFrame struct {
	PeerID     string `json:"peerId"`
	Secret     string `json:"secret"`
	Datacenter string `json:"datacenter,omitempty"`
}

// openedFrame is decoded strictly, so it must have no field that older dialers do not know. Further abilities of the
// acceptor follow the datacenter, one word each: dialers have never read that text.
type openedFrame struct {
	Datacenter string `json:"datacenter,omitempty"`
}

// takesIdentity is the word of an acceptor that understands identityFrame. A dialer that reads it sends one, which
// shows that it understands them, too.
const takesIdentity = "identity"

func (f *openedFrame) takes(word string) bool {
	return slices.Contains(strings.Fields(f.Datacenter), word)
}

type refusedFrame struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Codes of refusals.
const (
	refusedNotLeader  = "not-leader" // try again, here or at another member
	refusedSecret     = "secret"
	refusedTerminated = "terminated"
	refusedOther      = "refused"
	refusedBusy       = "busy" // try again, later
)

type addressesFrame struct {
	List []string `json:"list"`
}

type trustFrame struct {
	Sequence uint64   `json:"sequence"` // increases within a stream
	PEMs     []string `json:"pems"`
}

type identityFrame struct {
	TrustDomain string `json:"trustDomain"` // the sender's cluster id
	Bundle      string `json:"bundle"`      // JSON, SPIFFE's format
}

type membersFrame struct {
	First bool               `json:"first,omitempty"`
	Last  bool               `json:"last,omitempty"`
	List  []store.PeerMember `json:"list"`
}

// refusal is a Refused message as an error.
type refusal struct{ refusedFrame }

func (e *refusal) Error() string { return e.Message }

func refusedWith(err error, code string) bool {
	var r *refusal
	return errors.As(err, &r) && r.Code == code
}

// decodeFrame accepts one JSON value without unknown fields and with exactly one message.
func decodeFrame(data []byte) (*frame, error) {
	var f frame
	if bytes.Count(data, []byte{','}) > maxCommas {
		return nil, errors.New("a message of the peer has too many values")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return nil, errors.New("a message of the peer cannot be read")
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("a message of the peer is followed by other data")
	}
	set, v := 0, reflect.ValueOf(f)
	for i := range v.NumField() {
		if !v.Field(i).IsNil() {
			set++
		}
	}
	if set != 1 {
		return nil, fmt.Errorf("a message of the peer has %d fields, not one", set)
	}
	return &f, nil
}

// peerConn sends and receives messages.
type peerConn struct {
	net.Conn
	mu    sync.Mutex // one writer at a time
	known bool       // the other side has authenticated: its messages may be long

	identity bool // of a dialer: the acceptor understands identityFrame
}

// read blocks for the next message.
func (c *peerConn) read() (*frame, error) {
	f, _, err := c.readSized()
	return f, err
}

// readSized is read and returns the size of the message in bytes.
func (c *peerConn) readSized() (*frame, int, error) {
	data, err := c.readRaw()
	if err != nil {
		return nil, 0, err
	}
	f, err := decodeFrame(data)
	return f, len(data), err
}

// readRaw blocks for the next message and does not decode it.
func (c *peerConn) readRaw() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(c.Conn, head[:]); err != nil {
		return nil, err
	}
	n, most := binary.BigEndian.Uint32(head[:]), uint32(firstFrameLimit)
	if c.known {
		most = frameLimit
	}
	if n == 0 || n > most {
		return nil, fmt.Errorf("a message of the peer announces %d bytes; 1 to %d are allowed", n, most)
	}
	data := make([]byte, n)
	_, err := io.ReadFull(c.Conn, data)
	return data, err
}

// readFirst blocks for the first message of a stranger, for at most limit.
func (c *peerConn) readFirst(limit time.Duration) (data []byte, f *frame, err error) {
	_ = c.SetReadDeadline(time.Now().Add(limit))
	if data, err = c.readRaw(); err == nil {
		f, err = decodeFrame(data)
	}
	if err != nil {
		return nil, nil, err
	}
	return data, f, c.SetReadDeadline(time.Time{})
}

// write sends a message; limit bounds how long it blocks.
func (c *peerConn) write(f frame, limit time.Duration) error {
	data, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return c.writeRaw(data, limit)
}

func (c *peerConn) writeRaw(data []byte, limit time.Duration) error {
	if len(data) > frameLimit {
		return fmt.Errorf("a message of %d bytes is too large to be sent", len(data))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.SetWriteDeadline(time.Now().Add(limit))
	_, err := c.Conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...))
	return err
}

// ask sends a message and blocks for the answer, at most until ctx ends. A refusal is an error.
func (c *peerConn) ask(ctx context.Context, f frame, limit time.Duration) (*frame, error) {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if err := c.write(f, limit); err != nil {
		return nil, err
	}
	_ = c.SetReadDeadline(time.Now().Add(limit))
	answer, err := c.read()
	if err != nil {
		return nil, err
	}
	if answer.Refused != nil {
		return nil, &refusal{*answer.Refused}
	}
	return answer, c.SetReadDeadline(time.Time{})
}
