package handlers

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"muster/store"
)

// streamWrite is how long a reader may read nothing before it is disconnected.
const streamWrite = 10 * time.Second

// eventWriter writes server-sent events (WHATWG HTML, section 9.2). Each flush has its own deadline.
type eventWriter struct {
	w   http.ResponseWriter
	ctl *http.ResponseController
	buf []byte
	at  store.Position // the last id written

	unread *unread // counts what is being written
}

// keptBuffer bounds the memory, in bytes, that a reader keeps between events.
const keptBuffer = 4 << 10

func newEventWriter(w http.ResponseWriter, u *unread) *eventWriter {
	return &eventWriter{w: w, ctl: http.NewResponseController(w), unread: u}
}

// begin sends the headers and the start position, as an id without an event: a reader that loses the connection before
// the first event resumes from it.
func (e *eventWriter) begin(at store.Position) error {
	_ = e.ctl.SetReadDeadline(time.Time{}) // the server's own deadline is for requests
	h := e.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	e.w.WriteHeader(http.StatusOK)
	e.buf = fmt.Appendf(e.buf, "retry: 1000\nid: %v\n\n", at)
	e.at = at
	return e.flush()
}

func (e *eventWriter) heartbeat(at store.Position) error {
	e.buf = append(e.buf, ": still here\n\n"...)
	return e.position(at)
}

// position advances a reader's id past events of other types.
func (e *eventWriter) position(at store.Position) error {
	if at != e.at {
		e.buf = fmt.Appendf(e.buf, "id: %v\n\n", at)
		e.at = at
	}
	return e.flush()
}

func (e *eventWriter) dropped(at store.Position) error {
	e.buf = fmt.Appendf(e.buf,
		"id: %v\nevent: dropped\ndata: {\"resume\":\"%v\","+
			"\"error\":\"too slow: reconnect with this Last-Event-ID\"}\n\n", at, at)
	return e.flush()
}

func (e *eventWriter) events(list []*store.Event, types []string, at store.Position) error {
	for _, x := range list {
		if len(types) > 0 && !slices.Contains(types, x.Type) {
			continue
		}
		e.buf = append(e.buf, x.Text(eventText)...)
		e.at = x.Position()
	}
	if len(e.buf) == 0 { // nothing for this reader; the next heartbeat advances its id
		return nil
	}
	return e.flush()
}

// flush sends what was written. It fails when too much of what the reader's credential has asked for waits to be read.
func (e *eventWriter) flush() error {
	if len(e.buf) == 0 {
		return nil
	}
	defer e.unread.giveBack()
	if !e.unread.take(len(e.buf)) {
		return errNoRoom
	}
	_ = e.ctl.SetWriteDeadline(time.Now().Add(streamWrite))
	_, err := e.w.Write(e.buf)
	e.buf = e.buf[:0]
	if cap(e.buf) > keptBuffer {
		e.buf = nil
	}
	if err == nil {
		err = e.ctl.Flush()
	}
	_ = e.ctl.SetWriteDeadline(time.Time{}) // with HTTP/2 the deadline would end an idle stream
	return err
}

func eventText(r *store.AuditRow) []byte {
	data, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	return fmt.Appendf(nil, "id: %v\nevent: %s\ndata: %s\n\n", r.Position(), r.Type, data)
}
