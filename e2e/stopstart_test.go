package e2e

import (
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestStopAndStart: planned ends. Each member in turn, all at once, and all at once without warning.
func TestStopAndStart(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	u := c.admin(t)
	l := newLedger(1000)
	identities := map[*member]string{}
	for _, m := range c.members {
		identities[m] = m.identity()
	}
	same := func(how string) {
		t.Helper()
		c.awaitVoters(t)
		for m, before := range identities {
			if m.identity() != before {
				t.Errorf("%s: node %d was %s and is %s", how, m.n, before, m.identity())
			}
		}
		l.check(t, u, c.members)
	}
	for range 3 {
		handOver(t, c, l)
		same("stopped in turn")
	}
	stopAtOnce(t, c)
	same("stopped at once")
	powerCut(t, c, u, l)
	same("killed at once")
	m := withoutItsKey(t, c)
	m.start(t)
	same("with its key back")
}

// handOver stops the leader while others are written to: nobody is refused.
func handOver(t *testing.T, c *cluster, l *ledger) {
	t.Helper()
	leader := c.leader(t)
	var refused atomic.Int64
	var stops []func()
	for _, m := range c.others(leader) {
		own := c.admin(t)
		stops = append(stops, run(1, func() {
			if !l.mint(own, m) {
				refused.Add(1)
			}
		}))
	}
	l.awaitMore(t, 10)
	begin, at := time.Now(), now()
	took := leader.stop(t)
	l.awaitMore(t, 20)
	t.Logf("node %d stopped in %v, longest gap %v", leader.n, took.Round(time.Millisecond),
		l.gap(at).Round(time.Millisecond))
	for _, stop := range stops {
		stop()
	}
	if n := refused.Load(); n > 0 && host.Lost(begin, time.Now()) < time.Second {
		t.Errorf("%d requests to members that stayed were refused during a planned hand-over", n)
	}
	if next := c.leader(t); next == leader {
		t.Errorf("node %d leads and is not there", leader.n)
	}
	leader.start(t)
}

// stopAtOnce stops all members: none has anybody to hand over to.
func stopAtOnce(t *testing.T, c *cluster) {
	t.Helper()
	for _, m := range c.members {
		m.signal(syscall.SIGTERM)
	}
	begin := time.Now()
	for _, m := range c.members {
		if code, err := m.exit(5*time.Second - time.Since(begin)); err != nil || code != 0 && !m.excused(t, begin) {
			t.Errorf("node %d, stopped with all others: exit status %d, %v", m.n, code, err)
			m.kill()
		}
	}
	for _, m := range c.members {
		m.start(t)
	}
}

// powerCut kills all members in the middle of writing.
func powerCut(t *testing.T, c *cluster, u *user, l *ledger) {
	t.Helper()
	stop := run(4, func() { l.mint(u, c.members[l.next.Load()%3]) })
	l.awaitMore(t, 30)
	for _, m := range c.members {
		m.signal(syscall.SIGKILL)
	}
	for _, m := range c.members {
		if _, err := m.exit(formed); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	for _, m := range c.members {
		m.start(t)
	}
}

// withoutItsKey takes a member's key away and returns the member with it back, stopped: it must not make itself another
// key and go on with that.
func withoutItsKey(t *testing.T, c *cluster) *member {
	t.Helper()
	m := c.others(c.leader(t))[0]
	m.stop(t)
	if err := os.Rename(m.file("node.key"), m.file("node.key.kept")); err != nil {
		t.Fatal(err)
	}
	m.start(t)
	if code, err := m.exit(5 * time.Second); err != nil || code != 1 {
		t.Errorf("a member whose node.key is gone starts all the same (exit status %d, %v)", code, err)
		m.kill()
	}
	if _, err := os.Stat(m.file("node.key")); err == nil {
		t.Error("a new node.key was made for a member that has an identity")
	}
	if err := os.Rename(m.file("node.key.kept"), m.file("node.key")); err != nil {
		t.Fatal(err)
	}
	return m
}
