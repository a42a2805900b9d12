package conformance

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const backWithin = 2 * time.Second // of a leader

// process finds the process of a member of `muster dev` by its data directory.
func (c *cluster) process(node int) int {
	c.t.Helper()
	dir := filepath.Join(c.dir, strconv.Itoa(node))
	list, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		c.t.Fatal(err)
	}
	for _, file := range list {
		data, _ := os.ReadFile(file)
		args := strings.Split(string(data), "\x00")
		for i := range args {
			if args[i] == "--data" && i+1 < len(args) && args[i+1] == dir || args[i] == "--data="+dir {
				pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
				return pid
			}
		}
	}
	c.t.Fatalf("there is no process of member %d", node)
	return 0
}

func (c *cluster) leader() int {
	var status struct{ Cluster struct{ LeaderNodeID int } }
	c.result("GET", "/api/v1/status", "", &status)
	return status.Cluster.LeaderNodeID
}

// back waits until the member has a leader and then until the page says so, and returns how long the page took.
func (b *browser) back(c *cluster) time.Duration {
	b.t.Helper()
	c.eventually("there is a leader again", func() error {
		if c.leader() == 0 {
			return fmt.Errorf("none yet")
		}
		return nil
	})
	begin := time.Now()
	b.await(`document.querySelector("#banner").hidden && document.querySelector(".headline.good") && ` +
		`!document.querySelector("main .stale")`)
	return time.Since(begin)
}

// lead makes a member lead.
func (c *cluster) lead(node int) {
	c.t.Helper()
	var members []struct {
		NodeID int
		ID     string
	}
	c.result("GET", "/api/v1/cluster/members", "", &members)
	c.eventually(fmt.Sprintf("member %d leads", node), func() error {
		for _, m := range members {
			if m.NodeID == node && c.leader() != node {
				c.raw("PUT", "/v1/operator/raft/transfer-leadership?id="+m.ID)
			}
		}
		if got := c.leader(); got != node {
			return fmt.Errorf("%d does", got)
		}
		return nil
	})
}

// The page through the bad hour: a leader is killed, the next one hangs so that there is none, and they come back.
func testUIFaults(t *testing.T, c *cluster, b *browser) {
	b.open(c.addrs[2] + "/ui/#/overview")
	b.await(`document.activeElement.id === "token"`)
	b.press(c.token + "\r")
	b.shows("The cluster can write")

	c.lead(1)
	b.await(`document.querySelector(".headline a")?.innerText === "node-1"`)
	b.await(`!document.body.innerText.includes("down since")`)
	if err := syscall.Kill(c.process(1), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	b.await(`[...document.querySelectorAll(".headline a")].some((a) => /^node-[23]$/.test(a.innerText))`)
	b.shows("down since")
	t.Logf("a leader is killed: the page names the next, and who is down, after %v", since(begin))
	b.shows("It survives no failure of a voter")

	testUIHang(t, c, b)

	cmd := exec.Command(binary(t), "serve", "--data", filepath.Join(c.dir, "1"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	b.stop = append(b.stop, func() {
		_ = cmd.Process.Signal(os.Interrupt)
		late := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		late.Stop()
	})
	b.shows("3 alive and well")
	b.shows("It survives the loss of any one voter")
}

func since(begin time.Time) time.Duration { return time.Since(begin).Round(10 * time.Millisecond) }

// The leader hangs: of three voters one is left, which serves the page.
func testUIHang(t *testing.T, c *cluster, b *browser) {
	c.lead(2)
	hung := c.process(2)
	if err := syscall.Kill(hung, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	resume := sync.OnceFunc(func() { _ = syscall.Kill(hung, syscall.SIGCONT) })
	t.Cleanup(resume)
	begin := time.Now()
	b.shows("The cluster cannot write: there is no leader")
	t.Logf("the leader hangs: the page says so after %v", since(begin))
	b.blind()
	b.reload() // what is known is shown to somebody who comes now, too
	b.shows("3 unknown")
	b.blind()
	b.open(c.addrs[2] + "/ui/#/members")
	b.await(`document.querySelectorAll("tbody tr").length === 3`)
	b.await(`[...document.querySelectorAll("tbody tr")].every((tr) => tr.innerText.includes("unknown"))`)
	b.open(c.addrs[2] + "/ui/#/overview")
	b.shows("3 unknown")

	resume()
	took := b.back(c)
	t.Logf("there is a leader again: the page is back after %v", took.Round(10*time.Millisecond))
	if took > backWithin {
		t.Errorf("the page is back %v after a leader, more than %v", took, backWithin)
	}
}

// blind checks that the page says that there is no leader, dims what it shows, and calls nobody well.
func (b *browser) blind() {
	b.t.Helper()
	b.shows("There is no leader")
	b.shows("This is what this member knows itself. Shown as it was")
	b.await(`document.querySelector("main .stale")`)
	const marks = `[...document.querySelectorAll("main .mark")].filter((m) => !m.closest(".legend"))`
	said := eval[string](b, marks+`.map((m) => m.innerText).filter((t) => /alive|healthy|well/.test(t)).join()`)
	if said != "" {
		b.t.Errorf("without a leader the page knows this: %s", said)
	}
	green := eval[int](b, marks+`.filter((m) => m.classList.contains("good"))
		.filter((m) => getComputedStyle(m.querySelector("i")).backgroundColor !== "rgba(0, 0, 0, 0)").length`)
	if green > 0 {
		b.t.Errorf("%d marks are green without a leader", green)
	}
}
