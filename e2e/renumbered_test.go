package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestRenumbered: all members have other addresses at once, and one of them is told where another is.
func TestRenumbered(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	for _, m := range c.members {
		m.stop(t)
	}
	for i, m := range c.members {
		host := fmt.Sprintf("127.0.0.%d", 20+i)
		m.move(fmt.Sprintf("%s:%d", host, freePort()), fmt.Sprintf("%s:%d", host, freePort()))
	}
	for i, m := range c.members {
		next := c.members[(i+1)%3]
		m.args = append(m.args, "--peer", fmt.Sprintf("%d=%s", next.n, next.raft))
		m.start(t)
	}
	begin := time.Now()
	for i, m := range c.members {
		m.awaitReady2(t, "127.0.0.1", fmt.Sprintf("127.0.0.%d", 20+i))
	}
	c.awaitVoters(t)
	t.Logf("healthy after %v", time.Since(begin).Round(time.Millisecond))
	u := c.admin(t)
	for _, m := range c.members {
		eventually(t, formed, "the table follows", func() error {
			if r, err := u.row(c.members[0], m.n); err != nil || r.RaftAddress != m.raft || r.APIAddress != "https://"+m.api {
				return fmt.Errorf("%+v, %v", r, err)
			}
			return nil
		})
	}
	// What was learned is kept: they start again without being told.
	for _, m := range c.members {
		m.stop(t)
		m.args = m.args[:len(m.args)-2]
	}
	for _, m := range c.members {
		m.start(t)
	}
	c.awaitVoters(t)
}

// TestClonedDisk: a process with the identity of one that runs is refused, wherever it starts, and both say so.
func TestClonedDisk(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	m := c.others(c.leader(t))[0]
	m.stop(t)
	copied := m.dir + "-copy"
	m.copyDir(t, copied)
	m.start(t)
	m.awaitReady(t)
	c.awaitVoters(t)
	out := command{limit: 20 * time.Second}.run(t, append([]string{"serve", "--data", copied}, listenFlags()...)...)
	if want := fmt.Sprintf("another process is node %d", m.n); out.code != 1 || !strings.Contains(out.stderr, want) {
		t.Errorf("the copy: exit status %d, %s", out.code, out.stderr)
	}
	if doctor := muster(t, "doctor", "--data", copied); !strings.Contains(doctor.stdout, "was refused") {
		t.Errorf("doctor on the copy says %s", doctor.stdout)
	}
	if doctor := muster(t, "doctor", "--data", m.dir); !strings.Contains(doctor.stdout,
		"a second process with the identity") {
		t.Errorf("doctor on the original says %s", doctor.stdout)
	}
	log, err := os.ReadFile(m.log)
	if err != nil || !strings.Contains(string(log), "a second process with this member's identity was refused") {
		t.Errorf("the original's log does not say so: %v", err)
	}
	c.awaitVoters(t)
}
