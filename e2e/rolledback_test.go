package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// awaitTrials waits until a member has written to its disk n times from now on, and an answer to a probe has told of
// it.
func (m *member) awaitTrials(t *testing.T, n int) {
	t.Helper()
	var last time.Time
	eventually(t, formed, "the member tests its disk", func() error {
		at := m.status(t).Storing.LastWrite
		if at.After(last) {
			n--
			last = at
		}
		if n >= 0 {
			return errors.New("not yet")
		}
		return nil
	})
}

// TestRolledBack: the data directory of a member, be it the leader, is replaced by an older copy of its own. The others
// know how far it was and refuse it, also when the leader of that time is gone; with its newest directory it starts.
func TestRolledBack(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	u := c.admin(t)
	for _, x := range []*member{c.members[0], c.members[1]} {
		x.awaitTrials(t, 1)
		older, newest := x.dir+".older", x.dir+".newest"
		x.stop(t)
		x.copyDir(t, older)
		x.start(t)
		x.awaitReady(t)
		c.awaitVoters(t)
		u.lead(t, c.members[0])
		x.stop(t) // however short it ran
		if err := errors.Join(os.Rename(x.dir, newest), os.Rename(older, x.dir)); err != nil {
			t.Fatal(err)
		}
		x.start(t)
		x.saysOlder(t)
		if err := errors.Join(os.RemoveAll(x.dir), os.Rename(newest, x.dir)); err != nil {
			t.Fatal(err)
		}
		x.start(t)
		x.awaitReady(t)
		c.awaitVoters(t)
	}
}

// saysOlder waits for the end of a member whose directory is an older copy, and clears what it has said.
func (m *member) saysOlder(t *testing.T) {
	t.Helper()
	if code, err := m.exit(formed); err != nil || code != 1 {
		t.Errorf("node %d ends with %d, %v", m.n, code, err)
	}
	log := string(m.read(t, "../"+filepath.Base(m.log)))
	if !strings.Contains(log, "is an older copy of that of node") || !strings.Contains(log, "muster member remove") {
		t.Errorf("node %d says %s", m.n, lastLines(m.log, 3))
	}
	if out := muster(t, "doctor", "--data", m.dir); !strings.Contains(out.stdout, "it is an older copy") {
		t.Errorf("doctor: %+v", out)
	}
	if err := os.Remove(m.log); err != nil {
		t.Error(err)
	}
}

// TestRolledBackWhileAllWereOff: the others know from their own directories how far a member was. An older copy that
// was started before them ends when they come, and does not become newer by what it has written meanwhile.
func TestRolledBackWhileAllWereOff(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	x, others := c.members[2], c.members[:2]
	swap := func(aside, place string) {
		if err := errors.Join(os.Rename(x.dir, aside), os.Rename(place, x.dir)); err != nil {
			t.Fatal(err)
		}
	}
	stopAll := func(list []*member) {
		for _, m := range list {
			m.stop(t)
		}
	}
	startAll := func(list []*member) {
		for _, m := range list {
			m.start(t)
		}
	}
	older, newest := x.dir+".older", x.dir+".newest"
	x.awaitTrials(t, 1)
	x.stop(t)
	x.copyDir(t, older)
	x.start(t)
	c.awaitVoters(t)
	x.stop(t)
	stopAll(others)
	swap(newest, older)

	x.start(t)
	eventually(t, formed, "the older copy runs alone", func() error { _, err := x.tryStatus(); return err })
	x.awaitTrials(t, 1)
	startAll(others)
	x.saysOlder(t)
	stopAll(others)
	startAll(others)
	for _, m := range others {
		m.awaitReady(t)
	}
	x.start(t)
	x.saysOlder(t)
	swap(older, newest)
	x.start(t)
	x.awaitReady(t)
	c.awaitVoters(t)
}
