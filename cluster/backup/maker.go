package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"muster/store"
)

// Maker writes and reads backups on this member, as the leader orders.
type Maker struct {
	Config
	self     uint64
	archives archives
	mirror   mirror
	open     func(ctx context.Context, o order) (target, error)
	stall    time.Duration // how long one operation of a target may take

	ctx  context.Context // ends with the member
	stop context.CancelFunc
	mu   sync.Mutex
	job  *job // the last job
}

// archives is the part of the store's archives that it needs.
type archives interface {
	Snapshot(ctx context.Context, c store.Consistency, w io.Writer, recipients []string,
		binary string) (store.ArchiveMeta, error)
	Read(ctx context.Context, r io.Reader, limits store.ArchiveLimits) (*store.Archive, error)
	Rehearse(ctx context.Context, a *store.Archive) error
}

// mirror is this member's copy of the state.
type mirror interface {
	Path() string
	Revision() uint64
	Changed() <-chan struct{}
}

// NewMaker returns the maker of this member. Close ends it.
func NewMaker(cfg Config) *Maker {
	m := &Maker{
		Config:   cfg,
		self:     cfg.Store.NodeID(),
		archives: cfg.Store.Archives,
		mirror:   cfg.Store.Mirror,
		stall:    stallAfter,
	}
	m.open = m.openTarget
	m.ctx, m.stop = context.WithCancel(context.Background())
	return m
}

// Close ends the job in progress and waits for it, unless it waits for a target that does not answer.
func (m *Maker) Close() {
	m.stop()
	m.mu.Lock()
	j := m.job
	m.mu.Unlock()
	if j == nil {
		return
	}
	for timer := time.NewTicker(50 * time.Millisecond); ; {
		select {
		case <-j.done:
			timer.Stop()
			return
		case <-timer.C:
			if j.watch.waited() > time.Second {
				timer.Stop()
				return
			}
		}
	}
}

// job is one backup, in progress or finished.
type job struct {
	id      string
	cancel  context.CancelFunc
	done    chan struct{}
	outcome outcome // after done
	watch   watch
	waiting int // number of leaders that wait for it
	idle    *time.Timer
	left    bool // no leader waited for it
}

func (j *job) over() bool {
	select {
	case <-j.done:
		return true
	default:
		return false
	}
}

// watch measures how long an operation of a target takes.
type watch struct{ since atomic.Pointer[time.Time] }

func (w *watch) begin() {
	now := time.Now()
	w.since.Store(&now)
}

func (w *watch) end() { w.since.Store(nil) }

func (w *watch) waited() time.Duration {
	if at := w.since.Load(); at != nil {
		return time.Since(*at)
	}
	return 0
}

// make carries out an order, or waits for the job of the same id: a leader that takes over asks again. The job
// continues for a while after ctx has ended, so that the next leader can ask for it.
func (m *Maker) make(ctx context.Context, o order) (outcome, error) {
	j, err := m.begin(o)
	if err != nil {
		return failed(err), nil
	}
	defer m.leave(j)
	stalled := time.NewTicker(time.Second)
	defer stalled.Stop()
	for {
		select {
		case <-j.done:
			return j.outcome, nil
		case <-ctx.Done():
			return outcome{}, ctx.Err()
		case <-stalled.C:
			if d := j.watch.waited(); d > m.stall {
				j.cancel()
				return failed(fmt.Errorf("the target has not answered for %v", d.Round(time.Millisecond))), nil
			}
		}
	}
}

// begin starts a job, or joins the one of the same id.
func (m *Maker) begin(o order) (*job, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if j := m.job; j != nil {
		if j.id == o.ID && !(j.over() && j.left) {
			j.waiting++
			if j.idle != nil {
				j.idle.Stop()
			}
			return j, nil
		}
		if !j.over() {
			return nil, errors.New("an earlier backup is still under way there")
		}
	}
	if m.ctx.Err() != nil {
		return nil, errors.New("the member is stopping")
	}
	ctx, cancel := context.WithTimeout(m.ctx, makeWithin)
	j := &job{id: o.ID, cancel: cancel, done: make(chan struct{}), waiting: 1}
	m.job = j
	go func() {
		defer close(j.done)
		defer cancel()
		background()
		var err error
		if j.outcome, err = m.work(ctx, o, &j.watch); err != nil {
			m.Logger.Warn("a backup failed", "backup", o.ID, "target", o.Target, "err", err)
			j.outcome = failed(err)
		}
	}()
	return j, nil
}

// leave ends the wait of a leader. A job without waiting leaders is given up after abandonAfter.
func (m *Maker) leave(j *job) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if j.waiting--; j.waiting > 0 || j.over() {
		return
	}
	j.idle = time.AfterFunc(abandonAfter, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if j.waiting == 0 && !j.over() {
			j.left = true
			j.cancel()
		}
	})
}

// background gives this goroutine a thread of its own with the lowest priority for the disk and a low one for the
// processor: at nice 10 a thread still gets a tenth of a processor that others want whole, so that a backup ends on a
// busy machine too; at nice 19 it would get a seventieth. The thread ends with the goroutine.
func background() {
	runtime.LockOSThread()
	const (
		whoProcess, bestEffort, last = 1, 2 << 13, 7 // ioprio_set(2)
		nice                         = 10
	)
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), nice)
	_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, whoProcess, uintptr(unix.Gettid()), bestEffort|last)
}

// scratchCopies is the maximum number of copies of the state in the data directory: the copy, the file read back, and
// the restored one.
const scratchCopies = 3

// work makes one backup. It reads the file back before the file gets its name.
func (m *Maker) work(ctx context.Context, o order, w *watch) (out outcome, err error) {
	if !validName(o.Name) {
		return out, errors.New("the name of the file is not one of a backup")
	}
	if err := m.awaitRevision(ctx, o.Revision); err != nil {
		return out, err
	}
	state, err := os.Stat(m.mirror.Path())
	if err != nil {
		return out, err
	}
	if size := state.Size(); m.Room() < scratchCopies*size {
		return out, fmt.Errorf("there is no room beside the database: %d bytes are needed while a backup is made",
			scratchCopies*size)
	}
	w.begin()
	t, err := m.open(ctx, o)
	w.end()
	if err != nil {
		return out, err
	}
	defer t.Close()
	f, err := watched(w, func() (file, error) { return t.Create(o.Name) })
	if err != nil {
		return out, err
	}
	defer f.Discard()
	in := &watchedFile{f, w}
	proof, err := m.write(ctx, in, o, &out)
	if err != nil {
		return out, err
	}
	if err := m.proveFile(ctx, in, proof, &out); err != nil {
		return out, fmt.Errorf("the file cannot be read back: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return out, err
	}
	_, err = watched(w, func() (struct{}, error) { return struct{}{}, f.Commit() })
	return out, err
}

func watched[T any](w *watch, f func() (T, error)) (T, error) {
	w.begin()
	defer w.end()
	return f()
}

// watchedFile reports its operations to the watch.
type watchedFile struct {
	file
	w *watch
}

func (f *watchedFile) Write(p []byte) (int, error) {
	return watched(f.w, func() (int, error) { return f.file.Write(p) })
}

func (f *watchedFile) Reread() (io.Reader, error) {
	r, err := watched(f.w, f.file.Reread)
	return &watchedReader{r, f.w}, err
}

type watchedReader struct {
	io.Reader
	w *watch
}

func (r *watchedReader) Read(p []byte) (int, error) {
	return watched(r.w, func() (int, error) { return r.Reader.Read(p) })
}

// awaitRevision blocks until this member's mirror has the revision of the order.
func (m *Maker) awaitRevision(ctx context.Context, revision uint64) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		changed := m.mirror.Changed()
		if m.mirror.Revision() >= revision {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("its replica is at revision %d, and the backup needs %d", m.mirror.Revision(), revision)
		}
	}
}

// write writes the archive, encrypted if there are recipients. It adds a recipient for this file alone and returns its
// identity, which opens the file while this process has it.
func (m *Maker) write(ctx context.Context, f io.Writer, o order, out *outcome) (proof *age.X25519Identity, err error) {
	sum := sha256.New()
	size := &counter{}
	w := io.MultiWriter(f, sum, size)
	var sealed io.WriteCloser
	if len(o.Recipients) > 0 {
		if proof, err = age.GenerateX25519Identity(); err != nil {
			return nil, err
		}
		to := []age.Recipient{proof.Recipient()}
		for _, text := range o.Recipients {
			r, err := age.ParseX25519Recipient(text)
			if err != nil {
				return nil, errors.New("a recipient is not an age X25519 recipient (age1…)")
			}
			to = append(to, r)
		}
		if sealed, err = age.Encrypt(w, to...); err != nil {
			return nil, err
		}
		w = sealed
	}
	meta, err := m.archives.Snapshot(ctx, store.Stale, &whileWriter{ctx, w}, o.Recipients, m.Version)
	if err == nil && sealed != nil {
		err = sealed.Close()
	}
	out.Size, out.SHA256, out.Revision = size.n, hex.EncodeToString(sum.Sum(nil)), meta.Index
	return proof, err
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) { c.n += int64(len(p)); return len(p), nil }

// whileWriter writes until ctx ends.
type whileWriter struct {
	ctx context.Context
	w   io.Writer
}

func (w *whileWriter) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.w.Write(p)
}
