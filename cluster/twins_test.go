package cluster

import (
	"os"
	"path/filepath"
	"testing"

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
	old := func() { // it has answered for a while, and not lately
		t := leader.of[3]
		t.since = t.since.Add(-2 * traceNews)
		leader.of[3] = t
	}
	leader.saw(3, "a", 10)
	old()
	leader.saw(3, "a", 9) // an answer that was overtaken
	other.hear(2, leader.tell(1, Incarnation{ID: "l"}, 5))
	if other.outdates(start("b", 1)) || !other.outdates(hello{Incarnation: Incarnation{ID: "l2", Stored: 4}, NodeID: 1}) {
		t.Error("a member that answers is told of, or the leader itself is not")
	}
	silent := leader.of[3]
	silent.at = silent.at.Add(-2 * traceSilent)
	leader.of[3] = silent
	other.hear(2, leader.tell(1, Incarnation{ID: "l"}, 5))
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
	other.hear(2, leader.tell(1, Incarnation{ID: "l"}, 5))
	if leader.outdates(start("c", 3)) || other.outdates(start("c", 3)) {
		t.Error("the number of a run before the last one is remembered")
	}
	leader.forget(3)
	other.hear(3, "3:x:99,,x:y,1:2:3:4,9999999999999999999999:a:1")
	if leader.outdates(start("d", 1)) || len(other.of) != 2 {
		t.Errorf("%v", other.of)
	}
}

// TestTornTrace: a number that was not written as a whole is none.
func TestTornTrace(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, datadir.RaftDir), 0o700); err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 16)
	putTrace(block, 300)
	for n := range block {
		if err := os.WriteFile(filepath.Join(dir, datadir.RaftDir, store.TrialFile), block[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if got := readTrace(dir); got != 0 {
			t.Errorf("%d bytes: %d", n, got)
		}
	}
}
