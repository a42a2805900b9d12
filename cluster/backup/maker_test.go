package backup

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"muster/internal/await"
	"muster/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const fileName = "muster-6f0c1b2a-20300102T030405Z-0123456789ab.tgz"

// fakeStore is a state whose archive is some bytes. Nothing is known of them but that they come back.
type fakeStore struct {
	path    string
	content []byte
	begun   atomic.Int32
	hold    chan struct{} // closed: archives are written
}

func (f *fakeStore) Path() string             { return f.path }
func (f *fakeStore) Revision() uint64         { return 7 }
func (f *fakeStore) Changed() <-chan struct{} { return nil }

func (f *fakeStore) Snapshot(ctx context.Context, _ store.Consistency, w io.Writer, _ []string,
	_ string) (store.ArchiveMeta, error) {
	f.begun.Add(1)
	select {
	case <-f.hold:
	case <-ctx.Done():
		return store.ArchiveMeta{}, ctx.Err()
	}
	_, err := w.Write(f.content)
	return store.ArchiveMeta{Index: 7}, err
}

func (f *fakeStore) Read(_ context.Context, r io.Reader, _ store.ArchiveLimits) (*store.Archive, error) {
	back, err := io.ReadAll(r)
	if err == nil && !bytes.Equal(back, f.content) {
		err = errors.New("other bytes")
	}
	return &store.Archive{}, err
}

func (f *fakeStore) Rehearse(context.Context, *store.Archive) error { return nil }

func newMaker(t *testing.T) (*Maker, *fakeStore) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(path, []byte("state"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := &fakeStore{path: path, content: bytes.Repeat([]byte("x"), 3<<20+5), hold: make(chan struct{})}
	close(f.hold)
	m := &Maker{
		Config:   Config{Room: func() int64 { return 1 << 40 }, Logger: slog.New(slog.DiscardHandler)},
		self:     1,
		archives: f,
		mirror:   f,
		stall:    stallAfter,
	}
	m.open = func(_ context.Context, o order) (target, error) { return openDirectory(o.Target, "1") }
	m.ctx, m.stop = context.WithCancel(context.Background())
	t.Cleanup(m.Close)
	return m, f
}

// vault is a directory that backups may be kept in.
func vault(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// mount puts a small file system into memory.
func mount(t *testing.T, options string) string {
	t.Helper()
	dir := vault(t)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skip("a file system of the test's own takes rights that it does not have:", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// Targets that nothing can be kept on are told apart, and nothing is left on them.
func TestTargets(t *testing.T) {
	foreign := vault(t)
	if err := os.Chown(foreign, 65534, 65534); err != nil {
		t.Skip("giving a directory away takes rights that the test does not have:", err)
	}
	readOnly := mount(t, "size=1m,mode=0700")
	if err := unix.Mount("", readOnly, "", unix.MS_REMOUNT|unix.MS_RDONLY, "size=1m,mode=0700"); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(vault(t), "link")
	if err := os.Symlink(vault(t), link); err != nil {
		t.Fatal(err)
	}
	m, _ := newMaker(t)
	for _, test := range []struct {
		name, target, check, make string
	}{
		{"good", vault(t), "", ""},
		{"gone", filepath.Join(vault(t), "gone"), "there is no such directory", "there is no such directory"},
		{"a file", m.mirror.Path(), "it is not a directory", "it is not a directory"},
		{"below a file", filepath.Join(m.mirror.Path(), "x"), "there is no such directory", "there is no such directory"},
		{"a symbolic link", link, "it is a symbolic link", "it is a symbolic link"},
		{"another's", foreign, "it belongs to user 65534", "it belongs to user 65534"},
		{"read-only", readOnly, "it is read-only", "it is read-only"},
		{"full", mount(t, "size=1m,mode=0700"), "", "there is no room left on it"},
	} {
		t.Run(test.name, func(t *testing.T) {
			matches := func(got, want string) bool { return got == want || want != "" && strings.HasPrefix(got, want) }
			if out := m.check(t.Context(), order{Target: test.target}); !matches(out.Reason, test.check) {
				t.Errorf("check: %q", out.Reason)
			}
			out, err := m.make(t.Context(), order{ID: test.name, Name: fileName, Target: test.target})
			if err != nil || !matches(out.Reason, test.make) {
				t.Errorf("make: %q, %v", out.Reason, err)
			}
			want := 0
			if test.make == "" {
				want = 1
			}
			if left, err := os.ReadDir(test.target); err == nil && len(left) != want {
				t.Errorf("it holds %v", left)
			}
		})
	}
}

// A leader that asks again for the same backup gets the one that is under way; it is made once.
func TestTheSameOrderAgain(t *testing.T) {
	m, f := newMaker(t)
	f.hold = make(chan struct{})
	dir := vault(t)
	o := order{ID: "one", Name: fileName, Target: dir}
	first, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() { _, err := m.make(first, o); left <- err }()
	await.True(t, "the archive is being written", func() bool { return f.begun.Load() == 1 })
	leave() // the leader has lost its leadership
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if out, _ := m.make(t.Context(), order{ID: "two", Name: fileName, Target: dir}); out.Reason == "" {
		t.Error("two backups are made at the same time")
	}
	close(f.hold)
	for range 2 { // the next leader, and one after it
		out, err := m.make(t.Context(), o)
		if err != nil || out.Reason != "" || out.Size != int64(len(f.content)) || out.Revision != 7 {
			t.Errorf("%+v, %v", out, err)
		}
	}
	if n := f.begun.Load(); n != 1 || len(names(t, dir)) != 1 {
		t.Errorf("made %d times: %v", n, names(t, dir))
	}
}

// A backup that no leader waits for is given up: another member may be making it.
func TestAbandoned(t *testing.T) {
	m, f := newMaker(t)
	f.hold = make(chan struct{})
	dir := vault(t)
	o := order{ID: "one", Name: fileName, Target: dir}
	ctx, leave := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _, _ = m.make(ctx, o) }()
	await.True(t, "the archive is being written", func() bool { return f.begun.Load() == 1 })
	leave()
	<-done
	m.mu.Lock()
	j := m.job
	j.idle.Reset(0)
	m.mu.Unlock()
	<-j.done
	if j.outcome.Reason == "" || len(names(t, dir)) != 0 {
		t.Errorf("%+v, %v", j.outcome, names(t, dir))
	}
	close(f.hold)
	if out, err := m.make(t.Context(), o); err != nil || out.Reason != "" {
		t.Errorf("a leader that comes back: %+v, %v", out, err)
	}
}

// hung is a target that does not answer from some point on.
type hung struct {
	target
	release chan struct{}
	writes  bool
}

func (h *hung) Create(name string) (file, error) {
	if !h.writes {
		<-h.release
	}
	f, err := h.target.Create(name)
	return &hungFile{f, h}, err
}

type hungFile struct {
	file
	h *hung
}

func (f *hungFile) Write(p []byte) (int, error) {
	<-f.h.release
	return f.file.Write(p)
}

// A target that hangs does not hold the leader up, nor the end of the member; and it is not asked again meanwhile.
func TestTargetThatHangs(t *testing.T) {
	for name, writes := range map[string]bool{"when a file is made": false, "when it is written": true} {
		t.Run(name, func(t *testing.T) {
			m, _ := newMaker(t)
			dir := vault(t)
			release := make(chan struct{})
			m.open = func(_ context.Context, o order) (target, error) {
				d, err := openDirectory(o.Target, "1")
				return &hung{d, release, writes}, err
			}
			m.stall = 100 * time.Millisecond
			out, err := m.make(t.Context(), order{ID: "one", Name: fileName, Target: dir})
			if err != nil || !strings.Contains(out.Reason, "has not answered for") {
				t.Fatalf("%+v, %v", out, err)
			}
			if out, _ := m.make(t.Context(), order{ID: "two", Name: fileName, Target: dir}); out.Reason == "" {
				t.Error("it is asked again")
			}
			m.Close()
			close(release)
			<-m.job.done
			if left := names(t, dir); len(left) != 0 {
				t.Errorf("it holds %v", left)
			}
		})
	}
}

// What was written and comes back otherwise is no backup.
func TestWhatDoesNotReadBack(t *testing.T) {
	m, _ := newMaker(t)
	dir := vault(t)
	m.open = func(_ context.Context, o order) (target, error) {
		d, err := openDirectory(o.Target, "1")
		return &forgetful{d}, err
	}
	out, err := m.make(t.Context(), order{ID: "one", Name: fileName, Target: dir})
	if err != nil || !strings.Contains(out.Reason, "cannot be read back") || len(names(t, dir)) != 0 {
		t.Errorf("%+v, %v, %v", out, err, names(t, dir))
	}
}

// forgetful is a target that loses a byte.
type forgetful struct{ target }

func (f *forgetful) Create(name string) (file, error) {
	made, err := f.target.Create(name)
	return &forgetfulFile{made}, err
}

type forgetfulFile struct{ file }

func (f *forgetfulFile) Write(p []byte) (int, error) {
	n, err := f.file.Write(append(bytes.Clone(p[:len(p)-1]), p[len(p)-1]^1))
	return n, err
}

// What a member that was killed has left is cleared away by it alone.
func TestSweep(t *testing.T) {
	m, _ := newMaker(t)
	dir := vault(t)
	for _, name := range []string{".muster-1-5.partial", ".muster-12-5.partial", "notes.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out := m.check(t.Context(), order{Target: dir}); out.Reason != "" {
		t.Fatal(out.Reason)
	}
	if got := strings.Join(names(t, dir), " "); got != ".muster-12-5.partial notes.txt" {
		t.Error(got)
	}
}

// Only files of backups are read and deleted, whatever somebody asks for.
func TestNames(t *testing.T) {
	m, _ := newMaker(t)
	dir := vault(t)
	for _, name := range []string{"notes.txt", "../state", "muster-6f0c1b2a-20300102T030405Z-0123456789ab.tgz/..", "",
		"."} {
		if out := m.remove(t.Context(), order{Target: dir, Name: name}); out.Reason == "" {
			t.Errorf("%q is deleted", name)
		}
		if _, _, err := m.read(t.Context(), order{Target: dir, Name: name}); err == nil {
			t.Errorf("%q is read", name)
		}
	}
	if err := os.Symlink(m.mirror.Path(), filepath.Join(dir, fileName)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := m.read(t.Context(), order{Target: dir, Name: fileName}); err == nil {
		t.Error("a symbolic link is followed")
	}
	if out := m.remove(t.Context(), order{Target: dir, Name: fileName}); out.Reason != "" || len(names(t, dir)) != 0 {
		t.Errorf("%+v", out)
	}
}
