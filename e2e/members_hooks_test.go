package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/store"
)

// testHooks: they run on the target, once, in their order; the answer and the audit say how each ended.
func testHooks(t *testing.T, c *cluster, notes string) {
	u := c.admin(t)
	c.lead(t, c.members[0])
	leader, hanging := c.members[0], c.members[1]
	noted := func() string { text, _ := os.ReadFile(notes); return string(text) }

	slow := make(chan answer)
	go func() { slow <- u.drain(hanging, 2, "") }()

	d := drainOf(t, "drain of node 3", u.drain(leader, 3, ""))
	checkHooks(t, "the answer", d.Hooks, "note ok,fails exit status 3,forks ok")
	if d.DrainState != "drained" || !slices.Equal(d.Warnings, []string{"hook fails: exit status 3"}) {
		t.Errorf("the drain of node 3 answers %+v", d)
	}
	if got := noted(); got != "drain 3 node-3\n" {
		t.Errorf("the hooks have noted %q", got)
	}
	audit := func(action, id string) string {
		return fmt.Sprintf("SELECT detail FROM audit WHERE action = '%s' AND object = 'node/%s' ORDER BY revision DESC "+
			"LIMIT 1", action, id)
	}
	fromAudit := func(m *member, action, id, want string) {
		t.Helper()
		var list []store.HookOutcome
		eventually(t, formed, "the audit of the hooks", func() error {
			return json.Unmarshal([]byte(sqlite(t, m.db(), audit(action, id))), &list)
		})
		checkHooks(t, "the audit", list, want)
	}
	fromAudit(leader, "member.drain_hooks", "3", "note ok,fails exit status 3,forks ok")
	again := drainOf(t, "drain of node 3 again", u.drain(leader, 3, ""))
	checkHooks(t, "the repeated answer", again.Hooks, "note ok,fails exit status 3,forks ok")
	r := u.resume(c.members[2], 3)
	r.is(t, "resume of node 3", 200,
		`{"result":{"message":"Cluster member resumed","hooks":[{"name":"note","ok":true,"millis":`)
	fromAudit(leader, "member.resume_hooks", "3", "note ok")
	u.resume(leader, 3).is(t, "resume of node 3 again", 200, `{"result":{"message":"Cluster member resumed"`)
	if got := noted(); got != "drain 3 node-3\nresume 3 node-3\n" {
		t.Errorf("the hooks have noted %q", got)
	}
	c.members[0].awaitSQL(t,
		"SELECT count(*) FROM audit WHERE action IN ('member.drain', 'member.drained', 'member.resume') "+
			"AND object = 'node/3'", "3")

	a := <-slow
	d = drainOf(t, "drain of node 2", a)
	checkHooks(t, "the answer", d.Hooks, "quick ok,hangs did not end within 5s,after ok")
	if d.DrainState != "drained" || !slices.Equal(d.Warnings, []string{"hook hangs: did not end within 5s"}) ||
		a.took < 4900*time.Millisecond || a.late(8*time.Second) {
		t.Errorf("the drain of node 2 answers %+v after %v", d, a.took)
	}
	fromAudit(hanging, "member.drain_hooks", "2", "quick ok,hangs did not end within 5s,after ok")

	u.resume(leader, 2).is(t, "resume of node 2", 200,
		`{"result":{"message":"Cluster member resumed","hooks":[{"name":"note","ok":true`)

	// A resume while the hooks of the drain still run: those of the resume follow them, and the drain does not come back.
	u.drain(leader, 2, `{"deadlineSeconds":1}`).is(t, "drain of node 2", 200, `{"result":{"drainState":"draining"`)
	resumed := u.resume(leader, 2)
	resumed.is(t, "resume of node 2 in the middle", 200,
		`{"result":{"message":"Cluster member resumed","hooks":[{"name":"note","ok":true`)
	t.Logf("the resume in the middle took %v", resumed.took.Round(time.Millisecond))
	throughout(t, 500*time.Millisecond, "after the resume", func() error {
		if got := u.drainState(t, leader, 2); got != "active" {
			return errors.New(got)
		}
		return nil
	})
	for _, m := range c.members {
		text, _ := os.ReadFile(m.log)
		if m.n == 3 && !strings.Contains(string(text), "output=secret") {
			t.Errorf("what the hook printed is not in the log of node 3")
		}
		if m.n != 3 && strings.Contains(string(text), "output=secret") {
			t.Errorf("what a hook of node 3 printed is in the log of node %d", m.n)
		}
	}
}

// checkHooks compares outcomes, written as "name ok" or "name message", and that the times are plausible.
func checkHooks(t *testing.T, what string, list []store.HookOutcome, want string) {
	t.Helper()
	var got []string
	for _, h := range list {
		text := h.Name + " " + h.Message
		if h.OK {
			text = h.Name + " ok" + h.Message
		}
		got = append(got, text)
		if h.Millis < 0 || h.Millis > 7000 {
			t.Errorf("%s: hook %s took %d ms", what, h.Name, h.Millis)
		}
	}
	if strings.Join(got, ",") != want {
		t.Errorf("the hooks in %s: %q, want %q", what, got, want)
	}
}
