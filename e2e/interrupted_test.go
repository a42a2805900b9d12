package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"muster/client"
)

// killAt starts a member and kills it in the moment in which one of its files appears; it reports whether it came so
// far.
func (m *member) killAt(t *testing.T, file string) {
	t.Helper()
	m.start(t)
	deadline := time.Now().Add(formed)
	for m.running() {
		if _, err := os.Stat(m.file(file)); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("%s does not appear", file)
			break
		}
		time.Sleep(50 * time.Microsecond)
	}
	if !m.running() {
		t.Errorf("node %d has ended by itself before %s was there:\n%s", m.n, file, lastLines(m.log, 5))
	}
	m.kill()
}

// TestStoppedWhileStarting: SIGTERM ends a member in order also while it founds a cluster or joins one, and the same
// command gets there afterwards.
func TestStoppedWhileStarting(t *testing.T) {
	t.Parallel()
	clusters <- struct{}{}
	t.Cleanup(func() { <-clusters })
	c := &cluster{t: t, root: t.TempDir(), secrets: map[string]string{}}
	t.Cleanup(c.end)
	stopAt := func(m *member, files ...string) {
		for _, file := range files {
			m.start(t)
			eventually(t, formed, "it listens, and has "+file, func() error {
				conn, err := net.Dial("tcp", m.raft) // files of the last start do not say that it is there
				if err != nil {
					return err
				}
				_, err = os.Stat(m.file(file))
				return errors.Join(conn.Close(), err)
			})
			m.signal(syscall.SIGTERM)
			if code, err := m.exit(formed); err != nil || code != 0 {
				t.Errorf("node %d at %s: it ends with %d, %v: %s", m.n, file, code, err, lastLines(m.log, 3))
			}
		}
		m.start(t)
		m.awaitReady(t)
	}
	founder := c.add()
	stopAt(founder, "node.key", "tls/transport.crt", "node.json", "raft/metadata1", "leader.db")
	c.adopt(t)
	u := c.admin(t)
	joiner := c.add()
	joiner.args = append(joiner.args, "--join", u.create(t, founder, `{}`).Token)
	stopAt(joiner, "node.key", "tls/transport.key", "node.json", "raft/metadata1")
	if list := u.members(t, founder); len(list) != 2 {
		t.Errorf("%d members", len(list))
	}
}

// TestInterruptedStarts: machines that lose power while they found or join a cluster, over and over, a little later
// each time. The same command gets there in the end, with one identity and no trace of the failed starts.
func TestInterruptedStarts(t *testing.T) {
	t.Parallel()
	clusters <- struct{}{}
	t.Cleanup(func() { <-clusters })
	c := &cluster{t: t, root: t.TempDir(), secrets: map[string]string{}}
	t.Cleanup(c.end)
	founder := c.add()
	for _, file := range []string{"lock", "node.key", "tls/http.crt", "tls/transport.crt", "admin.token", "founding.json",
		"node.json", "raft", "raft/metadata1", "leader.db", "muster.db"} {
		founder.killAt(t, file)
	}
	founder.start(t)
	founder.awaitReady(t)
	c.adopt(t)
	u := c.admin(t)
	if list := u.members(t, founder); len(list) != 1 || list[0].NodeID != 1 || list[0].Suffrage != "voter" {
		t.Errorf("the members of the cluster that was founded with interruptions: %+v", list)
	}

	joiner := c.add()
	token := u.create(t, founder, `{}`)
	joiner.args = append(joiner.args, "--join", token.Token)
	identity := ""
	for _, file := range []string{"lock", "node.key", "tls/http.key", "tls/transport.key", "tls/http.crt", "ca.crt",
		"tls/transport.crt", "node.json", "raft", "raft/metadata1", "muster.db"} {
		joiner.killAt(t, file)
		if now := joiner.identity(); identity != "" && now != identity {
			t.Errorf("killed at %s: the joiner was %s and is %s", file, identity, now)
		} else if now != "" {
			identity = now
		}
	}
	joiner.start(t)
	joiner.awaitReady(t)
	if joiner.identity() != identity || identity == "" {
		t.Errorf("the joiner was %q and is %q", identity, joiner.identity())
	}
	if list := u.members(t, founder); len(list) != 2 {
		t.Errorf("one machine that joined with interruptions has made %d members", len(list)-1)
	}
	if x := u.joinToken(t, founder, token.ID); x.Uses != 1 {
		t.Errorf("its token was used %d times", x.Uses)
	}
	// With the founder's machine off in between and a second start of both.
	founder.kill()
	joiner.kill()
	founder.start(t)
	joiner.start(t)
	founder.awaitReady(t)
	joiner.awaitReady(t)
	eventually(t, formed, "both are there again", func() error {
		list, err := u.tryMembers(joiner)
		if err == nil && (len(list) != 2 || list[1].Status != "alive") {
			err = fmt.Errorf("%+v", list)
		}
		return err
	})
}

// gate passes connections on. When it is shut, what the server says after the handshake is held back: the request gets
// through, the answer does not.
type gate struct {
	net.Listener
	to    string
	shut  atomic.Bool
	mu    sync.Mutex
	conns []net.Conn
}

func openGate(t *testing.T, addr, to string) *gate {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{Listener: l, to: to}
	t.Cleanup(func() { g.Close(); g.cut() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			g.mu.Lock()
			g.conns = append(g.conns, in, out)
			g.mu.Unlock()
			var said atomic.Int64 // by the client, after its first flight
			go func() { g.pass(out, in, &said, false) }()
			go func() { g.pass(in, out, &said, true) }()
		}
	}()
	return g
}

func (g *gate) pass(to, from net.Conn, said *atomic.Int64, answers bool) {
	defer to.Close()
	buf := make([]byte, 64<<10)
	for first := true; ; first = false {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if !answers && !first {
			said.Add(int64(n))
		}
		// The end of the handshake is well below 300 bytes, a join well above.
		for answers && g.shut.Load() && said.Load() > 300 {
			time.Sleep(time.Millisecond)
			if g.closed(to) {
				return
			}
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// closed reports whether the other side of a connection is gone, and takes nothing from it.
func (g *gate) closed(c net.Conn) bool {
	_, err := c.Write(nil)
	return err != nil
}

func (g *gate) cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.conns {
		c.Close()
	}
	g.conns = nil
}

// TestAnswerLost: the cluster has admitted the machine and the machine has not heard of it.
func TestAnswerLost(t *testing.T) {
	t.Parallel()
	clusters <- struct{}{}
	t.Cleanup(func() { <-clusters })
	c := &cluster{t: t, root: t.TempDir(), secrets: map[string]string{}}
	t.Cleanup(c.end)
	founder := c.add()
	// Others find the founder's API at 127.0.0.2, where the gate is.
	founder.raft = strings.Replace(founder.raft, "127.0.0.1", "127.0.0.2", 1)
	founder.args = append(founder.args, "--raft", founder.raft, "--advertise", "127.0.0.2")
	g := openGate(t, strings.Replace(founder.api, "127.0.0.1", "127.0.0.2", 1), founder.api)
	founder.start(t)
	founder.awaitReady(t)
	c.adopt(t)
	u := c.admin(t)

	// interrupted makes a machine whose join has been answered without its knowing.
	interrupted := func() (m *member, token client.NewJoinToken, id string) {
		m, token = c.add(), u.create(t, founder, `{"mode":"replicate"}`)
		m.args = append(m.args, "--join", token.Token)
		g.shut.Store(true)
		m.start(t)
		eventually(t, formed, "the founder has admitted the machine", func() error {
			list := u.members(t, founder)
			if len(list) != len(c.members) {
				return fmt.Errorf("%d members", len(list))
			}
			id = list[len(list)-1].ID
			return nil
		})
		m.kill()
		g.cut()
		g.shut.Store(false)
		if m.identity() != "" {
			t.Fatal("the answer was not held back")
		}
		return m, token, id
	}
	// completed demands that the same command goes on where it was.
	completed := func(m *member, id string) {
		m.start(t)
		eventually(t, formed, "the same command completes the join", func() error {
			if !m.running() {
				t.Fatalf("the same command ends with status %d: %s", m.cmd.ProcessState.ExitCode(), lastLines(m.log, 3))
			}
			_, err := m.tryStatus()
			return err
		})
		if !strings.Contains(m.identity(), id) {
			t.Errorf("the cluster has admitted %s and the joiner is %s", id, m.identity())
		}
		if list := u.members(t, founder); len(list) != len(c.members) {
			t.Errorf("there are %d members", len(list))
		}
	}
	joiner, token, id := interrupted()
	if x := u.joinToken(t, founder, token.ID); x.Uses != 1 || x.State != "used" {
		t.Errorf("the token after the join: %+v", x)
	}
	completed(joiner, id)

	leaderDiesMeanwhile(t, c, u, founder, g)
	// Meanwhile somebody tries the directory with a token that is no good. The keys of the join that is under way are in
	// there: with them it can be completed, without them never.
	third, _, id := interrupted()
	revoked := u.create(t, founder, `{}`)
	u.do(founder, "DELETE", "/api/v1/cluster/join-tokens/"+revoked.ID, "")
	refusal(t, "another token in between", third.dir, "the cluster refuses the join: Unauthorized: token revoked",
		command{}, append(listenFlags(), "--join", revoked.Token)...)
	completed(third, id)
}

// leaderDiesMeanwhile: the leader dies after it has the request; the same command, still running or started again, gets
// in.
func leaderDiesMeanwhile(t *testing.T, c *cluster, u *user, founder *member, g *gate) {
	t.Helper()
	second := c.add()
	second.args = append(second.args, "--join", u.create(t, founder, `{"mode":"replicate"}`).Token)
	g.shut.Store(true)
	second.start(t)
	eventually(t, formed, "the founder has admitted the second machine", func() error {
		if list := u.members(t, founder); len(list) != 3 {
			return fmt.Errorf("%d members", len(list))
		}
		return nil
	})
	founder.kill()
	g.cut()
	g.shut.Store(false)
	founder.start(t)
	founder.awaitReady(t)
	eventually(t, formed, "the second machine is a member", func() error {
		if !second.running() { // it may have given up: it says so, and the same command is right
			if text := lastLines(second.log, 2); !strings.Contains(text, "could not be joined") {
				t.Fatalf("the second machine says %s", text)
			}
			second.start(t)
		}
		_, err := second.tryStatus()
		return err
	})
	if list := u.members(t, founder); len(list) != 3 {
		t.Errorf("there are %d members", len(list))
	}
}
