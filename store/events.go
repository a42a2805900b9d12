package store

import (
	"context"
	"errors"
	"slices"
	"sort"
	"sync"
)

// The stream of events is the audit table: rows are written in the transaction that they describe, are replicated with
// it and never change. So any member can serve the same stream from any position, and a reader sees a change of leader
// only as a pause.
//
// Each member keeps the newest rows in memory. The leader appends what it commits; another member gets rows from the
// leader while it has readers. Older rows come from SQL.

// Event is an audit row with its encoded form.
type Event struct {
	AuditRow
	once sync.Once
	text []byte
}

// Text returns the encoded event. It is encoded once for all readers, so encode must always be the same function.
func (e *Event) Text(encode func(*AuditRow) []byte) []byte {
	e.once.Do(func() { e.text = encode(&e.AuditRow) })
	return e.text
}

const (
	defaultEventWindow = 2048
	eventsAtStart      = 1024 // rows that a new leader reads from SQL
)

// ErrSlow means that the window has moved past a reader: it must reconnect at its position.
var ErrSlow = errors.New("the reader is too slow")

// ErrPruned means that events after a position have been deleted.
var ErrPruned = errors.New("events after this position are no longer kept")

// feed is a window of the newest events: all events after start.
type feed struct {
	mu         sync.Mutex
	limit      int // the window holds at least limit events, at most twice as many
	events     []*Event
	start, end Position
	ready      bool // start and end are known
	resting    bool // there have been no readers for a while, so the window is not updated
	leading    bool // this member appends what it commits, and accepts rows from no other
	resets     int
	staged     []AuditRow // of the batch in progress
	wake       chan struct{}

	readers int
	wanted  chan struct{} // closed and replaced when the first reader begins or the last one ends
	history chan struct{} // limits concurrent reads of SQL, to leave room for other requests
}

const historyReaders = 2

func (f *feed) init(limit int) {
	if limit <= 0 {
		limit = defaultEventWindow
	}
	f.limit, f.wake, f.wanted, f.history = limit, make(chan struct{}), make(chan struct{}),
		make(chan struct{}, historyReaders)
}

// reset empties the window, which continues after a position.
func (f *feed) reset(after Position) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.resetLocked(after)
}

func (f *feed) resetLocked(after Position) {
	f.events, f.start, f.end, f.ready, f.resting = nil, after, after, true, false
	f.resets++
	f.broadcast()
}

// add appends the events that follow the stored ones and skips repetitions.
func (f *feed) add(rows []AuditRow) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.addLocked(rows)
}

func (f *feed) addLocked(rows []AuditRow) {
	if !f.ready || f.resting {
		return
	}
	added := false
	for i := range rows {
		if p := rows[i].Position(); f.end.Before(p) {
			f.events = append(f.events, &Event{AuditRow: rows[i]})
			f.end, added = p, true
		}
	}
	if !added {
		return
	}
	if n := len(f.events) - f.limit; n >= f.limit {
		f.start = f.events[n-1].Position()
		f.events = slices.Clone(f.events[n:])
	}
	f.broadcast()
}

func (f *feed) broadcast() {
	close(f.wake)
	f.wake = make(chan struct{})
}

// after returns up to limit events after a position; inside is false when the window begins after it.
func (f *feed) after(p Position, limit int) (list []*Event, inside bool, resets int, wake <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.ready || p.Before(f.start) {
		return nil, false, f.resets, f.wake
	}
	i := sort.Search(len(f.events), func(i int) bool { return p.Before(f.events[i].Position()) })
	return f.events[i:min(len(f.events), i+limit):len(f.events)], true, f.resets, f.wake
}

// position returns the end of the window; fresh is false when it is not being updated, or not known yet.
func (f *feed) position() (end Position, fresh bool, wake <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.end, f.ready && !f.resting, f.wake
}

// rest stops updating the window, unless there are readers. Afterwards it needs a reset.
func (f *feed) rest() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.readers == 0 && !f.leading {
		f.resting = true
	}
	return f.resting
}

// yield ends a leadership: from now on rows come from the new leader.
func (f *feed) yield() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leading = false
}

// takeUp fills the window at the beginning of a leadership.
func (f *feed) takeUp(v *View) error {
	f.mu.Lock()
	f.leading, f.staged = true, nil // the stream from a former leader may still be open
	f.mu.Unlock()
	tail, err := collect(v, scanAudit, selectAudit+" ORDER BY revision DESC, seq DESC LIMIT ?",
		int64(min(eventsAtStart, f.limit)))
	if err != nil {
		return err
	}
	slices.Reverse(tail)
	if len(tail) == 0 {
		f.reset(Position{})
		return nil
	}
	first := Position{tail[0].Revision, tail[0].Seq - 1}
	if end, fresh, _ := f.position(); !fresh || end.Before(first) {
		f.reset(first)
	}
	f.add(tail)
	return nil
}

// stage holds the rows of a transaction until its batch is committed.
func (f *feed) stage(rows []AuditRow) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.staged = append(f.staged, rows...)
}

// publish appends the rows of a committed batch.
func (f *feed) publish() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.addLocked(f.staged)
	f.staged = nil
}

// EventReader reads events in order after a position. It must be used by one goroutine.
type EventReader struct {
	s      *Store
	at     Position
	live   bool // it reads from the window
	resets int
}

// Read returns a reader of the events after a position. Call Close: a member that does not lead subscribes to the
// leader while it has readers.
func (ev Events) Read(after Position) *EventReader {
	f := &ev.s.events
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.readers++; f.readers == 1 {
		close(f.wanted)
		f.wanted = make(chan struct{})
	}
	return &EventReader{s: ev.s, at: after}
}

// Close ends the reader.
func (r *EventReader) Close() {
	f := &r.s.events
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.readers--; f.readers == 0 {
		close(f.wanted)
		f.wanted = make(chan struct{})
	}
}

// Readers returns the number of readers and a channel that is closed when the first one begins or the last one ends.
func (ev Events) Readers() (int, <-chan struct{}) {
	ev.s.events.mu.Lock()
	defer ev.s.events.mu.Unlock()
	return ev.s.events.readers, ev.s.events.wanted
}

// Position returns the position after the last event that Next returned.
func (r *EventReader) Position() Position { return r.at }

// Next blocks until there are events after the position and returns at most limit of them. It returns ErrSlow when the
// reader had caught up but the window has moved past it, ErrPruned when there is a gap, and ctx's error when ctx ends.
func (r *EventReader) Next(ctx context.Context, limit int) ([]*Event, error) {
	for {
		mirrored := r.s.Mirror.Changed()
		list, inside, resets, wake := r.s.events.after(r.at, limit)
		if !inside {
			if r.live && r.resets == resets {
				return nil, ErrSlow
			}
			r.live = false
			var err error
			if list, err = r.s.Events.history(ctx, r.at, limit); err != nil && ctx.Err() == nil {
				return nil, err
			}
		} else {
			r.live, r.resets = true, resets
		}
		if len(list) > 0 {
			r.at = list[len(list)-1].Position()
			return list, nil
		}
		select {
		case <-wake:
		case <-mirrored:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// history reads events from SQL: the leader's working copy or the local mirror.
func (ev Events) history(ctx context.Context, after Position, limit int) (list []*Event, err error) {
	select {
	case ev.s.events.history <- struct{}{}:
		defer func() { <-ev.s.events.history }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	err = ev.s.local(ctx, func(v *View) error {
		pruned, err := v.prunedRevision()
		if err != nil {
			return err
		}
		if after.Before(After(pruned)) && pruned > 0 {
			return ErrPruned
		}
		rows, err := collect(v, scanAudit, selectAudit+" WHERE (revision, seq) > (?, ?) ORDER BY revision, seq LIMIT ?",
			int64(after.Revision), int64(after.Seq), int64(limit))
		list = make([]*Event, len(rows))
		for i := range rows {
			list[i] = &Event{AuditRow: rows[i]}
		}
		return err
	})
	if errors.Is(err, ErrNoLeader) { // there is no mirror yet
		err = nil
	}
	return list, err
}

// Oldest returns the revision after which all events are kept.
func (ev Events) Oldest(ctx context.Context) (revision uint64, err error) {
	err = ev.s.local(ctx, func(v *View) error {
		revision, err = v.prunedRevision()
		return err
	})
	return revision, err
}

// Now returns the position after the newest event that this member knows. A member without readers waits until ctx ends
// for the leader to report it, and then uses its mirror.
func (ev Events) Now(ctx context.Context) (p Position, err error) {
	for {
		end, fresh, wake := ev.s.events.position()
		if fresh {
			return end, nil
		}
		select {
		case <-wake:
			continue
		case <-ctx.Done():
		}
		err = ev.s.Read(context.WithoutCancel(ctx), Stale, func(v *View) error {
			_, err := v.get(auditNewestAfter, []any{int64(0)}, &p.Revision, &p.Seq)
			return err
		})
		return p, err
	}
}

// KnownRevision returns the newest revision that this member knows. It asks no other member.
func (s *Store) KnownRevision() uint64 {
	end, _, _ := s.events.position()
	rev := max(end.Revision, s.Mirror.Revision())
	if s.Leading() {
		rev = max(rev, s.Revision())
	}
	return rev
}

// AwaitRevision blocks until this member knows of a revision (true) or ctx ends (false).
func (s *Store) AwaitRevision(ctx context.Context, revision uint64) bool {
	for {
		mirrored := s.Mirror.Changed()
		_, _, wake := s.events.position()
		if s.KnownRevision() >= revision {
			return true
		}
		select {
		case <-wake:
		case <-mirrored:
		case <-ctx.Done():
			return false
		}
	}
}

// Window returns events after a position for the window of another member. ok is false when the position is not in this
// leader's window, or when this member does not lead.
func (ev Events) Window(after Position, limit int) (list []*Event, wake <-chan struct{}, ok bool) {
	list, inside, _, wake := ev.s.events.after(after, limit)
	return list, wake, inside && ev.s.Leading()
}

// End returns the end of the window; false when it is not up to date.
func (ev Events) End() (Position, bool) {
	end, fresh, _ := ev.s.events.position()
	return end, fresh
}

// Rest stops the updates of the window on a member that does not lead and has no readers; it reports whether it did.
// The window then starts again with Told.
func (ev Events) Rest() bool { return ev.s.events.rest() }

// Told appends rows received from the leader to the window. With begin it first empties the window, which then starts
// at that position. It returns false when this member leads itself.
func (ev Events) Told(begin *Position, rows []AuditRow) bool {
	f := &ev.s.events
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.leading {
		return false
	}
	if begin != nil {
		f.resetLocked(*begin)
	}
	f.addLocked(rows)
	return true
}
