package cluster

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"muster/cluster/datadir"
	"muster/store"
)

// TestStorageVerdict: whatever keeps a member from storing is a fault with its reason, said once, until it has passed.
func TestStorageVerdict(t *testing.T) {
	begin := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	plenty := look{inodes: 1000, freeInodes: 900}
	well := func(s *storage, at time.Time) { s.saw(plenty); s.tried(at, at, nil); s.accepts(true) }
	failing := func(err error) func(*storage, time.Time) {
		return func(s *storage, at time.Time) {
			s.saw(plenty)
			s.tried(at, at, &os.PathError{Op: "write", Path: "/secret/place", Err: err})
		}
	}
	seeing := func(l look) func(*storage, time.Time) {
		return func(s *storage, at time.Time) { s.saw(l); s.tried(at, at, nil) }
	}
	for _, c := range []struct {
		name    string
		do      func(*storage, time.Time)
		stalled bool
		want    string
	}{
		{"frozen", func(*storage, time.Time) {}, false, faultStuck},
		{"read-only after an error", failing(syscall.EROFS), false, faultReadOnly},
		{"mounted read-only", seeing(look{inodes: 9, freeInodes: 9, readOnly: true}), false, faultReadOnly},
		{"no inodes", seeing(look{inodes: 1000}), false, faultInodes},
		{"small files", seeing(look{inodes: 1000, freeInodes: 900, limited: true}), false, faultLimit},
		{"few inodes", seeing(look{inodes: 1000, freeInodes: datadir.FewInodes - 1}), false, faultInodes},
		{"no fixed number of inodes", seeing(look{}), false, ""},
		{"full", failing(syscall.ENOSPC), false, faultFull},
		{"quota", failing(syscall.EDQUOT), false, faultFull},
		{"broken", failing(syscall.EIO), false, "its disk refuses writes: input/output error"},
		{"other bytes", failing(errOtherBytes), false, faultBytes},
		{"gone", failing(errGone), false, faultGone},
		{"another directory", failing(errOtherPlace), false, faultOther},
		{"no descriptors", func(s *storage, at time.Time) { well(s, at); s.accepts(false) }, false, faultAccept},
		{"the replica stands still", well, true, faultStalled},
		{"well", well, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, now, said := newStorage(begin), begin, 0
			step := func(d time.Duration, do func(*storage, time.Time), stalled bool) (last Storing) {
				for end := now.Add(d); now.Before(end); {
					now = now.Add(judgeEvery)
					do(s, now)
					v, changed := s.judge(now, stalled)
					if last = v; changed {
						said++
					}
					if v.OK != (v.Fault == "") || v.OK != v.Since.IsZero() {
						t.Fatalf("%+v", v)
					}
				}
				return last
			}
			step(4*time.Second, well, false)
			if v := step(storeWithin+2*judgeEvery, c.do, c.stalled); v.Fault != c.want {
				t.Fatalf("%q, want %q", v.Fault, c.want)
			}
			step(time.Minute, c.do, c.stalled)
			if v := step(2*judgeEvery, well, false); !v.OK {
				t.Errorf("it is well again: %+v", v)
			}
			want := 2
			if c.want == "" {
				want = 0
			}
			if said != want {
				t.Errorf("%d changes, want %d", said, want)
			}
		})
	}
}

// A process that stood still as a whole does not blame its disk.
func TestStandstillIsNoFault(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	s := newStorage(now)
	s.judge(now, false)
	for range 3 {
		now = now.Add(time.Hour)
		if v, changed := s.judge(now, false); !v.OK || changed {
			t.Fatalf("%+v", v)
		}
	}
	for range storeWithin/judgeEvery + 1 {
		now = now.Add(judgeEvery)
		s.judge(now, false)
	}
	if v := s.verdict(); v.Fault != faultStuck {
		t.Errorf("no success for long: %+v", v)
	}
}

// Inodes that come and go do not make a vote come and go.
func TestInodesHysteresis(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	s := newStorage(now)
	for _, c := range []struct {
		free uint64
		ok   bool
	}{{enoughInodes, true}, {datadir.FewInodes, true}, {datadir.FewInodes - 1, false}, {datadir.FewInodes, false},
		{enoughInodes - 1,
			false}, {enoughInodes, true}, {datadir.FewInodes, true}} {
		now = now.Add(judgeEvery)
		s.saw(look{inodes: 100, freeInodes: c.free})
		s.tried(now, now, nil)
		if v, _ := s.judge(now, false); v.OK != c.ok {
			t.Errorf("%d free: %+v", c.free, v)
		}
	}
}

// TestTryDisk: the file lies beside the Raft log and is written again and again; without a log nothing is done.
func TestTryDisk(t *testing.T) {
	dir := t.TempDir()
	if wrote, err := tryDisk(dir, 1, ""); err != nil || wrote {
		t.Fatal(wrote, err)
	}
	if list, _ := os.ReadDir(dir); len(list) != 0 {
		t.Fatalf("it made %v", list)
	}
	if err := os.Mkdir(filepath.Join(dir, datadir.RaftDir), 0o700); err != nil {
		t.Fatal(err)
	}
	if n, _ := readTrial(dir); n != 0 {
		t.Errorf("without a file the number is %d", n)
	}
	for n := range uint64(3) {
		wrote, err := tryDisk(dir, n+7, "")
		if got, _ := readTrial(dir); err != nil || !wrote || got != n+7 {
			t.Fatal(wrote, err, got)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, datadir.RaftDir, store.TrialFile)); err != nil ||
		info.Size() != trialSize || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if err := tryRoom(dir); err != nil {
		t.Error(err)
	}
	if list, _ := os.ReadDir(filepath.Join(dir, datadir.RaftDir)); len(list) != 1 {
		t.Errorf("it made %v", list)
	}
}

// TestGroundRefuses: a Raft log that may not be read is not called gone.
func TestGroundRefuses(t *testing.T) {
	dir := t.TempDir()
	raft := filepath.Join(dir, datadir.RaftDir)
	if err := os.Mkdir(raft, 0o700); err != nil {
		t.Fatal(err)
	}
	var g ground
	if err := os.WriteFile(filepath.Join(raft, "metadata1"), nil, 0o600); err != nil || g.check(dir) != nil {
		t.Fatal(err, g.check(dir))
	}
	if err := errors.Join(os.Remove(filepath.Join(raft, "metadata1")),
		os.Symlink("metadata1", filepath.Join(raft, "metadata1"))); err != nil {
		t.Fatal(err)
	}
	if err := g.check(dir); errors.Is(err, errGone) || err == nil {
		t.Errorf("it cannot be read: %v", err)
	}
	if err := os.Remove(filepath.Join(raft, "metadata1")); err != nil || !errors.Is(g.check(dir), errGone) {
		t.Errorf("it is gone: %v, %v", err, g.check(dir))
	}
}

// TestProberStalled: time counts while the leader has more than the replica and the replica does not move.
func TestProberStalled(t *testing.T) {
	var newest, replica uint64 = 10, 10
	fail, replicates := false, true
	p := newProber(func(context.Context, uint64) (Report, error) {
		if fail {
			return Report{}, errors.New("silent")
		}
		return Report{NodeID: 2, Revision: replica}, nil
	}, func() {})
	p.newest = func() uint64 { return newest }
	ask := func() time.Duration {
		p.round(context.Background(), []target{{nodeID: 2, raft: true, replicates: replicates}}, time.Now().Add(time.Hour))
		p.done.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.seen[2].asked = time.Time{}
		return p.seen[2].Stalled
	}
	back := func(d time.Duration) { p.seen[2].moved = p.seen[2].moved.Add(-d) }
	for i, c := range []struct {
		newest, replica uint64
		fail            bool
		stalled         bool
	}{{10, 10, false, false}, {10, 10, false, false}, {20, 10, false, true}, {30, 10, true, true}, {30, 10, false,
		true}, {30, 11, false, false}, {30, 11, false, true}, {30, 30, false, false}} {
		newest, replica, fail = c.newest, c.replica, c.fail
		if i > 0 {
			back(time.Minute)
		}
		if got := ask(); (got >= time.Minute) != c.stalled {
			t.Errorf("step %d: stalled for %v", i, got)
		}
	}
	// Outside of Raft a replica may stand still, and what has passed then does not count when the member enters.
	newest, replicates = 40, false
	for range 2 {
		if got := ask(); got >= time.Minute {
			t.Errorf("outside of Raft: stalled for %v", got)
		}
		back(time.Hour)
	}
	replicates = true
	if got := ask(); got >= time.Minute {
		t.Errorf("just in Raft: stalled for %v", got)
	}
	if back(time.Hour); ask() < time.Minute {
		t.Error("in Raft for an hour: not stalled")
	}
}

// BenchmarkTryDisk measures what a member spends every two seconds.
func BenchmarkTryDisk(b *testing.B) {
	dir := b.TempDir()
	if err := os.Mkdir(filepath.Join(dir, datadir.RaftDir), 0o700); err != nil {
		b.Fatal(err)
	}
	var before, after syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	for b.Loop() {
		if _, err := tryDisk(dir, 1, ""); err != nil {
			b.Fatal(err)
		}
	}
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	used := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
	b.ReportMetric(float64(used.Microseconds())/float64(b.N), "cpu-us/op")
}

// TestGround: a Raft log that is deleted or covered by another directory is missed; one that is not there yet is not.
func TestGround(t *testing.T) {
	dir := t.TempDir()
	raft := filepath.Join(dir, datadir.RaftDir)
	metadata := filepath.Join(raft, "metadata2")
	var g ground
	for _, x := range []struct {
		what string
		do   func() error
		want error
	}{
		{"nothing yet", func() error { return nil }, nil},
		{"an empty log", func() error { return os.Mkdir(raft, 0o700) }, nil},
		{"a vote", func() error { return os.WriteFile(metadata, nil, 0o600) }, nil},
		{"its files are deleted", func() error { return os.Remove(metadata) }, errGone},
		{"they are back", func() error { return os.WriteFile(metadata, nil, 0o600) }, nil},
		{"it has another name", func() error { return os.Rename(raft, raft+".old") }, errGone},
		{"another one is there", func() error { return os.CopyFS(raft, os.DirFS(raft+".old")) }, errOtherPlace},
		{"the old one is back", func() error {
			return errors.Join(os.RemoveAll(raft), os.Rename(raft+".old", raft))
		}, nil},
	} {
		if err := x.do(); err != nil {
			t.Fatal(err)
		}
		if err := g.check(dir); !errors.Is(err, x.want) {
			t.Errorf("%s: %v, want %v", x.what, err, x.want)
		}
	}
}
