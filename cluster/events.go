package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"muster/cluster/transport"
	"muster/store"
)

const (
	pathEvents     = "/internal/events"
	eventsRetry    = 50 * time.Millisecond
	maxEventsRetry = time.Second
	eventsBeat     = 2 * time.Second
	eventsSilence  = 3 * eventsBeat // after which a member reconnects
	eventsBatch    = 512
	eventsLinger   = 30 * time.Second // after the last reader has ended
)

// events transfers the leader's events to this member's readers, and serves the leader's events to other members.
type events struct {
	*member
	closing chan struct{}
}

// follow keeps this member's window of events up to date while it has readers, with one stream from the leader for all
// of them. The stream starts after the window's end, so that a change of leader neither skips nor repeats events.
func (ev *events) follow(ctx context.Context) {
	wait := eventsRetry
	for ctx.Err() == nil {
		turned := ev.Store.Leadership()
		readers, changed := ev.Store.Events.Readers()
		leader := ev.Store.LeaderID()
		var retry <-chan time.Time
		if readers == 0 {
			ev.Store.Events.Rest()
		}
		if readers > 0 && leader != 0 && leader != ev.Store.NodeID() {
			term, cancel := context.WithCancel(ctx)
			stop := make(chan struct{})
			go func() { ev.whileRead(turned, stop); cancel() }()
			got, err := ev.receive(term, leader)
			close(stop)
			cancel()
			if got {
				wait = eventsRetry
			}
			if err != nil && ctx.Err() == nil {
				ev.log.Debug("events", "from", leader, "err", err)
			}
			retry = time.After(wait)
			wait = min(2*wait, maxEventsRetry)
		}
		select {
		case <-turned:
		case <-changed:
		case <-retry:
		case <-ctx.Done():
		}
	}
}

// whileRead blocks until leadership changes, there have been no readers for a while, or stop is closed.
func (ev *events) whileRead(turned, stop <-chan struct{}) {
	for {
		readers, changed := ev.Store.Events.Readers()
		var idle <-chan time.Time
		if readers == 0 {
			idle = time.After(eventsLinger)
		}
		select {
		case <-turned:
			return
		case <-stop:
			return
		case <-idle:
			if ev.Store.Events.Rest() {
				return
			}
		case <-changed:
		}
	}
}

// eventLine is one line of the stream between members: events, or the end of the leader's window when the stream starts
// over. An empty line is a heartbeat.
type eventLine struct {
	Begin *store.Position  `json:"begin,omitempty"`
	Rows  []store.AuditRow `json:"rows,omitempty"`
}

// receive reads from the leader until the stream ends; got reports whether anything arrived.
func (ev *events) receive(ctx context.Context, leader uint64) (got bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(eventsSilence, cancel)
	defer silence.Stop()
	path := pathEvents
	if end, ready := ev.Store.Events.End(); ready {
		path += "?after=" + end.String()
	}
	resp, err := ev.Transport.Get(ctx, leader, path)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return false, &transport.StatusError{NodeID: leader, Status: resp.StatusCode}
	}
	lines := json.NewDecoder(bufio.NewReader(resp.Body))
	for {
		var line eventLine
		if err := lines.Decode(&line); err != nil {
			return got, err
		}
		silence.Reset(eventsSilence)
		got = true
		if !ev.Store.Events.Told(line.Begin, line.Rows) {
			return got, nil
		}
	}
}

// serve streams the leader's window to another member. A member whose window ends before this window begins must start
// over; its readers get the missing events from its mirror.
func (ev *events) serve(w http.ResponseWriter, r *http.Request) {
	out := json.NewEncoder(w)
	ctl := http.NewResponseController(w)
	send := func(line eventLine) error {
		_ = ctl.SetWriteDeadline(time.Now().Add(eventsSilence))
		defer func() { _ = ctl.SetWriteDeadline(time.Time{}) }() // the deadline would end an idle stream
		if err := out.Encode(line); err != nil {
			return err
		}
		return ctl.Flush()
	}
	at, known := store.ParsePosition(r.URL.Query().Get("after"))
	if known {
		_, _, known = ev.Store.Events.Window(at, 1)
	}
	if !known {
		at, _ = ev.Store.Events.End()
		if _, _, ok := ev.Store.Events.Window(at, 1); !ok {
			http.Error(w, fmt.Sprint(ev.Store.LeaderID()), http.StatusMisdirectedRequest)
			return
		}
		if send(eventLine{Begin: &at}) != nil {
			return
		}
	} else if send(eventLine{}) != nil {
		return
	}
	ev.send(r.Context(), at, send)
}

// send sends the events after a position until ctx ends or writing fails.
func (ev *events) send(ctx context.Context, at store.Position, send func(eventLine) error) {
	beat := time.NewTicker(eventsBeat)
	defer beat.Stop()
	turned := ev.Store.Leadership()
	for {
		list, wake, ok := ev.Store.Events.Window(at, eventsBatch)
		if !ok {
			return
		}
		if len(list) > 0 {
			rows := make([]store.AuditRow, len(list))
			for i, e := range list {
				rows[i] = e.AuditRow
			}
			at = rows[len(rows)-1].Position()
			if send(eventLine{Rows: rows}) != nil {
				return
			}
			continue
		}
		select {
		case <-wake:
		case <-turned:
			turned = ev.Store.Leadership()
		case <-beat.C:
			if send(eventLine{}) != nil {
				return
			}
		case <-ctx.Done():
			return
		case <-ev.closing:
			return
		}
	}
}
