package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Event records who did what. Each change of the cluster's state has one, in the order of the changes.
type Event struct {
	Revision  uint64    `json:"revision"`
	Seq       uint64    `json:"seq"` // counts within the revision
	At        time.Time `json:"at"`  // whole seconds, by the leader's clock
	Type      string    `json:"type"`
	Action    string    `json:"action"`
	Object    string    `json:"object"`
	Actor     string    `json:"actor"`
	NodeID    uint64    `json:"node"` // the member that took the request
	Remote    string    `json:"remote,omitempty"`
	Outcome   string    `json:"outcome"` // "ok", "refused", "replayed" or "reported" (by another cluster)
	Detail    string    `json:"detail,omitempty"`
	RequestID string    `json:"requestId"`
}

// ID returns the event's position, REVISION.SEQ, for WatchOptions.After and AuditQuery.After.
func (e *Event) ID() string { return fmt.Sprintf("%d.%d", e.Revision, e.Seq) }

// WatchOptions select events. The zero value selects all new events.
type WatchOptions struct {
	After string   // the ID of an event, or a revision: later events; empty: new events
	Types []string // only these types; none: all
	// Broken, if not nil, is called with the reason each time the stream breaks, before Watch continues.
	Broken func(error)
}

const (
	watchSilence  = 40 * time.Second // the server sends a line every 15 s
	watchRetry    = 100 * time.Millisecond
	maxWatchRetry = 2 * time.Second
	watchDoubts   = 20 // consecutive refusals tolerated from a lagging member
	maxEvent      = 1 << 20
)

// Watch calls fn for each event, in order and once. It blocks until ctx ends, fn returns an error, or the cluster
// refuses. When the stream breaks, Watch continues after the last event at the next address; it fails only if no
// address has ever answered. It never omits events silently: if they are no longer kept, it returns an *Error with
// status 410.
func (c *Client) Watch(ctx context.Context, opt WatchOptions, fn func(Event) error) error {
	w := &watch{c: c, opt: opt, fn: fn, at: opt.After}
	wait := watchRetry
	doubts := 0
	for {
		connected, tried := false, []Attempt(nil)
		var refusal *Error
		first := int(c.last.Load())
		for i := range c.addrs {
			n := (first + i) % len(c.addrs)
			began, err := w.follow(ctx, c.addrs[n])
			if ctx.Err() != nil {
				return ctx.Err()
			}
			var stopped *stopError
			if errors.As(err, &stopped) {
				return stopped.error
			}
			if began {
				c.last.Store(int64(n))
				connected, doubts = true, 0
			}
			if e := (*Error)(nil); errors.As(err, &e) {
				refusal = e
				switch {
				case e.Status == http.StatusBadRequest && w.begun && doubts < watchDoubts:
					doubts++ // this member lags behind the previous one
				case e.Status < 500 && e.Status != http.StatusTooManyRequests:
					return err
				}
			}
			tried = append(tried, Attempt{c.addrs[n], err})
			if opt.Broken != nil && w.begun {
				opt.Broken(fmt.Errorf("%s: %w", c.addrs[n], err))
			}
			if began {
				break // perhaps temporary: continue with the next address
			}
		}
		switch {
		case connected:
			wait = watchRetry
			c.last.Store((c.last.Load() + 1) % int64(len(c.addrs)))
		case !w.begun && refusal != nil && refusal.Status < 500:
			return refusal
		case !w.begun && refusal == nil:
			return &NoServerError{Tried: tried}
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
		wait = min(2*wait, maxWatchRetry)
	}
}

// watch is one call of Watch.
type watch struct {
	c     *Client
	opt   WatchOptions
	fn    func(Event) error
	at    string // the last received id
	begun bool   // a stream has begun
}

// stopError wraps fn's error.
type stopError struct{ error }

// follow reads one stream to its end, and blocks for as long. began reports whether the server sent a stream.
func (w *watch) follow(ctx context.Context, addr string) (began bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(w.c.timeout, cancel)
	defer silence.Stop()
	req, err := w.request(ctx, addr)
	if err != nil {
		return false, err
	}
	start := time.Now()
	resp, err := w.c.http.Do(req)
	if err != nil {
		return false, w.c.explain(err, time.Since(start))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		answer, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
		return false, answerError(resp, answer)
	}
	if kind := resp.Header.Get("Content-Type"); !strings.HasPrefix(kind, "text/event-stream") {
		return false, fmt.Errorf("the answer is %q, not a stream of events", kind)
	}
	w.begun = true
	return true, w.read(resp.Body, func() { silence.Reset(watchSilence) })
}

// request asks for the events after the last received one.
func (w *watch) request(ctx context.Context, addr string) (*http.Request, error) {
	target := addr + "/api/v1/events"
	if len(w.opt.Types) > 0 {
		target += "?" + url.Values{"type": {strings.Join(w.opt.Types, ",")}}.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", w.c.agent)
	req.Header.Set("Accept", "text/event-stream")
	if w.c.token != "" {
		req.Header.Set("Authorization", "Bearer "+w.c.token)
	}
	if w.at != "" {
		req.Header.Set("Last-Event-ID", w.at)
	}
	return req, nil
}

// read passes the events of a stream to fn until the stream ends, and calls heard for each line. The format is that of
// server-sent events (WHATWG HTML, section 9.2).
func (w *watch) read(stream io.Reader, heard func()) error {
	lines := bufio.NewScanner(stream)
	lines.Buffer(nil, maxEvent)
	var id, kind, data string
	for lines.Scan() {
		heard()
		field, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "id":
			id = value
		case "event":
			kind = value
		case "data":
			if data += value; len(data) > maxEvent {
				return errors.New("an event of the server is too large")
			}
		}
		if lines.Text() != "" {
			continue
		}
		if err := w.take(kind, data); err != nil {
			return err
		}
		if id != "" {
			w.at = id
		}
		id, kind, data = "", "", ""
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return errors.New("the server has ended the stream")
}

// take passes one event to fn; an empty one only moves the position.
func (w *watch) take(kind, data string) error {
	if kind == "dropped" {
		return errors.New("the server has dropped this reader for being too slow")
	}
	if data == "" {
		return nil
	}
	var e Event
	if err := json.Unmarshal([]byte(data), &e); err != nil {
		return fmt.Errorf("an event cannot be read: %w", err)
	}
	if err := w.fn(e); err != nil {
		return &stopError{err}
	}
	return nil
}

// AuditQuery selects entries of the audit. Zero fields select everything.
type AuditQuery struct {
	Since, Until time.Time // both inclusive, in whole seconds
	Actor        string    // the whole actor, its name, or the accessor of its token
	Action       string    // beginning of the action, such as "member."
	Object       string    // such as "node/3"
	Node         string    // the member that received the request: its number, UUID, name, address or host name
	After        string    // ID of an entry: the entries that follow it in the requested order
	Limit        int       // entries of a page, 1 … 1000; 0: 100
	Descending   bool      // newest first
}

// AuditPage is a page of the audit. Next is the After of the next page, empty on the last one.
type AuditPage struct {
	Entries []Event `json:"entries"`
	Next    string  `json:"next,omitempty"`
}

// Audit returns a page of the audit: changes, and refused attempts at sensitive requests.
func (c *Client) Audit(ctx context.Context, q AuditQuery) (AuditPage, error) {
	query := url.Values{}
	set := func(name, value string) {
		if value != "" {
			query.Set(name, value)
		}
	}
	for name, t := range map[string]time.Time{"since": q.Since, "until": q.Until} {
		if !t.IsZero() {
			set(name, t.UTC().Format(time.RFC3339))
		}
	}
	set("actor", q.Actor)
	set("action", q.Action)
	set("object", q.Object)
	set("after", q.After)
	set("node", q.Node)
	if q.Limit != 0 {
		set("limit", strconv.Itoa(q.Limit))
	}
	if q.Descending {
		set("order", "desc")
	}
	return enveloped[AuditPage](ctx, c, request{
		method: "GET",
		path:   "/api/v1/audit",
		query:  query,
		repeat: always,
		stale:  true,
	})
}
