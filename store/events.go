package store

import (
	"context"
	"errors"
	"slices"
	"sort"
	"sync"
)

// The stream of events is the audit table: rows are written in the transaction of what they tell of, are replicated
// with it and never change. So any member can tell the same story from any position, and a change of leader is no
// more to a reader than a pause.
//
// Each member keeps the newest rows in memory. The leader adds to them what it has just committed; another member
// gets them from the leader, as long as somebody reads there. What is older comes from SQL.

// Event is an audit row with room for what readers make of it.
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
	eventsAtStart      = 1024 // rows that a new leader takes from SQL
)

// ErrSlow says that a reader was overtaken by the window: it has to begin again from its position.
var ErrSlow = errors.New("the reader is too slow")

// ErrPruned says that what comes after a position is no longer kept.
var ErrPruned = errors.New("what came after this position is no longer kept")

// feed is a window on the newest events: it holds all of them after start.
type feed struct {
	mu         sync.Mutex
	limit      int // of events: the window holds the newest limit at least, and at most twice as many
	events     []*Event
	start, end Position
	ready      bool // start and end are known
	resting    bool // nobody has read for a while, and the end was left where it was
	leading    bool // what this member commits is added; nobody else tells it anything
	resets     int
	staged     []AuditRow // of the batch that is being committed
	wake       chan struct{}

	readers int
	wanted  chan struct{} // closed and replaced when the first reader comes or the last one goes
	history chan struct{} // readers of SQL at a time: others have to get at it, too
}

const historyReaders = 2

func (f *feed) init(limit int) {
	if limit <= 0 {
		limit = defaultEventWindow
	}
	f.limit, f.wake, f.wanted, f.history = limit, make(chan struct{}), make(chan struct{}),
		make(chan struct{}, historyReaders)
}

// reset forgets what the window holds; it goes on after a position.
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

// after returns up to limit events after a position; inside is false when the window begins later.
func (f *feed) after(p Position, limit int) (list []*Event, inside bool, resets int, wake <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.ready || p.Before(f.start) {
		return nil, false, f.resets, f.wake
	}
	i := sort.Search(len(f.events), func(i int) bool { return p.Before(f.events[i].Position()) })
	return f.events[i:min(len(f.events), i+limit):len(f.events)], true, f.resets, f.wake
}

// position returns the end of the window; fresh is false when it has been left behind, or is not known yet.
func (f *feed) position() (end Position, fresh bool, wake <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.end, f.ready && !f.resting, f.wake
}

// rest leaves the window where it is, unless there are readers; it goes on with a reset.
func (f *feed) rest() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.readers == 0 && !f.leading {
		f.resting = true
	}
	return f.resting
}

// yield is for the end of a leadership: from now on others tell.
func (f *feed) yield() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leading = false
}

// takeUp fills the window at the beginning of a leadership.
func (f *feed) takeUp(v *View) error {
	f.mu.Lock()
	f.leading, f.staged = true, nil // a former leader's stream may still be there
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

// stage keeps what a transaction has committed until its whole batch is.
func (f *feed) stage(rows []AuditRow) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.staged = append(f.staged, rows...)
}

// publish adds what a batch has committed.
func (f *feed) publish() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.addLocked(f.staged)
	f.staged = nil
}

// EventReader reads events in order from a position on. It is for one goroutine.
type EventReader struct {
	s      *Store
	at     Position
	live   bool // it has reached the window
	resets int
}

// Read begins to read after a position. Close must be called: a member that does not lead asks the leader for
// events while it has readers.
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

// Close ends the reading.
func (r *EventReader) Close() {
	f := &r.s.events
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.readers--; f.readers == 0 {
		close(f.wanted)
		f.wanted = make(chan struct{})
	}
}

// Readers tells how many readers there are and returns a channel that is closed when the first one comes or the
// last one goes.
func (ev Events) Readers() (int, <-chan struct{}) {
	ev.s.events.mu.Lock()
	defer ev.s.events.mu.Unlock()
	return ev.s.events.readers, ev.s.events.wanted
}

// Position returns the position behind the last event that Next has returned.
func (r *EventReader) Position() Position { return r.at }

// Next blocks until there are events after the position, and returns at most limit of them. It returns ErrSlow when the
// reader had caught up and was overtaken since, ErrPruned when there is a gap, and ctx's error when that ends first.
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

// Now returns the position behind the newest event that this member knows of. A member that has had no readers
// waits for the leader to tell it, until ctx ends; then its mirror must do.
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

// KnownRevision returns the newest revision that this member has heard of. It asks nobody.
func (s *Store) KnownRevision() uint64 {
	end, _, _ := s.events.position()
	rev := max(end.Revision, s.Mirror.Revision())
	if s.Leading() {
		rev = max(rev, s.Revision())
	}
	return rev
}

// AwaitRevision blocks until this member has heard of a revision, or ctx ends; it tells which.
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

// Window serves another member, which keeps a window of its own: events after a position that lies in this
// leader's window. ok is false when it does not, or when this member does not lead.
func (ev Events) Window(after Position, limit int) (list []*Event, wake <-chan struct{}, ok bool) {
	list, inside, _, wake := ev.s.events.after(after, limit)
	return list, wake, inside && ev.s.Leading()
}

// End returns the end of the window and whether there is one to go on from.
func (ev Events) End() (Position, bool) {
	end, fresh, _ := ev.s.events.position()
	return end, fresh
}

// Rest lets a member that does not lead stop following events while it has no readers; it reports whether that is so.
// Then the window starts over.
func (ev Events) Rest() bool { return ev.s.events.rest() }

// Told appends the leader's rows to the window of a member that does not lead. With begin, the window is emptied first
// and starts at that position. It returns false when this member leads itself.
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
