package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// dev is a running `muster dev`.
type dev struct {
	*process
	out  string
	data string
	api  int
}

func startDev(t *testing.T, data string, api, raft int) *dev {
	t.Helper()
	d := &dev{out: filepath.Join(t.TempDir(), "out"), data: data, api: api}
	file, err := os.Create(d.out)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd := exec.Command(self(), "dev", "--data", data, "--api-port", fmt.Sprint(api), "--raft-port", fmt.Sprint(raft))
	cmd.Stdout, cmd.Stderr = file, file
	if d.process, err = launch(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.kill)
	return d
}

func (d *dev) said() string {
	text, _ := os.ReadFile(d.out)
	return string(text)
}

// await waits until the cluster is complete and returns how long that took.
func (d *dev) await(t *testing.T) {
	t.Helper()
	eventually(t, formed, "muster dev is complete", func() error {
		if !d.running() {
			t.Fatalf("muster dev has ended:\n%s", d.said())
		}
		if !strings.Contains(d.said(), "Ctrl-C stops the cluster") {
			return fmt.Errorf("it says:\n%s", d.said())
		}
		return nil
	})
}

// running counts the members' processes.
func devMembers(data string) (pids []int) {
	for _, pid := range ours() {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if strings.Contains(string(line), "\x00serve\x00") && strings.Contains(string(line), data) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// TestDev: `make run`: three real processes, Ctrl-C stops them all, the next start is the same cluster.
func TestDev(t *testing.T) {
	t.Parallel()
	clusters <- struct{}{}
	t.Cleanup(func() { <-clusters })
	data := filepath.Join(t.TempDir(), "data")
	api, raft := freePorts(3), freePorts(3)
	var members string
	for start := range 3 {
		begin := time.Now()
		d := startDev(t, data, api, raft)
		d.await(t)
		t.Logf("start %d: complete in %v", start+1, time.Since(begin).Round(time.Millisecond))
		if n := len(devMembers(data)); n != 3 {
			t.Errorf("%d members are running", n)
		}
		d.shows(t, start)
		ids := d.memberIDs(t)
		if members == "" {
			members = ids
		}
		if ids != members || strings.Count(ids, "\n") != 3 {
			t.Errorf("the members were\n%sand are\n%s", members, ids)
		}
		pids := devMembers(data)
		switch start {
		case 0: // Ctrl-C: the terminal signals the foreground process group
			_ = syscall.Kill(-d.cmd.Process.Pid, syscall.SIGINT)
		case 1: // one of the members dies: the others go on and muster dev says so
			_ = syscall.Kill(pids[2], syscall.SIGKILL)
			eventually(t, formed, "muster dev says that a member is gone", func() error {
				if !strings.Contains(d.said(), "has ended: signal: killed; start it again with") {
					return fmt.Errorf("%s", d.said())
				}
				return nil
			})
			command{dir: filepath.Dir(data)}.ok(t, "members")
			d.signal(syscall.SIGTERM)
		case 2: // no goodbye: the members must not stay behind
			d.kill()
		}
		if code, err := d.exit(10 * time.Second); start < 2 && (code != 0 || err != nil) {
			t.Errorf("muster dev after its signal: exit status %d, %v\n%s", code, err, d.said())
		}
		eventually(t, formed, "the members have ended with muster dev", func() error {
			if left := devMembers(data); len(left) > 0 {
				return fmt.Errorf("%v are still running", left)
			}
			return nil
		})
		for n := 1; n <= 3; n++ {
			checkLog(t, fmt.Sprintf("node %d of muster dev", n), filepath.Join(data, fmt.Sprint(n), "muster.log"))
		}
	}
	testDevPorts(t, api)
}

// shows checks what it says when it is complete, for the how-manieth time.
func (d *dev) shows(t *testing.T, start int) {
	t.Helper()
	said := d.said()
	for n := 1; n <= 3; n++ {
		if !strings.Contains(said, fmt.Sprintf("node-%d", n)) ||
			!strings.Contains(said, fmt.Sprintf("https://127.0.0.1:%d", d.api+n-1)) {
			t.Errorf("the table lacks node %d:\n%s", n, said)
		}
		db := filepath.Join(d.data, fmt.Sprint(n), "muster.db")
		eventually(t, formed, fmt.Sprintf("the mirror of node %d shows the members", n), func() error {
			if _, err := os.Stat(db); err != nil {
				return err
			}
			if got := sqlite(t, db, "SELECT count(*) FROM v_members"); got != "3" {
				return fmt.Errorf("%s members", got)
			}
			return nil
		})
	}
	if strings.Count(said, "voter") < 3 || !strings.Contains(said, "admin.token") ||
		strings.Contains(said, "muster-token") {
		t.Errorf("muster dev says:\n%s", said)
	}
	if resumed := strings.Contains(said, "resuming the cluster"); resumed != (start > 0) {
		t.Errorf("start %d resumes: %v\n%s", start+1, resumed, said)
	}
}

// memberIDs lists the members with a command as it proposes it.
func (d *dev) memberIDs(t *testing.T) string {
	t.Helper()
	out := command{dir: filepath.Dir(d.data)}.ok(t, "members", "-o", "json")
	ids := ""
	for _, x := range jsonOf[[]struct {
		ID, Name, Status, Suffrage string
		NodeID                     int
	}](t, out) {
		ids += fmt.Sprintf("%d %s %s\n", x.NodeID, x.Name, x.ID)
		if x.Suffrage != "voter" || x.Status != "alive" {
			t.Errorf("member %+v", x)
		}
	}
	return ids
}

// testDevPorts: ports that are taken are said in one sentence, and nothing stays behind.
func testDevPorts(t *testing.T, api int) {
	other := startDev(t, filepath.Join(t.TempDir(), "other"), api, api)
	if code, err := other.exit(20 * time.Second); code != 1 || err != nil ||
		!strings.Contains(other.said(), "cannot share the address") {
		t.Errorf("muster dev with the same port twice: exit status %d, %v\n%s", code, err, other.said())
	}
	if left := devMembers(other.data); len(left) > 0 {
		t.Errorf("%v are still running", left)
	}
}

// TestDevWithoutFounder: a member that was removed, also the first one, is left out at the next start, and no command
// asks it.
func TestDevWithoutFounder(t *testing.T) {
	t.Parallel()
	clusters <- struct{}{}
	t.Cleanup(func() { <-clusters })
	data := filepath.Join(t.TempDir(), "data")
	api, raft := freePorts(3), freePorts(3)
	d := startDev(t, data, api, raft)
	d.await(t)
	at := command{dir: filepath.Dir(data)}
	at.ok(t, "raft", "transfer", "2")
	at.ok(t, "member", "remove", "1", "--force", "--yes")
	eventually(t, 10*time.Second, "muster dev says that a member was removed", func() error {
		if !strings.Contains(d.said(), "node 1 was removed from the cluster\n") {
			return fmt.Errorf("%s", d.said())
		}
		return nil
	})
	d.signal(syscall.SIGTERM)
	if code, err := d.exit(10 * time.Second); code != 0 || err != nil {
		t.Fatalf("muster dev after its signal: exit status %d, %v\n%s", code, err, d.said())
	}
	d = startDev(t, data, api, raft)
	d.await(t)
	if said := d.said(); !strings.Contains(said, "node 1 was removed from the cluster and is left out") ||
		!strings.Contains(said, "2 members are ready") ||
		!strings.Contains(said, fmt.Sprintf("https://127.0.0.1:%d (CA %s/2/ca.crt)", api+1, data)) {
		t.Errorf("it says:\n%s", said)
	}
	if out := at.ok(t, "members", "-o", "name").stdout; out != "node-2\nnode-3\n" {
		t.Errorf("members: %q", out)
	}
	if out := at.ok(t, "config").stdout; strings.Contains(out, fmt.Sprintf(":%d,", api)) {
		t.Errorf("the removed member is asked:\n%s", out)
	}
	d.signal(syscall.SIGTERM)
	if code, err := d.exit(10 * time.Second); code != 0 || err != nil {
		t.Errorf("muster dev after its signal: exit status %d, %v\n%s", code, err, d.said())
	}
}
