//lint:file-ignore SA1019 net/http has an HTTP/2 server of its own, but gives nobody the connection after the TLS handshake,
// where frames can be counted. This one does, and its maintainers still mend it.

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

// What a client of HTTP/2 sends besides requests and their bodies costs work and brings nobody anything. A connection may
// send some of it, and more only slowly; one that goes on is ended with ENHANCE_YOUR_CALM (RFC 9113, section 7),
// whoever has opened it.
const (
	idleFrames    = 200     // at once
	idleFramesSec = 20      // a second for long: far above what clients send that cancel requests and ask for signs of life
	costOfReset   = 2       // a request was begun for nothing; whoever ends it
	longBlock     = 4 << 10 // of headers: longer ones count, as a frame for each perLongBlock bytes
	perLongBlock  = 512
	dataPerFrame  = 256     // DATA frames that are shorter and do not end a body are idle
	sentPerWindow = 1 << 10 // a client may say so often that it has taken what it was sent
)

// serveHTTP2 has a server count frames on its connections.
func serveHTTP2(srv *http.Server, refused func()) error {
	h2 := &http2.Server{}
	if err := http2.ConfigureServer(srv, h2); err != nil {
		return err
	}
	srv.TLSNextProto[http2.NextProtoTLS] = func(hs *http.Server, c *tls.Conn, h http.Handler) {
		opts := &http2.ServeConnOpts{Handler: h, BaseConfig: hs}
		if x, ok := h.(interface{ BaseContext() context.Context }); ok {
			opts.Context = x.BaseContext()
		}
		h2.ServeConn(&framesConn{Conn: c, refused: refused}, opts)
	}
	return nil
}

// framesConn is a connection of HTTP/2 as the server uses it: it looks at the frames that pass.
type framesConn struct {
	*tls.Conn
	refused func()

	in, out frames
	once    sync.Once
	idle    *rate.Limiter // made with the first idle frame
	taken   atomic.Int64  // bytes that were sent and whose window was not given back yet
	calm    atomic.Bool   // the client has made this server end too many streams
}

// Read reads and ends the connection when there are too many idle frames.
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
	if c.calm.Load() || !c.in.pass(p, func(f *frameHead) bool { return c.may(c.idleness(f)) }) {
		c.refused()
		return 0, http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	return n, err
}

// endsInOrder are the codes of streams that the server ends for another reason than an error of the client's: it does not
// need the body, or there are too many streams at once, which a client may not know yet.
var endsInOrder = map[http2.ErrCode]bool{http2.ErrCodeNo: true, http2.ErrCodeRefusedStream: true}

// Write writes. A stream that the server ends because of an error counts as if the client had reset it.
func (c *framesConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.taken.Add(int64(n))
	c.out.pass(p[:n], func(f *frameHead) bool {
		if f.kind == http2.FrameRSTStream && !endsInOrder[f.code] && !c.may(costOfReset) {
			c.calm.Store(true)
		}
		return true
	})
	return n, err
}

// frameHead is what is looked at of a frame.
type frameHead struct {
	kind   http2.FrameType
	flags  http2.Flags
	length int
	code   http2.ErrCode // of RST_STREAM
}

// frames finds the frames in bytes that come in pieces.
type frames struct {
	preface int // bytes of it that have passed
	head    [headBytes + codeBytes]byte
	have    int // bytes of head
	rest    int // bytes of the frame that are still to come
}

const (
	headBytes = 9 // RFC 9113, section 4.1
	codeBytes = 4
)

// pass calls see for each frame that begins in p, until it returns false, and reports whether it did not.
func (x *frames) pass(p []byte, see func(*frameHead) bool) bool {
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
		if !see(&f) {
			return false
		}
	}
	return true
}

// idleness is as how many idle frames a frame counts that was read.
func (c *framesConn) idleness(f *frameHead) int {
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

// may counts idle frames and reports whether there may be so many.
func (c *framesConn) may(idle int) bool {
	if idle == 0 {
		return true
	}
	c.once.Do(func() { c.idle = rate.NewLimiter(idleFramesSec, idleFrames) })
	return c.idle.AllowN(time.Now(), idle)
}
