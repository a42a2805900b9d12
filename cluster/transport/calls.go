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
	"strings"
	"sync"
	"time"

	"muster/store"
)

const (
	callsSilence = 500 * time.Millisecond // without an answer: the member is pinged, and after as long again given up
	callsIdle    = time.Minute            // an unused connection is closed
	oldFor       = time.Minute            // a member without the protocol is not tried again for so long
	staleTries   = 3
)

var (
	errGone   = errors.New("the member does not answer")
	errUnused = errors.New("the connection is unused")
	errAlone  = errors.New("only a member of this version knows the outcome of the request")
)

// lines are the connections for forwarded requests, one for each member.
type lines struct {
	dial func(ctx context.Context, nodeID uint64) (net.Conn, error)
	ctx  context.Context // ends when all are closed
	end  context.CancelFunc

	mu   sync.Mutex
	to   map[uint64]*lineTo
	done sync.WaitGroup
}

type lineTo struct {
	mu      sync.Mutex
	line    *line         // nil without one
	dialled chan struct{} // closed at the end of the dial in progress; nil without one
	failed  error         // of the last dial
	old     time.Time     // when it last did not know the protocol
}

func (l *lines) of(id uint64) *lineTo {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.to == nil {
		l.to = map[uint64]*lineTo{}
	}
	if l.to[id] == nil {
		l.to[id] = &lineTo{}
	}
	return l.to[id]
}

// get returns the shared connection to a member and dials if there is none. It blocks until then or until ctx ends. It
// returns nil for a member that does not know the protocol.
func (l *lines) get(ctx context.Context, id uint64) (*line, error) {
	to := l.of(id)
	to.mu.Lock()
	if to.line != nil && to.line.usable() {
		defer to.mu.Unlock()
		return to.line, nil
	}
	if time.Since(to.old) < oldFor {
		to.mu.Unlock()
		return nil, nil
	}
	if to.dialled == nil {
		to.dialled = make(chan struct{})
		go l.connect(context.WithValue(l.ctx, boundKey{}, ctx.Value(boundKey{})), to, id)
	}
	dialled := to.dialled
	to.mu.Unlock()
	select {
	case <-dialled:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	to.mu.Lock()
	defer to.mu.Unlock()
	if to.line == nil && time.Since(to.old) < oldFor {
		return nil, nil
	}
	return to.line, to.failed
}

func (l *lines) connect(ctx context.Context, to *lineTo, id uint64) {
	conn, err := l.dial(ctx, id)
	to.mu.Lock()
	defer to.mu.Unlock()
	to.line, to.failed = nil, err
	if err == nil {
		to.line, to.failed = l.start(conn)
	}
	if err != nil && strings.Contains(err.Error(), "no application protocol") {
		to.old = time.Now()
	}
	close(to.dialled)
	to.dialled = nil
}

func (l *lines) start(conn net.Conn) (*line, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() != nil {
		conn.Close()
		return nil, errGone
	}
	c := newLine(newOutbox(conn))
	l.done.Go(c.out.run)
	l.done.Go(func() { c.run(bufio.NewReaderSize(conn, bodyPart)) })
	return c, nil
}

// cut closes the connection to a member.
func (l *lines) cut(id uint64) {
	to := l.of(id)
	to.mu.Lock()
	defer to.mu.Unlock()
	if to.line != nil {
		to.line.end(errGone)
	}
}

func (l *lines) close() {
	l.mu.Lock()
	l.end()
	var ids []uint64
	for id := range l.to {
		ids = append(ids, id)
	}
	l.mu.Unlock()
	for _, id := range ids {
		l.cut(id)
	}
	l.done.Wait()
}

// line is the requesting end of such a connection.
type line struct {
	out *outbox

	mu       sync.Mutex
	calls    map[uint64]*asked
	last     uint64 // number
	epoch    uint64 // of the member's leadership, as last reported
	revision uint64 // committed by then
	heard    time.Time
	pinged   bool // since its last frame
	watch    *time.Timer
	err      error
}

// asked is a request in progress.
type asked struct {
	attempt *store.Attempt
	done    chan struct{}
	resp    *http.Response
	body    []byte
	stale   bool
	err     error
}

func newLine(out *outbox) *line {
	c := &line{out: out, calls: map[uint64]*asked{}, heard: time.Now()}
	c.watch = time.AfterFunc(callsIdle, c.look)
	return c
}

func (c *line) usable() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err == nil
}

// look closes a connection whose other end is silent during a request, or that is unused.
func (c *line) look() {
	c.mu.Lock()
	silent, used := time.Since(c.heard), len(c.calls) > 0
	ping := false
	var reason error
	switch {
	case c.err != nil:
	case !used && silent >= callsIdle:
		reason = errUnused
	case !used:
		c.watch.Reset(callsIdle - silent)
	case silent < callsSilence:
		c.watch.Reset(callsSilence - silent)
	case c.pinged:
		reason = errGone
	default:
		c.pinged, ping = true, true
		c.watch.Reset(callsSilence)
	}
	c.mu.Unlock()
	if reason != nil {
		c.end(reason)
	}
	if ping {
		_ = c.out.put(false, func(b []byte) []byte { b, at := begin(b, kindPing, 0); return end(b, at) })
	}
}

// end closes the connection. The outcome of its requests is unknown.
func (c *line) end(err error) {
	c.mu.Lock()
	if c.err == nil {
		c.err = err
	}
	calls := c.calls
	c.calls = map[uint64]*asked{}
	c.watch.Stop()
	c.mu.Unlock()
	for _, x := range calls {
		x.err = err
		close(x.done)
	}
	c.out.close(err)
}

// run reads answers until the connection ends.
func (c *line) run(r *bufio.Reader) {
	for {
		f, err := readFrame(r)
		if err == nil {
			err = c.take(&f)
		}
		if err != nil {
			c.end(err)
			return
		}
	}
}

func (c *line) take(f *fields) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard, c.pinged = time.Now(), false
	x := c.calls[f.id] // nil when the caller has gone
	last := true
	switch f.kind {
	case kindPong:
		return f.err
	case kindTold:
		if x != nil {
			x.attempt.Made = f.rest
		}
		return f.err
	case kindStale:
		c.epoch, c.revision = f.number(), max(c.revision, f.number())
		if x != nil {
			x.stale = true
		}
	case kindAnswer:
		c.revision = max(c.revision, f.number())
		last = f.bool()
		status, header := int(f.number()), f.header()
		if x != nil {
			x.resp = &http.Response{StatusCode: status, Proto: "HTTP/2.0", ProtoMajor: 2, Header: header}
			x.body = f.rest
		}
	case kindMore:
		last = f.bool()
		if x != nil {
			x.body = append(x.body, f.rest...)
		}
	default:
		return errFrame
	}
	if f.err == nil && x != nil && last {
		delete(c.calls, f.id)
		close(x.done)
	}
	return f.err
}

// add registers a call and returns its number and its leadership.
func (c *line) add(x *asked) (id, epoch uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, 0, c.err
	}
	if len(c.calls) == 0 {
		c.heard, c.pinged = time.Now(), false
		c.watch.Reset(callsSilence)
	}
	if a := x.attempt; !a.Again { // everything committed so far precedes it
		a.Since = max(a.Since, c.revision)
	}
	c.last++
	c.calls[c.last] = x
	return c.last, c.epoch, nil
}

// drop forgets a call whose caller has gone.
func (c *line) drop(id uint64) {
	c.mu.Lock()
	delete(c.calls, id)
	c.mu.Unlock()
	_ = c.out.put(false, func(b []byte) []byte { b, at := begin(b, kindCancel, id); return end(b, at) })
}

// roundTrip sends a request and returns the whole answer. It blocks until then, or until the request's context or the
// connection ends. sent reports whether the member may have received the request.
func (c *line) roundTrip(r *http.Request, body []byte, a *store.Attempt) (resp *http.Response, sent bool, err error) {
	for range staleTries {
		x := &asked{attempt: a, done: make(chan struct{})}
		id, epoch, err := c.add(x)
		if err != nil {
			return nil, false, err
		}
		a.Epoch = epoch
		if err := c.out.put(false, func(b []byte) []byte { return appendRequest(b, id, r, body, a) }); err != nil {
			return nil, true, err
		}
		select {
		case <-x.done:
		case <-r.Context().Done():
			c.drop(id)
			return nil, true, r.Context().Err()
		}
		switch {
		case x.err != nil:
			return nil, true, x.err
		case !x.stale:
			x.resp.Body, x.resp.ContentLength = io.NopCloser(bytes.NewReader(x.body)), int64(len(x.body))
			return x.resp, true, nil
		}
		if c.leads() == 0 {
			break
		}
	}
	return &http.Response{StatusCode: http.StatusMisdirectedRequest, Header: http.Header{headerNotLeader: {"1"}},
		Body: http.NoBody}, true, nil
}

func (c *line) leads() (epoch uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.epoch
}

func appendRequest(b []byte, id uint64, r *http.Request, body []byte, a *store.Attempt) []byte {
	b, at := begin(b, kindRequest, id)
	b = appendBool(binary.AppendUvarint(b, a.Epoch), a.Again)
	b = appendText(binary.AppendUvarint(b, a.Since), a.Made)
	b = appendText(appendText(appendText(b, r.Method), r.URL.RequestURI()), r.Host)
	b = appendHeader(b, r.Header, hopByHop)
	return end(append(b, body...), at)
}

// share sends a request over the shared connection to a member. known is false when the member does not know the
// protocol; nothing was sent then.
func (t *Transport) share(r *http.Request, nodeID uint64, a *store.Attempt) (resp *http.Response, known bool,
	err error) {
	c, err := t.lines.get(r.Context(), nodeID)
	switch {
	case err != nil:
		return nil, true, forwardError{err, false}
	case c == nil && a.Again && a.Epoch != 0:
		return nil, true, forwardError{errAlone, true}
	case c == nil:
		return nil, false, nil
	}
	var body []byte
	if r.Body != nil && r.Body != http.NoBody {
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, true, forwardError{err, false}
		}
	}
	resp, sent, err := c.roundTrip(r, body, a)
	if err != nil {
		return nil, true, forwardError{err, sent}
	}
	return resp, true, nil
}
