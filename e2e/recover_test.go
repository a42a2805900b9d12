package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRecover loses three of five voters for good and goes on with the other two, as docs/recovery.md says.
func TestRecover(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 5)
	u := c.admin(t)
	u.put(t, c.members[0], "before", "the loss")
	book := newLedger(1000)
	stop := run(4, func() { book.mint(u, c.members[1]) })
	book.awaitMore(t, 40)
	stop()
	lost, left := loseThree(t, c)
	a, b := left[0], left[1]
	r := &recovery{t: t, dir: t.TempDir()}
	r.whileOneRuns(a, b)
	r.choose(a, b)
	r.refusals()
	r.carryOut(lost[0])

	for _, m := range left {
		m.start(t)
	}
	for _, m := range left {
		m.awaitReady(t)
		eventually(t, formed, "it serves again", func() error {
			if v, err := u.value(m, "before"); err != nil || v != "the loss" {
				return fmt.Errorf("%q, %v", v, err)
			}
			return nil
		})
	}
	book.check(t, u, left)
	eventually(t, formed, "the tables agree with Raft", func() error {
		got := sqlite(t, a.db(),
			"SELECT group_concat(raft_role, ' ') FROM (SELECT raft_role FROM members WHERE raft_role <> '')")
		if got != "voter voter" {
			return fmt.Errorf("%s", got)
		}
		servers, err := u.raftServers(a)
		if err == nil && len(servers) != 2 {
			err = fmt.Errorf("%+v", servers)
		}
		return err
	})
	u.put(t, b, "after", "the recovery")
	removeLost(t, u, b, lost)
	// A lost one that comes back all the same is turned away.
	lost[1].start(t)
	lost[1].awaitExpelled(t)
	if list := u.members(t, a); len(list) != 2 {
		t.Errorf("members: %+v", list)
	}
	for _, m := range left {
		if _, err := os.Stat(m.file("recovery.json")); err == nil && c.leader(t) == m {
			t.Errorf("node %d still has its recovery.json", m.n)
		}
	}
}

// loseThree kills three of five members, the leader among them. What was answered is on a majority; it is on the two
// that are left as well, for entries that only the three had could be on no survivor.
func loseThree(t *testing.T, c *cluster) (lost, left []*member) {
	t.Helper()
	leader := c.leader(t)
	lost = append([]*member{leader}, c.others(leader)[:2]...)
	left = c.others(lost...)
	for _, m := range left {
		eventually(t, formed, "the survivors have everything", func() error {
			if now, all := m.status(t).Revision, leader.status(t).Revision; now < all {
				return fmt.Errorf("node %d has revision %d of %d", m.n, now, all)
			}
			return nil
		})
	}
	for _, m := range lost {
		m.kill()
	}
	return lost, left
}

// recoveryPlan is what `recover plan` says of a survivor.
type recoveryPlan struct {
	NodeID  uint64
	Last    struct{ Term, Index uint64 }
	Members []struct {
		NodeID  uint64
		Answers bool
	}
}

// recovery is one with two survivors: the template has the newer log, the other one adopts what is made of it.
type recovery struct {
	t                    *testing.T
	dir                  string // of plans and bundles
	template, other      *member
	last                 recoveryPlan // of the template
	otherPlan, wrongPlan string       // files: of the other survivor, and the template's own
}

// save writes a survivor's plan into a file.
func (r *recovery) save(m *member) (recoveryPlan, string) {
	r.t.Helper()
	out := muster(r.t, "recover", "plan", "--data", m.dir, "-o", "json")
	if out.code != 0 {
		r.t.Fatalf("plan: %+v", out)
	}
	file := filepath.Join(r.dir, fmt.Sprintf("plan-%d.json", m.n))
	if err := os.WriteFile(file, []byte(out.stdout), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return jsonOf[recoveryPlan](r.t, out), file
}

// whileOneRuns: while a survivor runs, it answers the other one, and applying is refused. Both have ended then.
func (r *recovery) whileOneRuns(a, b *member) {
	t := r.t
	t.Helper()
	if out := muster(t, "recover", "plan", "--data", a.dir); out.code != 1 ||
		!strings.Contains(out.stderr, "is in use by a running muster") {
		t.Errorf("a plan for a member that runs: %+v", out)
	}
	b.stop(t)
	if out := muster(t, "doctor", "--data", b.dir); !strings.Contains(out.stdout, "raft log") {
		t.Errorf("doctor on a survivor: %+v", out)
	}
	p, _ := r.save(b)
	for _, m := range p.Members {
		if m.Answers != (m.NodeID == uint64(a.n)) {
			t.Errorf("node %d answers: %v", m.NodeID, m.Answers)
		}
	}
	if out := muster(t, "recover", "apply", "--data", b.dir, "--alone", "--yes"); out.code != 1 ||
		!strings.Contains(out.stderr, fmt.Sprintf("node %d is running", a.n)) {
		t.Errorf("apply while a member runs: %+v", out)
	}
	a.stop(t)
	if got := sqlite(t, a.db(), "SELECT count(*) FROM v_members"); got != "5" { // the mirror serves all the while
		t.Errorf("the mirror has %s members", got)
	}
}

// choose makes the one with the newer log the template.
func (r *recovery) choose(a, b *member) {
	pa, planA := r.save(a)
	pb, planB := r.save(b)
	r.template, r.other, r.last, r.otherPlan, r.wrongPlan = a, b, pa, planB, planA
	if pa.Last.Term < pb.Last.Term || pa.Last.Term == pb.Last.Term && pa.Last.Index < pb.Last.Index {
		r.template, r.other, r.last, r.otherPlan, r.wrongPlan = b, a, pb, planA, planB
	}
}

// refusals: nothing is applied on the wrong survivor, without all survivors, or without a confirmation.
func (r *recovery) refusals() {
	t, template, other := r.t, r.template, r.other
	bundle := filepath.Join(r.dir, "bundle.tgz")
	if out := muster(t, "recover", "apply", "--data", other.dir, "--plan", r.wrongPlan, "--yes", "--bundle",
		bundle); out.code != 1 || !strings.Contains(out.stderr, "apply the recovery there") {
		t.Errorf("apply on the wrong one: %+v", out)
	}
	for _, x := range []struct {
		want string
		code int
		args []string
	}{
		{"--survivor", 2, nil},
		{"NODE:TERM:INDEX", 2, []string{"--survivor", "x"}},
		{"is not a member", 1, []string{"--survivor", "77:1:1"}},
		{"has the newer log", 1, []string{"--survivor", fmt.Sprintf("%d:99:1", other.n)}},
		{"named twice", 1, []string{"--survivor", fmt.Sprintf("%d:1:1", template.n)}},
		{"--yes", 1, []string{"--plan", r.otherPlan}},
	} {
		out := muster(t, append([]string{"recover", "apply", "--data", template.dir}, x.args...)...)
		if out.code != x.code || !strings.Contains(out.stderr, x.want) {
			t.Errorf("apply %v: %+v, want %q", x.args, out, x.want)
		}
	}
}

// carryOut applies the recovery on the template and has the other survivor adopt it; lost is one that may not.
func (r *recovery) carryOut(lost *member) {
	t, template, other := r.t, r.template, r.other
	bundle := filepath.Join(r.dir, "bundle.tgz")
	apply := []string{"recover", "apply", "--data", template.dir, "--plan", r.otherPlan, "--bundle", bundle}
	if out := muster(t, append(apply, "--dry-run")...); out.code != 0 || strings.Count(out.stderr, "is lost") != 3 ||
		strings.Count(out.stderr, "becomes a voter") != 2 {
		t.Errorf("dry run: %+v", out)
	}
	if again, _ := r.save(template); again.Last != r.last.Last {
		t.Errorf("the dry run has changed the log: %+v", again.Last)
	}
	for range 2 { // a second time changes nothing and makes the same bundle
		if out := muster(t, append(apply, "--yes")...); out.code != 0 {
			t.Fatalf("apply: %+v", out)
		}
	}
	if kept, _ := filepath.Glob(filepath.Join(template.dir, "raft.before-recovery-*")); len(kept) != 1 {
		t.Errorf("kept: %v", kept)
	}
	if out := muster(t, "recover", "adopt", "--data", template.dir, bundle, "--yes"); out.code != 1 ||
		!strings.Contains(out.stderr, "was made here") {
		t.Errorf("adopt on the template: %+v", out)
	}
	broken := filepath.Join(r.dir, "broken.tgz")
	data, err := os.ReadFile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 0xff
	if err := os.WriteFile(broken, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if out := muster(t, "recover", "adopt", "--data", other.dir, broken, "--yes"); out.code != 1 ||
		!strings.Contains(out.stderr, "damaged") {
		t.Errorf("adopt of a damaged bundle: %+v", out)
	}
	if out := muster(t, "recover", "adopt", "--data", lost.dir, bundle, "--yes"); out.code != 1 ||
		!strings.Contains(out.stderr, "not among the survivors") {
		t.Errorf("adopt on a lost one: %+v", out)
	}
	if out := muster(t, "recover", "adopt", "--data", other.dir, bundle, "--yes"); out.code != 0 {
		t.Fatalf("adopt: %+v", out)
	}
}

// removeLost: the lost ones are rows, and go without costing the quorum; the two survive the loss of neither, as two
// voters do.
func removeLost(t *testing.T, u *user, through *member, lost []*member) {
	t.Helper()
	for _, m := range lost {
		if a := u.patiently(through, "DELETE", memberURL(m.n, "")+"?force=true", ""); a.status != 200 {
			// Removals run one after the other.
			eventually(t, formed, "a lost member is removed", func() error {
				if a = u.do(through, "DELETE", memberURL(m.n, "")+"?force=true", ""); a.status != 200 && a.status != 404 {
					return fmt.Errorf("%v", a)
				}
				return nil
			})
		}
	}
}

// TestRecoverAlone: one of three is left, and goes on alone.
func TestRecoverAlone(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	u := c.admin(t)
	u.put(t, c.members[0], "before", "the loss")
	awaitCopies(t, c, c.members...)
	left := c.members[1]
	for _, m := range c.others(left) {
		m.kill()
	}
	left.stop(t)
	if err := os.Remove(left.db()); err != nil { // the mirror is only a copy: it must not stand in the way
		t.Fatal(err)
	}
	if out := muster(t, "recover", "plan", "--data", left.dir); out.code != 0 || strings.Count(out.stdout, "voter") != 3 {
		t.Errorf("plan: %+v", out)
	}
	if out := muster(t, "recover", "apply", "--data", left.dir, "--alone", "--yes", "--survivor", "1:1:1"); out.code != 2 {
		t.Errorf("alone with a survivor: %+v", out)
	}
	if out := muster(t, "recover", "apply", "--data", left.dir, "--alone", "--yes"); out.code != 0 {
		t.Fatalf("apply: %+v", out)
	}
	left.start(t)
	left.awaitReady(t)
	eventually(t, formed, "it serves alone", func() error {
		if v, err := u.value(left, "before"); err != nil || v != "the loss" {
			return fmt.Errorf("%q, %v", v, err)
		}
		return nil
	})
	u.put(t, left, "after", "the recovery")
	if servers, err := u.raftServers(left); err != nil || len(servers) != 1 {
		t.Errorf("%+v, %v", servers, err)
	}
	// A new machine joins; the lost ones do not stand in its way.
	fresh := c.add()
	token := u.create(t, left, `{"ttlSeconds":300}`)
	fresh.args = append(fresh.args, "--join", token.Token)
	fresh.start(t)
	fresh.awaitReady(t)
	eventually(t, formed, "it replicates", func() error {
		row, err := u.row(left, int(fresh.status(t).Cluster.NodeID))
		if err == nil && row.Role != "standby" && row.Role != "voter" {
			err = fmt.Errorf("%+v", row)
		}
		return err
	})
}
