package e2e

import (
	"errors"
	"os"
	"os/exec"
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
		if out, err := exec.Command("cp", "-a", x.dir, older).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		x.start(t)
		x.awaitReady(t)
		c.awaitVoters(t)
		u.lead(t, c.members[0])
		x.awaitTrials(t, 4)
		x.stop(t)
		if err := errors.Join(os.Rename(x.dir, newest), os.Rename(older, x.dir)); err != nil {
			t.Fatal(err)
		}
		x.start(t)
		if code, err := x.exit(formed); err != nil || code != 1 {
			t.Errorf("node %d ends with %d, %v", x.n, code, err)
		}
		log := string(x.read(t, "../"+filepath.Base(x.log)))
		if !strings.Contains(log, "is an older copy of that of node") || !strings.Contains(log, "muster member remove") {
			t.Errorf("node %d says %s", x.n, lastLines(x.log, 3))
		}
		if out := muster(t, "doctor", "--data", x.dir); !strings.Contains(out.stdout, "it is an older copy") {
			t.Errorf("doctor: %+v", out)
		}
		if err := errors.Join(os.Remove(x.log), os.RemoveAll(x.dir), os.Rename(newest, x.dir)); err != nil {
			t.Fatal(err)
		}
		x.start(t)
		x.awaitReady(t)
		c.awaitVoters(t)
	}
}
