//lint:file-ignore SA1019 net/http's own HTTP/2 server does not expose the connection after the TLS handshake, where
// frames are counted. This package does, and it is still maintained.

package handlers

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/time/rate"
)

// HTTP/2 frames that are not part of requests or bodies cost work without use. A connection may send some at once, and
// more only slowly; otherwise it is closed with ENHANCE_YOUR_CALM (RFC 9113, section 7), even that of a known caller.
const (
	idleFrames    = 200     // at once
	idleFramesSec = 20      // a second: far more than clients send to cancel requests and to ping
	costOfReset   = 2       // frames: the request has cost work, whoever resets it
	longBlock     = 4 << 10 // of headers: a longer one counts as a frame for each perLongBlock bytes
	perLongBlock  = 512
	dataPerFrame  = 256     // DATA frames that are shorter and do not end a body are idle
	sentPerWindow = 1 << 10 // bytes sent for each WINDOW_UPDATE that is not idle
)

// serveHTTP2 makes a server count frames on its HTTP/2 connections.
func serveHTTP2(srv *http.Server, refused func()) error {
	h2 := &http2.Server{}
	if err := http2.ConfigureServer(srv, h2); err != nil {
		return err
	}
	srv.TLSNextProto[http2.NextProtoTLS] = func(hs *http.Server, c *tls.Conn, h http.Handler) {
		opts := &http2.ServeConnOpts{Handler: h, BaseConfig: hs}
		ctx := context.Background()
		if x, ok := h.(interface{ BaseContext() context.Context }); ok {
			ctx = x.BaseContext()
		}
		counted := &framesConn{Conn: c, refused: refused}
		opts.Context = context.WithValue(ctx, framesKey{}, counted)
		h2.ServeConn(counted, opts)
	}
	return nil
}

// framesConn is the server's end of an HTTP/2 connection; it inspects the frames of both directions.
type framesConn struct {
	*tls.Conn
	refused func()

	in, out frames
	once    sync.Once
	idle    *rate.Limiter // created with the first idle frame
	taken   atomic.Int64  // sent bytes without a WINDOW_UPDATE yet
	calm    atomic.Bool   // the client has caused too many resets by this server
	answers atomic.Int64  // requests whose answers have not been sent completely; a reset one counts as such
}

type framesKey struct{}

// fewAnswers is how many answers of a connection may wait for its client after their handlers have returned.
const fewAnswers = 4

// lags reports whether the client of an HTTP/2 connection is behind with reading, or asks much at once.
func lags(ctx context.Context) bool {
	c, ok := ctx.Value(framesKey{}).(*framesConn)
	return ok && c.answers.Load() > fewAnswers
}

// Read reads, and closes the connection after too many idle frames.
func (c *framesConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n == 0 {
		return n, err
	}
	p = p[:n]
	if skip := min(len(http2.ClientPreface)-c.in.preface, len(p)); skip > 0 {
		c.in.preface += skip
		p = p[skip:]
	}
	if c.calm.Load() || !c.in.pass(p, c.received) {
		c.refused()
		return 0, http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	return n, err
}

// received counts a frame of the client and reports whether it is within the limits.
func (c *framesConn) received(f frameHead) bool {
	if f.kind == http2.FrameHeaders {
		c.answers.Add(1)
	}
	return c.may(c.idleness(f))
}

// endsInOrder are the codes of server resets without a client error: the server does not need the body, or there are
// too many concurrent streams, and the client may not know the limit yet.
var endsInOrder = map[http2.ErrCode]bool{http2.ErrCodeNo: true, http2.ErrCodeRefusedStream: true}

// Write writes. A stream that the server resets because of an error counts as if the client had reset it.
func (c *framesConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.taken.Add(int64(n))
	c.out.pass(p[:n], func(f frameHead) bool {
		if f.kind == http2.FrameRSTStream && !endsInOrder[f.code] && !c.may(costOfReset) {
			c.calm.Store(true)
		}
		if (f.kind == http2.FrameData || f.kind == http2.FrameHeaders) && f.flags.Has(http2.FlagDataEndStream) {
			c.answers.Add(-1)
		}
		return true
	})
	return n, err
}

// frameHead is the inspected part of a frame.
type frameHead struct {
	kind   http2.FrameType
	flags  http2.Flags
	length int
	code   http2.ErrCode // of RST_STREAM
}

// frames parses the frames of a byte stream that arrives in pieces.
type frames struct {
	preface int // received bytes of it
	head    [headBytes + codeBytes]byte
	have    int // bytes of head
	rest    int // missing bytes of the frame
}

const (
	headBytes = 9 // RFC 9113, section 4.1
	codeBytes = 4
)

// pass calls see for each frame that begins in p, until see returns false; it reports whether see always returned true.
func (x *frames) pass(p []byte, see func(frameHead) bool) bool {
	for len(p) > 0 {
		if x.rest > 0 {
			skip := min(x.rest, len(p))
			x.rest -= skip
			p = p[skip:]
			continue
		}
		need := headBytes
		if x.have >= headBytes {
			need += codeBytes
		}
		n := copy(x.head[x.have:need], p)
		x.have += n
		p = p[n:]
		if x.have < need {
			return true
		}
		f := frameHead{
			kind:   http2.FrameType(x.head[3]),
			flags:  http2.Flags(x.head[4]),
			length: int(binary.BigEndian.Uint32(x.head[:4]) >> 8),
			code:   http2.ErrCode(binary.BigEndian.Uint32(x.head[headBytes:])),
		}
		if need == headBytes && f.kind == http2.FrameRSTStream && f.length == codeBytes {
			continue // its code comes next
		}
		x.rest = f.length - (need - headBytes)
		x.have = 0
		if !see(f) {
			return false
		}
	}
	return true
}

// idleness returns the number of idle frames that a received frame counts as.
func (c *framesConn) idleness(f frameHead) int {
	switch f.kind {
	case http2.FrameHeaders:
		if f.length > longBlock {
			return f.length / perLongBlock
		}
		return 0
	case http2.FrameContinuation:
		return 1 + f.length/perLongBlock
	case http2.FrameData:
		if f.length >= dataPerFrame || f.flags.Has(http2.FlagDataEndStream) {
			return 0
		}
	case http2.FrameRSTStream:
		return costOfReset
	case http2.FrameWindowUpdate:
		if c.taken.Load() >= sentPerWindow {
			c.taken.Add(-sentPerWindow)
			return 0
		}
	}
	return 1
}

// may counts idle frames and reports whether they are within the limit.
func (c *framesConn) may(idle int) bool {
	if idle == 0 {
		return true
	}
	c.once.Do(func() { c.idle = rate.NewLimiter(idleFramesSec, idleFrames) })
	return c.idle.AllowN(time.Now(), idle)
}
