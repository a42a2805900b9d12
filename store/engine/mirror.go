package engine

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"muster/internal/timing"
)

// Mirror is DIR/muster.db: a plain SQLite file of the local replica, replaced as a whole soon after a change. It serves
// stale reads, the sqlite3 shell and backups without a leader or quorum.
type Mirror struct {
	path   string
	latest int64 // version of the schema
	log    *slog.Logger

	mu     sync.Mutex
	open   *File         // nil before the first copy
	base   base          // what the file holds of the local replica
	turned chan struct{} // closed and replaced with each new copy
}

// File is a database file that no process writes: a generation of the mirror or a file to be inspected. A generation is
// closed when it has been replaced and its last reader has left.
type File struct {
	db       *sql.DB
	session  *session
	mu       sync.Mutex // the session is one connection
	users    int
	replaced bool
	revision uint64
}

const (
	mirrorPoll = 20 * time.Millisecond  // until the first copy
	mirrorLook = 800 * time.Millisecond // without a notice of a change
	fetchEvery = 2 * time.Second        // a member outside Raft asks another one for its mirror
)

func newMirror(path string, latest int64, log *slog.Logger) *Mirror {
	m := &Mirror{path: path, latest: latest, log: log, turned: make(chan struct{})}
	if err := m.swap(path, point{}); err != nil && !errors.Is(err, os.ErrNotExist) {
		log.Warn("the mirror of the last run cannot be read; a new one is made", "err", err)
	}
	return m
}

// keep renews the file when the replica has changed, at a pace that depends on its size. A member whose own Raft server
// knows no leader, though others do, is a stand-by, which replicates, or no Raft server: it also asks others for a
// newer copy.
func (m *Mirror) keep(ctx context.Context, e *Engine) {
	var fetch, since time.Time
	p := pace{credit: mirrorCredit, quiet: e.settles()}
	seen, copied := "", "" // versions: the newest, and that of the mirror
	memory := trimmer{last: time.Now()}
	for {
		commits, now := e.changes.wait(), time.Now()
		memory.giveBack(now)
		v := e.version()
		if v != seen {
			seen, since = v, now
		}
		wait := mirrorLook
		if v != copied {
			p.noteChange(now)
			wait = p.next(now, since).Sub(now)
			if wait <= 0 || m.Revision() == 0 { // the first copy
				renewed := m.renew(ctx, e.dumpTo)
				p.noteCopy(now, time.Now())
				if renewed && (e.Leading() || now.Sub(since) >= p.quiet) {
					copied = v
				}
			}
		}
		if e.Outside() && e.cfg.Fetch != nil {
			if now.After(fetch) {
				m.renew(ctx, func(ctx context.Context, path string) (point, error) { return point{}, m.fetch(ctx, e, path) })
				fetch = time.Now().Add(fetchEvery + 20*time.Since(now))
			}
			wait = min(wait, time.Until(fetch))
		}
		if m.Revision() == 0 {
			wait = min(wait, mirrorPoll)
		}
		grown := e.grown
		if v != copied { // the copy that is due will include further changes
			commits, grown = nil, nil
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(wait, mirrorPoll)):
		case <-commits:
		case <-grown: // it is being written
			select {
			case <-ctx.Done():
				return
			case <-time.After(p.quiet / 2):
			}
		}
	}
}

// fetch gets a newer mirror from another member. None may be newer.
func (m *Mirror) fetch(ctx context.Context, e *Engine, path string) error {
	newer, err := e.cfg.Fetch(ctx, m.Revision(), path)
	if err == nil && !newer {
		err = errNotNewer
	}
	return err
}

const (
	mirrorQuiet = 200 * time.Millisecond // see settles
	mirrorRest  = 500 * time.Millisecond // between two copies at least
	mirrorShare = 33                     // copying takes 1/33 of the time of a processor
	mirrorMost  = 4 * time.Second        // between two copies, however large: the leader judges replicas by their mirrors
	// mirrorCredit bounds the time for copies that are made early because writing has paused. It fills as time passes.
	mirrorCredit = 2 * time.Second
)

// pace decides when the replica is copied. Under constant change, copying takes a small share of the time, however
// large the database is. When changes pause, the last one is copied at once, as far as the credit allows.
type pace struct {
	ended  time.Time     // when the last copy was complete
	took   time.Duration // duration of that copy
	dirty  time.Time     // when the first change after it was seen; zero without one
	credit time.Duration // after that copy
	quiet  time.Duration // after this silence the last change is in a copy
}

// settles is the silence after which a follower knows that its last entry is committed: the leader's next heartbeat
// says so, after 1.5 times the network latency, and takes that time once to arrive.
func (e *Engine) settles() time.Duration { return max(mirrorQuiet, 4*e.cfg.NetworkLatency) }

func (p *pace) noteChange(now time.Time) {
	if p.dirty.IsZero() {
		p.dirty = now
	}
}

func (p *pace) noteCopy(began, ended time.Time) {
	p.credit = p.creditAt(began) - ended.Sub(began)
	p.ended, p.took, p.dirty = ended, ended.Sub(began), time.Time{}
}

func (p *pace) creditAt(now time.Time) time.Duration {
	if p.ended.IsZero() {
		return p.credit
	}
	return min(p.credit+now.Sub(p.ended)/mirrorShare, mirrorCredit)
}

// next returns when the next copy is due if the newest change was at a given time.
func (p *pace) next(now, newest time.Time) time.Time {
	rested, quiet := p.ended.Add(mirrorRest), newest.Add(p.quiet)
	rest := min(max(mirrorRest, mirrorShare*p.took), mirrorMost)
	turn := timing.Later(p.ended.Add(rest), timing.Earlier(quiet, p.dirty.Add(mirrorRest)))
	if p.creditAt(now) > 0 {
		turn = timing.Earlier(turn, timing.Later(rested, quiet))
	}
	return turn
}

var errNotNewer = errors.New("no member has a newer mirror")

// TrialFile is a file beside the Raft log that a member writes periodically to test its disk. dqlite ignores names that
// are not its own.
const TrialFile = "storing"

// version distinguishes states of the replica without reading it: the leader knows its revision, a follower sees its
// Raft log grow. A follower learns a moment after the entry that it is committed, so a copy made within that moment
// does not count as settled. Times of files are compared only with each other, because clocks are set.
func (e *Engine) version() string {
	if e.Leading() {
		return fmt.Sprint("revision ", e.changes.revision())
	}
	var text strings.Builder
	entries, _ := os.ReadDir(filepath.Join(e.cfg.Dir, "raft"))
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && entry.Name() != TrialFile {
			fmt.Fprint(&text, entry.Name(), " ", info.Size(), " ", info.ModTime().UnixNano(), "\n")
		}
	}
	return text.String()
}

// renew replaces the file by what write makes, unless that is older: a server that has left Raft still has its last
// state. It reports whether the mirror is up to date now.
func (m *Mirror) renew(ctx context.Context, write func(context.Context, string) (point, error)) bool {
	temp := m.path + ".new"
	defer os.Remove(temp)
	at, err := write(ctx, temp)
	if err == nil {
		err = m.swap(temp, at)
	}
	switch {
	case errors.Is(err, errNotNewer):
		return true
	case err != nil && ctx.Err() == nil:
		m.log.Debug("the mirror was not renewed", "err", err)
	}
	return err == nil
}

// FileURL returns the SQLite URL of a database file, with parameters of the driver.
func FileURL(path, params string) string {
	return (&url.URL{Scheme: "file", Opaque: url.PathEscape(path), RawQuery: params}).String()
}

// OpenFile opens a database file that no process writes. latest is the schema version that the caller's statements are
// written for.
func OpenFile(path string, latest int64) (*File, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite3", FileURL(path, "mode=ro&immutable=1&_query_only=1"))
	if err != nil {
		return nil, err
	}
	o := &File{db: db}
	if o.session, err = newSession(db, latest); err != nil {
		db.Close()
		return nil, err
	}
	v := &View{s: o.session}
	if o.revision, err = v.revision(); err == nil && o.revision == 0 {
		err = errors.New("the database holds no cluster yet")
	}
	if err != nil {
		o.Close()
		return nil, err
	}
	return o, nil
}

// View reads the file.
func (o *File) View(now time.Time) *View { return &View{s: o.session, Now: now} }

// Close closes the file.
func (o *File) Close() {
	_ = o.session.close()
	o.db.Close()
}

// swap puts a complete file in the mirror's place and reads from it from now on. The file is the local replica at a
// point, or something else when that is zero.
func (m *Mirror) swap(path string, at point) error {
	next, err := OpenFile(path, m.latest)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.open != nil && next.revision < m.open.revision {
		next.Close()
		return errNotNewer
	}
	if path != m.path {
		if err := os.Rename(path, m.path); err != nil { // readers of the old file keep it open
			next.Close()
			return err
		}
	}
	m.retire()
	m.open = next
	m.base = base{}
	if at != (point{}) {
		m.base, _ = baseOf(m.path, at)
	}
	close(m.turned)
	m.turned = make(chan struct{})
	return nil
}

// retire closes the current generation, now or when its last reader leaves. The caller holds m.mu.
func (m *Mirror) retire() {
	if m.open == nil {
		return
	}
	m.open.replaced = true
	if m.open.users == 0 {
		m.open.Close()
	}
	m.open = nil
}

func (m *Mirror) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.retire()
}

// read runs fn on the mirror. It returns ErrNoLeader before the first copy, that is, until a new member has received
// its first state.
func (m *Mirror) read(ctx context.Context, now time.Time, fn func(*View) error) error {
	m.mu.Lock()
	o := m.open
	if o == nil {
		m.mu.Unlock()
		return ErrNoLeader
	}
	o.users++
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		o.users--
		last := o.replaced && o.users == 0
		m.mu.Unlock()
		if last {
			o.Close()
		}
	}()
	o.mu.Lock()
	defer o.mu.Unlock()
	if ctx.Err() != nil {
		return ErrNoLeader
	}
	return fn(&View{s: o.session, Now: now})
}

// Revision returns the revision of the mirror, 0 before the first copy. It does not block.
func (m *Mirror) Revision() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.open == nil {
		return 0
	}
	return m.open.revision
}

// Changed returns a channel that is closed when the mirror is next replaced.
func (m *Mirror) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.turned
}

// Path returns the path of the mirror, which the sqlite3 shell may open.
func (m *Mirror) Path() string { return m.path }

// ReadReplica runs fn on the present state of the replica, which may be newer than the mirror.
func (e *Engine) ReadReplica(ctx context.Context, fn func(*View) error) error {
	f, err := os.CreateTemp(e.cfg.Dir, "replica-*.db")
	if err != nil {
		return err
	}
	f.Close()
	defer os.Remove(f.Name())
	if _, err := e.copyReplica(ctx, f.Name()); err != nil {
		return err
	}
	if err := plainHeader(f.Name()); err != nil {
		return err
	}
	o, err := OpenFile(f.Name(), e.cfg.Schema.Latest)
	if err != nil {
		return err
	}
	defer o.Close()
	return fn(&View{s: o.session, Now: e.cfg.Now()})
}
