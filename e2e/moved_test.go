package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// renumber gives stopped members other addresses, each on a host of its own.
func renumber(list []*member, first int) {
	for i, m := range list {
		host := fmt.Sprintf("127.0.0.%d", first+i)
		m.move(fmt.Sprintf("%s:%d", host, freePort()), fmt.Sprintf("%s:%d", host, freePort()))
	}
}

func (m *member) peer(other *member) []string {
	return []string{"--peer", fmt.Sprintf("%d=%s", other.n, other.raft)}
}

// TestStraggler: all five have moved, and one of them comes back when the others have long found each other. By itself
// it says what to do; told of one other, it is back.
func TestStraggler(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 5)
	u := c.admin(t)
	for _, m := range c.members {
		m.stop(t)
	}
	renumber(c.members, 40)
	four, late := c.members[:4], c.members[4]
	for i, m := range four {
		m.args = append(m.args, m.peer(four[(i+1)%4])...)
		m.start(t)
	}
	for i, m := range four {
		m.awaitReady2(t, "127.0.0.1", fmt.Sprintf("127.0.0.%d", 40+i))
	}
	eventually(t, formed, "four vote", func() error {
		list, err := u.tryMembers(four[0])
		if err != nil {
			return err
		}
		n := 0
		for _, x := range list {
			if x.Suffrage == "voter" && x.Status == "alive" {
				n++
			}
		}
		if n < 4 {
			return fmt.Errorf("%d voters live: %+v", n, list)
		}
		return nil
	})
	u.put(t, four[1], "meanwhile", "something")

	late.start(t)
	eventually(t, formed, "the straggler says that nobody answers", func() error {
		text, err := os.ReadFile(late.log)
		if err == nil && !strings.Contains(string(text), "no other member answers") {
			err = fmt.Errorf("its log ends with %s", lastLines(late.log, 3))
		}
		return err
	})
	if text, _ := os.ReadFile(late.log); !strings.Contains(string(text), "--peer") {
		t.Errorf("it does not say what to do: %s", lastLines(late.log, 5))
	}
	late.stop(t)
	late.args = append(late.args, late.peer(four[2])...)
	late.start(t)
	late.awaitReady2(t, "127.0.0.1", "127.0.0.44")
	c.awaitVoters(t)
	if v, err := u.value(late, "meanwhile"); err != nil || v != "something" {
		t.Errorf("%q, %v", v, err)
	}
	for _, m := range four {
		eventually(t, formed, "everybody knows where it is", func() error {
			r, err := u.row(m, late.n)
			if err == nil && r.RaftAddress != late.raft {
				err = fmt.Errorf("%+v", r)
			}
			return err
		})
	}
}

// TestFlagsThatDiffer: a flag that differs from what is stored takes effect through the leader, with a row in the
// audit, is refused there with a sentence, or ends the start with one.
func TestFlagsThatDiffer(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	u := c.admin(t)
	u.lead(t, c.members[0])
	leader, second, third := c.members[0], c.members[1], c.members[2]
	with := func(m *member, flag, value string) {
		t.Helper()
		m.stop(t)
		if i := slices.Index(m.args, flag); i >= 0 {
			m.args[i+1] = value
		} else {
			m.args = append(m.args, flag, value)
		}
		m.start(t)
	}
	audited := func(words string) {
		t.Helper()
		eventually(t, formed, "it is in the audit: "+words, func() error {
			if a := u.do(leader, "GET", "/api/v1/audit?limit=1000", ""); !strings.Contains(a.body, words) {
				return fmt.Errorf("%.300s", a.body[max(0, len(a.body)-300):])
			}
			return nil
		})
	}

	with(second, "--name", "another")
	second.awaitReady(t)
	eventually(t, formed, "the name is the new one", func() error {
		r, err := u.row(third, second.n)
		if err == nil && r.Name != "another" {
			err = fmt.Errorf("%+v", r)
		}
		return err
	})
	audited("name another instead of node-2")

	with(third, "--name", "node-1")
	third.awaitReady(t)
	eventually(t, formed, "it says why its name is not taken", func() error {
		st, err := third.tryStatus()
		if err == nil && !strings.Contains(strings.Join(st.Notices, "\n"), "the name node-1 belongs to node 1") {
			err = fmt.Errorf("%v", st.Notices)
		}
		return err
	})
	if r, err := u.row(leader, third.n); err != nil || r.Name != "node-3" {
		t.Errorf("a taken name: %+v, %v", r, err)
	}
	with(third, "--name", "node-3")
	third.awaitReady(t)

	with(second, "--mode", "replicate")
	second.awaitReady(t)
	eventually(t, formed, "it does not vote", func() error {
		r, err := u.row(leader, second.n)
		if err == nil && r.Suffrage == "voter" {
			err = fmt.Errorf("%+v", r)
		}
		return err
	})
	audited("mode replicate instead of full")
	with(second, "--mode", "full")
	second.awaitReady(t)
	c.awaitVoters(t)

	second.stop(t)
	out := command{limit: 20 * time.Second}.run(t, append(slices.Clone(second.args), "--datacenter", "dc2")...)
	if out.code != 1 || !strings.Contains(out.stderr, "--datacenter dc2 is not what this cluster has, dc1") {
		t.Errorf("another datacenter: exit status %d, %s", out.code, lastLine(out.stderr))
	}
	second.args = append(second.args, "--datacenter", "dc1") // the same is no difference
	second.start(t)
	second.awaitReady(t)
	c.awaitVoters(t)
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// TestRecoverMoved: the survivors of a lost majority have moved, too. A plan finds who runs at another place, and the
// place that recovery was given is where the member looks at its next start.
func TestRecoverMoved(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 5)
	u := c.admin(t)
	u.put(t, c.members[0], "before", "the loss")
	awaitCopies(t, c, c.members...)
	u.lead(t, c.members[2])
	a, b := c.members[0], c.members[1]
	for _, m := range c.others(a, b) {
		m.kill()
	}
	a.stop(t)
	b.stop(t)
	renumber([]*member{a, b}, 50)
	dir := t.TempDir()

	b.start(t) // at its new place, which the directory of the other does not know
	eventually(t, formed, "a plan finds the one that runs", func() error {
		out := muster(t, append([]string{"recover", "plan", "--data", a.dir, "-o", "json"}, a.peer(b)...)...)
		if out.code != 0 || !strings.Contains(strings.Join(strings.Fields(out.stdout), ""), `"nodeId":2,`) ||
			!strings.Contains(strings.Join(strings.Fields(out.stdout), ""), `"answers":true`) {
			return fmt.Errorf("%+v", out)
		}
		return nil
	})
	if out := muster(t, append([]string{"recover", "apply", "--data", a.dir, "--alone", "--yes"},
		a.peer(b)...)...); out.code != 1 || !strings.Contains(out.stderr, "node 2 is running") {
		t.Errorf("applied while another one runs: %+v", out)
	}
	b.stop(t)

	plan := func(m *member) string {
		file := filepath.Join(dir, fmt.Sprintf("plan-%d.json", m.n))
		out := muster(t, "recover", "plan", "--data", m.dir, "-o", "json")
		if out.code != 0 || os.WriteFile(file, []byte(out.stdout), 0o600) != nil {
			t.Fatalf("plan: %+v", out)
		}
		return file
	}
	plans := map[*member]string{a: plan(a), b: plan(b)}
	bundle := filepath.Join(dir, "bundle.tgz")
	apply := func(m, other *member) outcome {
		return muster(t, append([]string{"recover", "apply", "--data", m.dir, "--plan", plans[other], "--bundle", bundle,
			"--yes"}, m.peer(other)...)...)
	}
	template, other := a, b
	if out := apply(a, b); out.code == 1 && strings.Contains(out.stderr, "apply the recovery there") {
		template, other = b, a
		out = apply(b, a)
		if out.code != 0 {
			t.Fatalf("apply: %+v", out)
		}
	} else if out.code != 0 {
		t.Fatalf("apply: %+v", out)
	}
	if out := muster(t, "recover", "adopt", "--data", other.dir, bundle, "--yes"); out.code != 0 {
		t.Fatalf("adopt: %+v", out)
	}
	other.start(t)
	template.start(t) // without --peer: it was told at the recovery
	for _, m := range []*member{a, b} {
		eventually(t, formed, "the two are a cluster", func() error {
			if v, err := u.value(m, "before"); err != nil || v != "the loss" {
				return fmt.Errorf("%q, %v", v, err)
			}
			return nil
		})
	}
	u.put(t, other, "after", "the recovery")
}

// TestClonedDiskCutOff: a copy of a member that starts while nobody answers it is found out when the others do: it
// ends, and both say so.
func TestClonedDiskCutOff(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	u := c.admin(t)
	m := c.others(c.leader(t))[0]
	m.stop(t)
	copied := m.dir + "-copy"
	m.copyDir(t, copied)
	m.start(t)
	m.awaitReady(t)
	c.awaitVoters(t)
	for _, x := range c.members {
		x.pause()
		t.Cleanup(x.carryOn)
	}
	clone := &member{
		cluster: c,
		n:       m.n,
		dir:     copied,
		log:     filepath.Join(c.root, "copy.log"),
		api:     fmt.Sprintf("127.0.0.1:%d", freePort()),
		raft:    fmt.Sprintf("127.0.0.1:%d", freePort()),
	}
	clone.args = []string{"serve", "--data", copied, "--api", clone.api, "--raft", clone.raft}
	clone.start(t)
	t.Cleanup(clone.kill)
	eventually(t, formed, "the copy serves", func() error {
		text, err := os.ReadFile(clone.log)
		if err == nil && !strings.Contains(string(text), "msg=serving") {
			err = fmt.Errorf("its log ends with %s", lastLines(clone.log, 3))
		}
		return err
	})
	m.carryOn() // first: whom the copy asks must find it
	for _, x := range c.members {
		x.carryOn()
	}
	code, err := clone.exit(formed)
	if text, _ := os.ReadFile(clone.log); err != nil || code != 1 ||
		!strings.Contains(string(text), fmt.Sprintf("another process is node %d", m.n)) {
		t.Errorf("the copy: %d, %v\n%s", code, err, lastLines(clone.log, 10))
	}
	eventually(t, formed, "the original says so", func() error {
		text, err := os.ReadFile(m.log)
		if err == nil && !strings.Contains(string(text), "a second process with this member's identity was refused") {
			err = fmt.Errorf("its log ends with %s", lastLines(m.log, 3))
		}
		return err
	})
	c.awaitVoters(t)
	for _, x := range c.members {
		eventually(t, formed, "the original is where it was", func() error {
			r, err := u.row(x, m.n)
			if err == nil && r.RaftAddress != m.raft {
				err = fmt.Errorf("%+v", r)
			}
			return err
		})
	}
	u.put(t, m, "after", "the copy")
}
