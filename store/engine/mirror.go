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

	"github.com/mattn/go-sqlite3"
)

// Mirror is DIR/muster.db: a plain SQLite file of the local replica, replaced as a whole soon after a change.
// It serves stale reads, the sqlite3 shell and backups, and needs neither a leader nor a quorum.
type Mirror struct {
	path   string
	latest int64 // version of the schema
	log    *slog.Logger

	mu     sync.Mutex
	open   *File         // nil before the first copy
	turned chan struct{} // closed and replaced with each new copy
}

// File is a database file that nobody writes: one generation of the mirror, which is closed when it was replaced and
// its last reader is gone, or a file that somebody looks at.
type File struct {
	db       *sql.DB
	session  *session
	mu       sync.Mutex // the session is one connection
	users    int
	replaced bool
	revision uint64
}

const (
	mirrorPoll    = 200 * time.Millisecond
	mirrorRest    = 500 * time.Millisecond
	maxMirrorRest = 2 * time.Second
	fetchEvery    = 2 * time.Second // a member outside Raft asks another one for its mirror
)

func newMirror(path string, latest int64, log *slog.Logger) *Mirror {
	m := &Mirror{path: path, latest: latest, log: log, turned: make(chan struct{})}
	if err := m.swap(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		log.Warn("the mirror of the last run cannot be read; it is made again", "err", err)
	}
	return m
}

// keep renews the file whenever the replica has changed, and rests 40 times as long as the copying took, within bounds:
// a large database costs little of its server's time. A member whose own Raft server knows no leader, though
// others do, is a stand-by, which replicates, or no Raft server at all: it also asks others for a newer copy.
func (m *Mirror) keep(ctx context.Context, e *Engine) {
	var rest, fetch time.Time
	var changed time.Time // when a new version was first seen
	version, seen := "", ""
	for {
		now := time.Now()
		v := e.version()
		if v != seen {
			seen, changed = v, now
		}
		if v != version && now.After(rest) {
			if m.renew(ctx, e.dumpTo) {
				rest = time.Now().Add(min(mirrorRest+40*time.Since(now), maxMirrorRest))
				if now.Sub(changed) > mirrorPoll || e.Leading() {
					version = v
				}
			}
		}
		if e.Outside() && e.cfg.Fetch != nil && now.After(fetch) {
			m.renew(ctx, func(ctx context.Context, path string) error {
				newer, err := e.cfg.Fetch(ctx, e.Mirror.Revision(), path)
				if err == nil && !newer {
					err = errNotNewer
				}
				return err
			})
			fetch = time.Now().Add(fetchEvery + 20*time.Since(now))
		}
		poll := mirrorPoll
		if e.Mirror.Revision() == 0 { // somebody waits for the first copy
			poll = mirrorPoll / 10
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(poll):
		}
	}
}

var errNotNewer = errors.New("there is nothing newer")

// TrialFile is a file beside the Raft log that a member writes again and again to find out whether it can store. dqlite
// ignores names that are not its own.
const TrialFile = "storing"

// version tells states of the replica apart without reading it: the leader knows its revision, a follower sees
// its Raft log being written. A follower learns a moment after the entry that it is committed, so a copy made
// within that moment does not count as settled. The times of files are only compared with each other: clocks are set.
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
func (m *Mirror) renew(ctx context.Context, write func(context.Context, string) error) bool {
	temp := m.path + ".new"
	defer os.Remove(temp)
	err := write(ctx, temp)
	if err == nil {
		err = m.swap(temp)
	}
	switch {
	case errors.Is(err, errNotNewer):
		return true
	case err != nil && ctx.Err() == nil:
		m.log.Debug("the mirror was not renewed", "err", err)
	}
	return err == nil
}

// dumpTo writes the local replica to a file, readable by its owner only.
func (e *Engine) dumpTo(ctx context.Context, path string) error {
	os.Remove(path)
	if l := e.current(); l != nil {
		// The leader copies its working copy: dqlite would hold up commits for as long as its dump takes.
		if err := l.work.copyTo(ctx, path); err != nil {
			return err
		}
		return plainHeader(path)
	}
	ctx, cancel := context.WithTimeout(ctx, dumpTimeout)
	defer cancel()
	if err := e.decided(ctx); err != nil && e.Mirror.Revision() > 0 {
		return err // the mirror that is there serves until then
	}
	if err := e.node.dumpInto(ctx, path); err != nil {
		return err
	}
	return plainHeader(path)
}

var errUndecided = errors.New("this member has just lost its leadership: what becomes of its last entries is not " +
	"decided yet")

// undecidedAtMost is how long a member that has lost its leadership waits for another leader before it dumps its
// replica all the same: without a majority nothing decides its last entries, and Raft has long stopped taking them for
// a leader's.
var undecidedAtMost = 2 * time.Second

// losesNow notes that this member's leadership ends.
func (e *Engine) losesNow() {
	now := time.Now()
	e.lost.Store(&now)
}

// decided returns errUndecided on a member that has lost its leadership and does not follow another leader yet. Its
// Raft server may hold entries that the next leader keeps or replaces: a dump would show less than is certain a moment
// later.
func (e *Engine) decided(ctx context.Context) error {
	lost := e.lost.Load()
	if lost == nil {
		return nil
	}
	if id, err := e.FollowsNow(ctx); err == nil && id != 0 && id != e.cfg.NodeID {
		e.lost.CompareAndSwap(lost, nil)
		return nil
	}
	if time.Since(*lost) > undecidedAtMost {
		return nil
	}
	return errUndecided
}

// plainHeader marks the file as not being in WAL mode (file format, bytes 18 and 19): a WAL database makes the
// sqlite3 shell leave files beside it, which the next replacement would turn into rubbish.
func plainHeader(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte{1, 1}, 18)
	return errors.Join(err, f.Close())
}

func (w *working) copyTo(ctx context.Context, path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	f.Close()
	dst, err := (&sqlite3.SQLiteDriver{}).Open(FileURL(path, "_synchronous=OFF"))
	if err != nil {
		return err
	}
	defer dst.Close()
	return w.withReader(ctx, func(r *session) error {
		return r.conn.Raw(func(src any) error {
			b, err := dst.(*sqlite3.SQLiteConn).Backup("main", src.(*sqlite3.SQLiteConn), "main")
			if err != nil {
				return err
			}
			_, err = b.Step(-1)
			return errors.Join(err, b.Finish())
		})
	})
}

// FileURL names a database file to SQLite, with parameters of the driver.
func FileURL(path, params string) string {
	return (&url.URL{Scheme: "file", Opaque: url.PathEscape(path), RawQuery: params}).String()
}

// OpenFile opens a database file that nobody writes, for statements that are written for a version of the schema.
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

// swap puts a finished file in the mirror's place and reads from it from now on.
func (m *Mirror) swap(path string) error {
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
		if err := os.Rename(path, m.path); err != nil { // the open file goes with the name
			next.Close()
			return err
		}
	}
	m.retire()
	m.open = next
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

// read runs fn on the mirror. It returns ErrNoLeader when there is no copy yet, which is so until a new member
// has received its first state.
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

// Revision returns the revision of the local replica as of its last copy, 0 when there is none yet.
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

// Path returns the file that the sqlite3 shell may open.
func (m *Mirror) Path() string { return m.path }

// ReadReplica runs fn on the replica as it is at this moment, without waiting for the mirror.
func (e *Engine) ReadReplica(ctx context.Context, fn func(*View) error) error {
	f, err := os.CreateTemp(e.cfg.Dir, "replica-*.db")
	if err != nil {
		return err
	}
	f.Close()
	defer os.Remove(f.Name())
	if err := errors.Join(e.node.dumpInto(ctx, f.Name()), plainHeader(f.Name())); err != nil {
		return err
	}
	o, err := OpenFile(f.Name(), e.cfg.Schema.Latest)
	if err != nil {
		return err
	}
	defer o.Close()
	return fn(&View{s: o.session, Now: e.cfg.Now()})
}
