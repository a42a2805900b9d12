package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// startInto starts a member whose log goes to a file of the test's own.
func (m *member) startInto(t *testing.T, stderr *os.File, env ...string) {
	t.Helper()
	cmd := exec.Command(self(), m.args...)
	cmd.Stdout, cmd.Stderr, cmd.Env = stderr, stderr, environment(append(m.env, env...)...)
	var err error
	if m.process, err = launch(cmd); err != nil {
		t.Fatal(err)
	}
}

// TestLogReaderGone: one pipe takes the logs of all members, and its reader goes away, or only stops to read. It costs
// lines of the log, not members.
func TestLogReaderGone(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	u := c.admin(t)
	for _, gone := range []bool{true, false} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		_, _, _ = syscall.Syscall(syscall.SYS_FCNTL, w.Fd(), syscall.F_SETPIPE_SZ, 4096)
		for _, m := range c.members {
			m.stop(t)
			m.startInto(t, w)
		}
		w.Close()
		if gone {
			r.Close()
		}
		c.awaitVoters(t)
		for _, m := range c.members { // leadership goes round: each of them has something to say
			u.lead(t, m)
			u.create(t, m, `{}`)
			m.signal(syscall.SIGHUP)
		}
		for _, m := range c.members {
			if !m.up() {
				t.Fatalf("node %d has ended with %v", m.n, m.cmd.ProcessState)
			}
			if gone {
				eventually(t, formed, "lost lines are counted", func() error {
					if _, values := scrape(t, c, m); values["muster_log_lines_lost_total"] == 0 {
						return fmt.Errorf("node %d has lost none", m.n)
					}
					return nil
				})
			}
		}
	}
	for _, m := range c.members { // and the end does not wait for the reader either
		m.stop(t)
		m.start(t)
	}
	c.awaitVoters(t)
}

// TestHangup: SIGHUP makes a member read its certificates again, and nothing else.
func TestHangup(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	m := c.members[0]
	pid := m.cmd.Process.Pid
	for range 3 {
		m.signal(syscall.SIGHUP)
	}
	said := func(text string) {
		eventually(t, formed, text, func() error {
			if log, _ := os.ReadFile(m.log); !strings.Contains(string(log), text) {
				return fmt.Errorf("its log ends with %s", lastLines(m.log, 3))
			}
			return nil
		})
	}
	said("SIGHUP: the certificates were read again")
	whole := m.read(t, "tls/http.crt")
	if err := os.WriteFile(m.file("tls/http.crt"), []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.signal(syscall.SIGHUP)
	said("those in use stay")
	m.awaitReady(t)
	if err := os.WriteFile(m.file("tls/http.crt"), whole, 0o600); err != nil {
		t.Fatal(err)
	}
	m.signal(syscall.SIGHUP)
	c.admin(t).create(t, m, `{}`)
	if !m.up() || m.cmd.Process.Pid != pid {
		t.Error("it is another process")
	}
}

// manager is the socket of a service manager.
type manager struct {
	path string
	mu   sync.Mutex
	said []string
}

func newManager(t *testing.T) *manager {
	t.Helper()
	g := &manager{path: filepath.Join(t.TempDir(), "notify")}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: g.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		var b [4096]byte
		for {
			n, err := conn.Read(b[:])
			if err != nil {
				return
			}
			g.mu.Lock()
			g.said = append(g.said, string(b[:n]))
			g.mu.Unlock()
		}
	}()
	return g
}

func (g *manager) env(watchdog time.Duration) []string {
	return []string{"NOTIFY_SOCKET=" + g.path, fmt.Sprintf("WATCHDOG_USEC=%d", watchdog.Microseconds())}
}

// await waits for a notice behind a place and returns the place behind it.
func (g *manager) await(t *testing.T, after int, parts ...string) int {
	t.Helper()
	place := 0
	eventually(t, formed, fmt.Sprintf("the service manager is told %q", parts), func() error {
		g.mu.Lock()
		defer g.mu.Unlock()
	next:
		for i := after; i < len(g.said); i++ {
			for _, p := range parts {
				if !strings.Contains(g.said[i], p) {
					continue next
				}
			}
			place = i + 1
			return nil
		}
		return fmt.Errorf("it was told %q", g.said)
	})
	return place
}

// TestServiceManager: the service manager is told when a member is ready, how it is, that it lives, reloads and stops;
// a member that was removed ends with a status of its own.
func TestServiceManager(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	m, g := c.members[0], newManager(t)
	m.stop(t)
	m.env = g.env(900 * time.Millisecond)
	m.start(t)
	at := g.await(t, 0, "READY=1", "STATUS=node 1 ")
	for range 3 {
		at = g.await(t, at, "WATCHDOG=1")
	}
	g.await(t, 0, "STATUS=node 1 leads")
	m.signal(syscall.SIGHUP)
	at = g.await(t, at, "RELOADING=1\n", "MONOTONIC_USEC=")
	at = g.await(t, at, "READY=1")
	m.stop(t)
	at = g.await(t, at, "STOPPING=1")
	if last := g.await(t, 0, "STOPPING=1"); last != at {
		t.Errorf("it stops twice")
	}
	m.start(t)
	m.awaitReady(t)

	u, other, g2 := c.admin(t), c.add(), newManager(t)
	other.env = g2.env(time.Minute)
	c.join(other)
	g2.await(t, 0, "READY=1")
	other.awaitReady(t)
	u.awaitSettled(t, m, 1)
	u.remove(m, 2, "?force=true").is(t, "a removal", 200, "")
	if code, err := other.exit(formed); err != nil || code != 3 {
		t.Errorf("the removed member ends with %d, %v", code, err)
	}
	if err := os.Remove(other.log); err != nil { // that it was removed is an error in it, as it should be
		t.Error(err)
	}
}

// TestStraySignals: signals that mean nothing to a member do nothing to it, also while it starts and stops.
func TestStraySignals(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	m := c.members[0]
	for _, s := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGVTALRM,
		syscall.SIGPROF, syscall.SIGIO,
		syscall.SIGPWR, syscall.SIGSTKFLT, syscall.SIGXCPU, syscall.SIGPIPE, syscall.SIGWINCH, syscall.SIGURG,
		syscall.SIGCHLD} {
		m.signal(s)
	}
	eventually(t, formed, "the log tells of one", func() error {
		if !strings.Contains(string(m.read(t, "../"+filepath.Base(m.log))), "means nothing to a member") {
			return errors.New("not yet")
		}
		return nil
	})
	c.admin(t).create(t, m, `{}`)
	if !m.up() {
		t.Errorf("it has ended: %v", m.cmd.ProcessState)
	}
}

// TestCrashUnderAManager: what a watchdog sends, like any crash, ends a managed member with a signal. Status 2 would
// say that its command line makes no sense, and the unit would not start it again.
func TestCrashUnderAManager(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	m, g := c.members[0], newManager(t)
	m.stop(t)
	m.env = g.env(time.Minute)
	m.start(t)
	g.await(t, 0, "READY=1")
	m.signal(syscall.SIGABRT)
	if _, err := m.exit(formed); err != nil {
		t.Fatal(err)
	}
	// by SIGABRT, or by what Go sends to its own threads for their stacks
	if how, ok := m.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !how.Signaled() {
		t.Errorf("it ended with %v", m.cmd.ProcessState)
	}
	if err := os.Remove(m.log); err != nil { // it has the stacks
		t.Error(err)
	}
}

// TestUnit: the unit fits what serve does, and the image holds nothing but the binary.
func TestUnit(t *testing.T) {
	text, err := os.ReadFile("../deploy/muster.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"Type=notify", "NotifyAccess=main", "WatchdogSec=60s", "Restart=always",
		"RestartPreventExitStatus=2 3", "Environment=GOTRACEBACK=crash", "StartLimitIntervalSec=0",
		"ExecReload=/bin/kill -HUP $MAINPID", "KillMode=mixed", "TimeoutStopSec=15s", "MemoryMax=2G", "MemorySwapMax=0",
		"NoNewPrivileges=yes", "ProtectSystem=strict"} {
		if !strings.Contains("\n"+string(text), "\n"+line+"\n") {
			t.Errorf("the unit does not say %s", line)
		}
	}
	if analyze, err := exec.LookPath("systemd-analyze"); err == nil {
		unit := filepath.Join(t.TempDir(), "muster.service")
		if err := os.WriteFile(unit, []byte(strings.Replace(string(text), "/usr/local/bin/muster", self(), 1)),
			0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(analyze, "verify", "--man=no", unit).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("systemd-analyze verify: %v: %s", err, out)
		}
	}
	image, err := os.ReadFile("../deploy/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count("\n"+string(image), "\nFROM "); n != 1 || !strings.Contains(string(image), "\nFROM scratch\n") {
		t.Errorf("the image is made of %d others, not of scratch alone", n)
	}
}
