package transport

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"

	"muster/store"
)

const (
	maxCalls    = 8192 // at once on one connection: twice the requests that a member has in progress
	idleWorkers = 64
)

// called is the answering end of a connection for forwarded requests.
type called struct {
	t      *Transport
	nodeID uint64
	remote string
	out    *outbox
	ctx    context.Context // ends with the connection
	work   chan *incoming  // for idle workers

	mu    sync.Mutex
	calls map[uint64]context.CancelFunc
	idle  int
}

// incoming is one request.
type incoming struct {
	id  uint64
	r   *http.Request
	ctx context.Context
	end context.CancelFunc
}

// serveCalls answers the requests of a member and blocks until the connection ends.
func (t *Transport) serveCalls(conn net.Conn, nodeID uint64) {
	ctx, cancel := context.WithCancel(WithMember(context.Background(), nodeID))
	defer cancel()
	c := &called{
		t:      t,
		nodeID: nodeID,
		remote: conn.RemoteAddr().String(),
		out:    newOutbox(conn),
		ctx:    ctx,
		work:   make(chan *incoming),
		calls:  map[uint64]context.CancelFunc{},
	}
	t.done.Go(c.out.run)
	err := c.read(bufio.NewReaderSize(conn, bodyPart))
	c.out.close(err)
	close(c.work)
}

// read serves frames until the connection ends or has a wrong frame. While too much waits to be sent it reads nothing,
// so that a member that sends without reading takes little memory.
func (c *called) read(r *bufio.Reader) error {
	for {
		f, err := readFrame(r)
		if err != nil {
			return err
		}
		switch f.kind {
		case kindPing:
			if err := c.out.put(true, func(b []byte) []byte {
				b, at := begin(b, kindPong, f.id)
				return end(b, at)
			}); err != nil {
				return err
			}
		case kindCancel:
			c.cancel(f.id)
		case kindRequest:
			if err := c.begin(&f); err != nil {
				return err
			}
		default:
			return errFrame
		}
	}
}

func (c *called) cancel(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if end := c.calls[id]; end != nil {
		end()
	}
}

// begin starts a request, unless it was meant for another leadership than the present one.
func (c *called) begin(f *fields) error {
	a := &store.Attempt{Epoch: f.number(), Again: f.bool(), Since: f.number(), Made: f.bytes()}
	if len(a.Made) == 0 {
		a.Made = nil
	}
	r := &http.Request{
		Method:     f.text(),
		RequestURI: f.text(),
		Host:       f.text(),
		Header:     f.header(),
		Proto:      "HTTP/2.0",
		ProtoMajor: 2,
		RemoteAddr: c.remote,
		Body:       http.NoBody,
	}
	if f.err != nil {
		return f.err
	}
	var err error
	if r.URL, err = url.ParseRequestURI(r.RequestURI); err != nil {
		return errFrame
	}
	if len(f.rest) > 0 {
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(f.rest)), int64(len(f.rest))
	}
	replica, id := c.t.service.Replica, f.id
	if epoch := replica.Epoch(); epoch != a.Epoch || epoch == 0 {
		return c.out.put(true, func(b []byte) []byte {
			b, at := begin(b, kindStale, id)
			return end(binary.AppendUvarint(binary.AppendUvarint(b, epoch), replica.Revision()), at)
		})
	}
	a.Tell = func(made []byte) {
		if len(made) <= maxTold && c.out.queued() < maxUntold {
			_ = c.out.put(false, func(b []byte) []byte { b, at := begin(b, kindTold, id); return end(append(b, made...), at) })
		}
	}
	in := &incoming{id: id, r: r}
	in.ctx, in.end = context.WithCancel(store.WithAttempt(c.ctx, a))
	if !c.enter(in) {
		in.end()
		return errFrame
	}
	select {
	case c.work <- in:
	default:
		c.t.done.Go(func() { c.answerAll(in) })
	}
	return nil
}

// enter registers a request; false when there are too many, or one with its number is in progress.
func (c *called) enter(in *incoming) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls[in.id] != nil || len(c.calls) >= maxCalls {
		return false
	}
	c.calls[in.id] = in.end
	return true
}

// answerAll is a worker. It serves many requests, so that its stack grows once.
func (c *called) answerAll(in *incoming) {
	for in != nil {
		c.answer(in)
		c.mu.Lock()
		stay := c.idle < idleWorkers
		if stay {
			c.idle++
		}
		c.mu.Unlock()
		if !stay {
			return
		}
		in = <-c.work
		c.mu.Lock()
		c.idle--
		c.mu.Unlock()
	}
}

func (c *called) answer(in *incoming) {
	defer func() {
		in.end()
		c.mu.Lock()
		delete(c.calls, in.id)
		c.mu.Unlock()
	}()
	w := &framed{out: c.out, id: in.id, header: http.Header{}, replica: c.t.service.Replica}
	c.t.admit(w, in.r.WithContext(in.ctx), c.nodeID, nil, c.t.service.Handler)
	_ = w.send(true)
}

// framed writes an answer as frames.
type framed struct {
	out     *outbox
	replica Replica
	id      uint64
	header  http.Header
	status  int
	body    []byte
	begun   bool
}

// Header returns the headers that will be sent.
func (w *framed) Header() http.Header { return w.header }

// WriteHeader sets the status; informational ones are not sent.
func (w *framed) WriteHeader(status int) {
	if w.status == 0 && status >= http.StatusOK {
		w.status = status
	}
}

// Write sends the body in frames of at least bodyPart, and blocks while too much waits to be sent.
func (w *framed) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.body == nil {
		w.body = make([]byte, 0, max(len(p), 512))
	}
	w.body = append(w.body, p...)
	if len(w.body) < bodyPart {
		return len(p), nil
	}
	return len(p), w.send(false)
}

func (w *framed) send(last bool) error {
	w.WriteHeader(http.StatusOK)
	err := w.out.put(true, func(b []byte) []byte {
		at := 0
		if w.begun {
			b, at = begin(b, kindMore, w.id)
			b = appendBool(b, last)
		} else {
			b, at = begin(b, kindAnswer, w.id)
			b = appendBool(binary.AppendUvarint(b, w.replica.Revision()), last)
			b = appendHeader(binary.AppendUvarint(b, uint64(w.status)), w.header, nil)
		}
		return end(append(b, w.body...), at)
	})
	w.begun, w.body = true, w.body[:0]
	return err
}
