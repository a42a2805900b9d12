package cluster

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"muster/cluster/datadir"
	"muster/store"
)

// TestTraces: a start with an older directory is found out by whoever has heard of the newer one, and nobody else is
// refused.
func TestTraces(t *testing.T) {
	start := func(incarnation string, stored uint64) hello {
		return hello{Incarnation: Incarnation{ID: incarnation, Stored: stored}, NodeID: 3}
	}
	var leader, other traces
	self := Incarnation{ID: "l"}
	servers := []store.Server{{NodeID: 3}}
	old := func() { // it has answered for a while, and not lately
		t := leader.of[3]
		t.since = t.since.Add(-2 * traceNews)
		leader.of[3] = t
	}
	leader.saw(3, "a", 10)
	old()
	leader.saw(3, "a", 9) // an answer that was overtaken
	other.hear(2, Incarnation{}, leader.tell(1, self, 5, nil))
	if other.outdates(start("b", 1)) || !other.outdates(hello{Incarnation: Incarnation{ID: "l2", Stored: 4}, NodeID: 1}) {
		t.Error("a member outside Raft that answers is told of, or the leader itself is not")
	}
	if text := leader.tell(1, self, 5, servers); text != "1:l:5,3:a:10" {
		t.Errorf("a Raft server: %s", text)
	}
	silent := leader.of[3]
	silent.at = silent.at.Add(-2 * traceSilent)
	leader.of[3] = silent
	other.hear(2, Incarnation{}, leader.tell(1, self, 5, nil))
	for who, x := range map[string]*traces{"the leader": &leader, "another": &other} {
		for _, c := range []struct {
			what string
			h    hello
			want bool
		}{
			{"an older directory", start("b", 9), true},
			{"the same one", start("b", 10), false},
			{"a later write", start("b", 11), false},
			{"the same run", start("a", 3), false},
			{"no number", start("b", 0), false},
			{"another member", hello{Incarnation: Incarnation{ID: "b", Stored: 1}, NodeID: 4}, false},
		} {
			if got := x.outdates(c.h); got != c.want {
				t.Errorf("%s, %s: %v", who, c.what, got)
			}
		}
	}
	leader.saw(3, "b", 2) // a run that was let in counts from its own number
	other.hear(2, Incarnation{}, leader.tell(1, self, 5, nil))
	if leader.outdates(start("c", 3)) || other.outdates(start("c", 3)) {
		t.Error("the number of a run before the last one is remembered")
	}
	leader.forget(3)
	if other.hear(3, Incarnation{ID: "x", Stored: 7}, "3:x:99,3:w:7,,x:y,1:2:3:4,9999999999999999999999:a:1") ||
		leader.outdates(start("d", 1)) || len(other.of) != 2 {
		t.Errorf("%v", other.of)
	}
	if !other.hear(3, Incarnation{ID: "x", Stored: 6}, "3:x:99,3:w:7") || other.hear(3, Incarnation{ID: "x"}, "3:w:7") {
		t.Error("a member does not hear that its own directory is an older copy, or one without a number does")
	}
}

// TestTracesOutlive: what a member knows of the others is in its own test write, Raft servers first, and the next
// process tells of it. A later run counts from its own number there, too.
func TestTracesOutlive(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, datadir.RaftDir), 0o700); err != nil {
		t.Fatal(err)
	}
	var before, after, third traces
	for id := range uint64(300) {
		before.saw(id, "0123456789abcdef01234567", 1000+id)
	}
	if wrote, err := tryDisk(dir, 5, before.list(7, traceKept, []store.Server{{NodeID: 299}})); !wrote || err != nil {
		t.Fatal(wrote, err)
	}
	number, text := readTrial(dir)
	after.load(7, text)
	if n := len(after.of); number != 5 || n < 80 || after.of[299].stored != 1299 || after.of[7].stored != 0 {
		t.Errorf("%d, %d traces: %s", number, n, text)
	}
	third.hear(500, Incarnation{}, after.tell(7, Incarnation{ID: "a"}, 5, []store.Server{{NodeID: 299}}))
	h := hello{Incarnation: Incarnation{ID: "b", Stored: 1298}, NodeID: 299}
	if len(third.of) != traceMost || !third.outdates(h) {
		t.Errorf("%v", third.of)
	}
	after.saw(299, "b", 10)
	if after.outdates(hello{Incarnation: Incarnation{ID: "c", Stored: 10}, NodeID: 299}) {
		t.Error("the number of an earlier run counts")
	}
}

// TestNextTrial: numbers only grow, also when the clock is set back; a directory that lost its number is not an older
// one.
func TestNextTrial(t *testing.T) {
	now := time.UnixMilli(1000)
	for last, want := range map[uint64]uint64{0: 1000, 999: 1000, 1000: 1001, 5000: 5001} {
		if got := nextTrial(last, now); got != want {
			t.Errorf("after %d: %d", last, got)
		}
	}
	if got := nextTrial(0, time.UnixMilli(-5)); got != 1 {
		t.Errorf("before 1970: %d", got)
	}
}

// TestIncarnation: a process begins with a number of its own, before its Raft server starts; an older copy that was
// refused late stays one, whatever it has written.
func TestIncarnation(t *testing.T) {
	d := &datadir.Dir{Path: t.TempDir()}
	if err := os.Mkdir(filepath.Join(d.Path, datadir.RaftDir), 0o700); err != nil {
		t.Fatal(err)
	}
	first := NewIncarnation(d)
	first.Begin(d)
	second := NewIncarnation(d)
	second.Begin(d)
	if first.Stored != 0 || first.Begun == 0 || second.Stored != first.Begun || second.Begun <= second.Stored ||
		first.ID == second.ID {
		t.Errorf("%+v, %+v", first, second)
	}
	if err := d.NoteRefused("127.0.0.1:1", true, second.Stored); err != nil {
		t.Fatal(err)
	}
	d.SettleTwin()
	if third := NewIncarnation(d); third.Stored != second.Stored {
		t.Errorf("%+v", third)
	}
}

// TestTornTrace: a number that was not written as a whole is none.
func TestTornTrace(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, datadir.RaftDir), 0o700); err != nil {
		t.Fatal(err)
	}
	block := make([]byte, trialSize)
	putTrial(block, 300, "")
	for n := range 16 {
		if err := os.WriteFile(filepath.Join(dir, datadir.RaftDir, store.TrialFile), block[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if got, _ := readTrial(dir); got != 0 {
			t.Errorf("%d bytes: %d", n, got)
		}
	}
}
