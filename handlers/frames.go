//lint:file-ignore SA1019 net/http has an HTTP/2 server of its own, but gives nobody the connection after the TLS handshake,
// where frames can be counted. This one does, and its maintainers still mend it.

package handlers

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"net/http"
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
	costOfReset   = 2       // a request was begun for nothing
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

// framesConn is a connection of HTTP/2 as the server reads it: it looks at the heads of the frames that pass.
type framesConn struct {
	*tls.Conn
	refused func()

	seen  int // bytes of the preface
	head  [9]byte
	have  int           // bytes of head
	rest  int           // bytes of the frame that are still to come
	idle  *rate.Limiter // made with the first idle frame
	taken atomic.Int64  // bytes that were sent and whose window was not given back yet
}

// Read reads and ends the connection when there are too many idle frames.
func (c *framesConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && !c.pass(p[:n]) {
		c.refused()
		return 0, http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	return n, err
}

// Write writes.
func (c *framesConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.taken.Add(int64(n))
	return n, err
}

// pass looks at what was read and reports whether the connection may go on.
func (c *framesConn) pass(p []byte) bool {
	if skip := min(len(http2.ClientPreface)-c.seen, len(p)); skip > 0 {
		c.seen += skip
		p = p[skip:]
	}
	for len(p) > 0 {
		if c.rest > 0 {
			skip := min(c.rest, len(p))
			c.rest -= skip
			p = p[skip:]
			continue
		}
		n := copy(c.head[c.have:], p)
		c.have += n
		p = p[n:]
		if c.have < len(c.head) {
			return true
		}
		c.have = 0
		c.rest = int(binary.BigEndian.Uint32(c.head[:4]) >> 8)
		if idle := c.idleness(http2.FrameType(c.head[3]), http2.Flags(c.head[4])); idle > 0 && !c.may(idle) {
			return false
		}
	}
	return true
}

// idleness is as how many idle frames the frame counts whose head was read.
func (c *framesConn) idleness(kind http2.FrameType, flags http2.Flags) int {
	switch kind {
	case http2.FrameHeaders:
		if c.rest > longBlock {
			return c.rest / perLongBlock
		}
		return 0
	case http2.FrameContinuation:
		return 1 + c.rest/perLongBlock
	case http2.FrameData:
		if c.rest >= dataPerFrame || flags.Has(http2.FlagDataEndStream) {
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

func (c *framesConn) may(idle int) bool {
	if c.idle == nil {
		c.idle = rate.NewLimiter(idleFramesSec, idleFrames)
	}
	return c.idle.AllowN(time.Now(), idle)
}
