package faults

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"muster/client"
	"muster/e2e/lost"
)

// setting reads a number from the environment.
func setting(t *testing.T, name string, otherwise uint64) uint64 {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		t.Fatalf("%s must be a whole number, not %q", name, text)
	}
	return n
}

// TestCampaign hurts a cluster as a seed says while clients work, and checks what they were told.
func TestCampaign(t *testing.T) {
	faults, seed, members := setting(t, "FAULTS", 20), setting(t, "SEED", 38), setting(t, "MEMBERS", 3)
	if members < 3 {
		t.Fatalf("MEMBERS must be at least 3, not %d", members)
	}
	if kinds := strings.Fields(os.Getenv("KINDS")); len(kinds) > 0 {
		maps.DeleteFunc(deck, func(kind string, _ int) bool { return !slices.Contains(kinds, kind) })
		if len(deck) != len(kinds) {
			t.Fatalf("KINDS must be kinds of faults, not %q", kinds)
		}
	}
	c := &campaign{
		t:       t,
		plan:    newPlan(seed, int(members), int(faults)),
		root:    t.TempDir(),
		rec:     newRecorder(),
		begin:   time.Now(),
		figures: map[string][]time.Duration{},
	}
	c.octet = loopback(t)
	c.disks = c.makeRoom()
	c.net = newNetwork(int(members))
	c.net.owner, c.net.pids = c.owner, c.pids
	host, err := lost.Observe(c.root, c.pids)
	if err != nil {
		t.Fatal(err)
	}
	c.host = host
	t.Cleanup(func() {
		c.end()
		c.keep()
		c.unmount()
		if err := c.host.Close(); err != nil {
			t.Error("the other side of the rounds:", err)
		}
	})
	c.found()
	c.note("%d members vote", members)
	c.run()
	c.report()
}

// epoch is what lies between two restores.
type epoch struct {
	n     int
	after uint64 // the revision at its beginning
	first int    // its first request in the record
	load  *load
	watch *watcher
}

func (c *campaign) beginEpoch(n int) *epoch {
	e := &epoch{n: n, first: len(c.rec.ops)}
	st, err := c.member(0).status()
	if err != nil {
		c.t.Fatal(err)
	}
	e.after = st.Revision
	e.watch = c.watch(e.after)
	e.load = c.work(n)
	return e
}

// run goes through the plan.
func (c *campaign) run() {
	e := c.beginEpoch(1)
	for i, s := range c.plan.steps {
		c.note("fault %d: %s", i+1, s)
		if s.kind == "restore" {
			c.endEpoch(e)
			c.restore(e, s)
			e = c.beginEpoch(e.n + 1)
			continue
		}
		from := time.Since(c.rec.begin)
		undo := []func(){c.hurt(s)}
		if s.with != nil {
			undo = append(undo, c.hurt(s.with))
		}
		time.Sleep(s.lasts)
		for _, f := range slices.Backward(undo) { // what goes with an operation must not hold it up
			f()
		}
		time.Sleep(s.rest)
		c.checkProcesses()
		name := s.kind
		if s.leader {
			name += " (leader)"
		}
		if s.with == nil {
			c.figures[name] = append(c.figures[name], c.rec.gap(from, time.Since(c.rec.begin)))
		}
		if c.t.Failed() && os.Getenv("KEEP_GOING") == "" && len(c.wrong) > 10 {
			c.note("there is enough to look at")
			break
		}
	}
	c.endEpoch(e)
	c.checkMirrors()
}

// endEpoch lets the cluster heal, reads everything from everybody once more, and checks the record.
func (c *campaign) endEpoch(e *epoch) {
	c.mend()
	begin := time.Now()
	if err := c.host.Within(patience, c.whole); err != nil {
		c.violate("everything is mended, but not whole within %v: %v", patience, err)
	}
	c.note("whole again after %v", time.Since(begin).Round(10*time.Millisecond))
	e.load.stop()
	c.checkProcesses()
	c.checkFiles()
	id := int(clientIDs.Add(1))
	for _, m := range c.members() {
		for group := range 2 {
			for i := range registers {
				o := &op{Client: id, Kind: "get",
					Key: fmt.Sprintf("%s-%d-%d", e.load.prefix, max(0, int(e.load.asked.Load())/(keyLife*registers)-group), i)}
				e.load.get(o, m)
			}
		}
		e.load.tokens(id, m)
		e.load.members(id, m)
	}
	audit := c.checkEvents(e.watch, c.member(0), e.after)
	ops := c.rec.ops[e.first:]
	c.checkRegisters(ops)
	c.checkLog(ops, c.minted(audit, e.load.first))
	c.checkJoins(ops)
	c.note("epoch %d: %d requests, %d entries of the audit", e.n, len(ops), len(audit))
}

// minted lists the nodes of the load's tokens in the order in which the audit has these.
func (c *campaign) minted(audit []client.Event, first uint64) (order []uint64) {
	list, err := result[[]client.JoinToken](c.try(c.member(0), "GET", tokensPath, "", bound))
	if err != nil {
		c.violate("the list of tokens cannot be read: %v", err)
	}
	nodes := map[string]uint64{}
	for _, x := range list {
		nodes["join_token/"+x.ID] = x.NodeID
	}
	for _, e := range audit {
		if node := nodes[e.Object]; e.Action == "join_token.create" && node >= first {
			order = append(order, node)
		}
	}
	return order
}

const snapshotPath = "/v1/operator/snapshot"

// restore brings back a snapshot, with a fault beside it if the plan says so, and looks that what came after the
// snapshot is gone and what was there is there: as a whole, on every member, as the answer has said.
func (c *campaign) restore(e *epoch, s *step) {
	m := c.member(e.n % c.plan.members)
	key := e.load.prefix + "-kept"
	put := func(value string) {
		if a := c.do(m, "PUT", secretsPath+key, fmt.Sprintf(`{"value":%q}`, value), bound); a.verdict != done {
			c.violate("a whole cluster does not store: %v", a)
		}
	}
	put("before")
	saved := c.try(m, "GET", snapshotPath, "", time.Minute)
	put("after")
	if saved.verdict != done {
		c.violate("no snapshot is made (%d bytes): %v", len(saved.body), saved)
		return
	}
	answered := make(chan answer)
	go func() {
		answered <- c.try(c.member((e.n+1)%c.plan.members), "PUT", snapshotPath, saved.body, time.Minute)
	}()
	if s.with != nil {
		time.Sleep(time.Duration(s.choice) * 2 * time.Millisecond)
		undo := c.hurt(s.with)
		time.Sleep(s.lasts)
		undo()
	}
	a := <-answered
	c.mend()
	if err := c.host.Within(patience, c.whole); err != nil {
		c.violate("not whole after a restore: %v", err)
	}
	if s.with != nil {
		c.note("the restore was answered %v", a)
	}
	c.restored(key, a, s.with != nil)
}

// restored looks at a secret that was "before" in the archive and "after" when it was restored.
func (c *campaign) restored(key string, a answer, disturbed bool) {
	values := map[string]bool{}
	for _, x := range c.members() {
		v, err := result[struct{ Value string }](c.do(x, "GET", secretsPath+key, "", bound))
		if err != nil {
			c.violate("after a restore %s is not read through %s: %v", key, x.name, err)
		}
		values[v.Value] = true
	}
	fits := len(values) == 1
	switch {
	case a.verdict == done:
		fits = fits && values["before"]
	case !disturbed:
		fits = false
	case a.verdict == nothing || a.verdict == refused || a.verdict == unsent:
		fits = fits && values["after"]
	case a.verdict == strange:
		fits = false
	default:
		fits = fits && (values["before"] || values["after"])
	}
	if !fits {
		c.violate("a restore was answered %v, and now one reads %v", a, slices.Sorted(maps.Keys(values)))
	}
}

// report says what was done and how long nothing was stored.
func (c *campaign) report() {
	verdicts := map[string]int{}
	for _, o := range c.rec.ops {
		verdicts[o.Kind+" "+o.Verdict]++
	}
	c.note("%d requests: %v; %d connections without an owner", len(c.rec.ops), verdicts, c.net.lost)
	var lines []string
	for kind, gaps := range c.figures {
		slices.Sort(gaps)
		lines = append(lines,
			fmt.Sprintf("  %-24s %2d times, longest time without an acknowledged write: median %v, longest %v", kind, len(gaps),
				gaps[len(gaps)/2].Round(10*time.Millisecond), gaps[len(gaps)-1].Round(10*time.Millisecond)))
	}
	slices.Sort(lines)
	c.note("the machine: %v", c.host)
	c.note("figures:\n%s", strings.Join(lines, "\n"))
}

// keep leaves what a failing run has recorded, and says how to repeat it.
func (c *campaign) keep() {
	if !c.t.Failed() {
		return
	}
	out := os.Getenv("OUT")
	if out == "" {
		var err error
		if out, err = os.MkdirTemp("", "muster-faults-"); err != nil {
			c.t.Error(err)
			return
		}
	}
	_ = os.MkdirAll(out, 0o700)
	again := fmt.Sprintf("make faults FAULTS=%d SEED=%d MEMBERS=%d", len(c.plan.steps), c.plan.seed, c.plan.members)
	var text strings.Builder
	fmt.Fprintln(&text, again)
	for i, s := range c.plan.steps {
		fmt.Fprintf(&text, "fault %d: %s\n", i+1, s)
	}
	fmt.Fprintln(&text, "the machine:", c.host)
	for _, x := range c.wrong {
		fmt.Fprintln(&text, x)
	}
	if err := os.WriteFile(filepath.Join(out, "run.txt"), []byte(text.String()), 0o600); err != nil {
		c.t.Error(err)
	}
	if err := save(filepath.Join(out, "history.jsonl"), c.rec.ops); err != nil {
		c.t.Error(err)
	}
	for _, pattern := range []string{"*.log", "*.html", "*/muster.db"} {
		files, _ := filepath.Glob(filepath.Join(c.root, pattern))
		for _, f := range files {
			name, _ := filepath.Rel(c.root, f)
			_ = exec.Command("cp", f, filepath.Join(out, strings.ReplaceAll(name, "/", "-"))).Run()
		}
	}
	c.t.Logf("record, logs and pictures are in %s; again: %s", out, again)
}
