package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRecoveredTwiceAtOnce: two operators recover one cluster, each on another machine, and both start theirs in the
// same moment, so that neither hears of the other before it leads. One of the two goes on, and the third member, which
// has the log of before, ends as well.
func TestRecoveredTwiceAtOnce(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	u := c.admin(t)
	both, old := c.members[:2], c.members[2]
	recoveredAlone(t, c, both...)
	for _, m := range c.members {
		m.start(t)
	}
	old.leftOut(t)
	eventually(t, formed, "one of the two ends", func() error {
		if both[0].up() && both[1].up() {
			return errors.New("both run")
		}
		return nil
	})
	loser, winner := both[0], both[1]
	if loser.up() {
		loser, winner = winner, loser
	}
	loser.leftOut(t)
	winner.awaitReady(t)
	u.put(t, winner, "after", "the recovery")
}

// TestRecoveredTwice: two operators recover one cluster, each on another machine. The two ways that it goes from there
// never meet: whoever starts second is refused, and so is a third member with the log of before. Each says what to do,
// and a member that was left out joins again with an empty directory.
func TestRecoveredTwice(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	u := c.admin(t)
	one, two, three := c.members[0], c.members[1], c.members[2]
	recoveredAlone(t, c, one, two)
	one.start(t)
	one.awaitReady(t)
	u.put(t, one, "after", "the recovery")
	for _, m := range []*member{two, three} {
		m.start(t)
		m.leftOut(t)
	}
	if servers, err := u.raftServers(one); err != nil || len(servers) != 1 {
		t.Errorf("%+v, %v", servers, err)
	}

	// Started where it does not hear of the other, the second one runs; both say so when they meet.
	one.stop(t)
	two.start(t)
	two.awaitReady(t)
	one.start(t)
	if code, err := one.exit(formed); err != nil || code != 1 {
		t.Errorf("node 1 ends with %d, %v", code, err)
	}
	if err := os.Remove(one.log); err != nil {
		t.Error(err)
	}
	two.stop(t)
	one.start(t)
	one.awaitReady(t)
	if v, err := u.value(one, "after"); err != nil || v != "the recovery" {
		t.Errorf("%q, %v", v, err)
	}
	if err := os.RemoveAll(three.dir); err != nil {
		t.Fatal(err)
	}
	three.args = append(three.args[:9:9], "--name", "three-again", "--join", u.create(t, one, `{"ttlSeconds":300}`).Token)
	three.start(t)
	three.awaitReady(t)
}

// recoveredAlone kills all members and recovers the cluster on each of some, as if it were alone.
func recoveredAlone(t *testing.T, c *cluster, each ...*member) {
	t.Helper()
	awaitCopies(t, c, c.members...)
	for _, m := range c.members {
		m.kill()
	}
	for _, m := range each {
		if out := muster(t, "recover", "apply", "--data", m.dir, "--alone", "--yes"); out.code != 0 {
			t.Fatalf("apply: %+v", out)
		}
	}
}

// leftOut waits until the member ends because the cluster was recovered without it, which is an error in its log.
func (m *member) leftOut(t *testing.T) {
	t.Helper()
	if code, err := m.exit(formed); err != nil || code != 1 {
		t.Errorf("node %d ends with %d, %v", m.n, code, err)
	}
	if text := string(m.read(t, "../"+filepath.Base(m.log))); !strings.Contains(text,
		"was left out when the cluster was recovered") {
		t.Errorf("node %d says %s", m.n, lastLines(m.log, 3))
	}
	if err := os.Remove(m.log); err != nil {
		t.Error(err)
	}
}
