package autopilot

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// upgradeOf makes the input from a cluster, whose members run the versions in turn. v2 knows schema 4, others 3.
func upgradeOf(in Input, schema int64, versions ...string) UpgradeInput {
	for i := range in.Members {
		in.Members[i].Name, in.Members[i].Version = "n"+itoa(i+1), versions[i%len(versions)]
	}
	s, _ := Decide(in, testConfig(), t0)
	out := UpgradeInput{State: s, Config: testConfig(), Schema: schema}
	for i, o := range in.Members {
		b := Binary{o.NodeID, versions[i%len(versions)], 3}
		if b.Version == "v2" {
			b.MaxSchema = 4
		}
		if b.Version == "" {
			b.MaxSchema = 0
		}
		out.Binaries = append(out.Binaries, b)
	}
	return out
}

func TestPlanUpgrade(t *testing.T) {
	for _, c := range []struct {
		name    string
		in      UpgradeInput
		order   []uint64
		next    uint64
		wait    string // in it
		summary string
	}{
		{"nobody runs anything else", upgradeOf(cluster("1 V", "2 V", "3 V"), 3, "v1"), []uint64{2, 3, 1}, 0, "",
			"done: 3 members run v1, and the database has schema 3, the newest"},
		{"told where to go", func() UpgradeInput {
			in := upgradeOf(cluster("1 V", "2 V", "3 V"), 3, "v1")
			in.Target = "v2"
			return in
		}(), []uint64{2, 3, 1}, 2, "", "0 of 3 members run v2; next is n2 (2)"},
		{"outside, stand-by, voters by zone, leader",
			upgradeOf(cluster("1 V @a", "2 V @c", "3 V @b", "4 V @c", "5 V @b", "6 S @a", "7 - @a", "8 - @a"), 3,
				"v1", "v1", "v1", "v1", "v1", "v1", "v1", "v2"), []uint64{7, 8, 6, 3, 5, 2, 4, 1}, 7, "",
			"1 of 8 members run v2; next is n7 (7)"},
		{"the leader is the last", upgradeOf(cluster("1 V", "2 V", "3 V"), 3, "v1", "v2", "v2"), []uint64{2, 3, 1}, 1, "",
			"2 of 3 members run v2; next is n1 (1)"},
		{"the schema follows", upgradeOf(cluster("1 V", "2 V", "3 V"), 3, "v2"), []uint64{2, 3, 1}, 0, "",
			"3 members run v2; the leader is about to apply schema 4"},
		{"done", upgradeOf(cluster("1 V", "2 V", "3 V"), 4, "v2"), []uint64{2, 3, 1}, 0, "",
			"done: 3 members run v2, and the database has schema 4, the newest"},
		{"a dead voter", upgradeOf(cluster("1 V", "2 V", "3 V silent"), 3, "v2", "v1", "v1"), []uint64{2, 3, 1}, 0,
			"without n2 (2) only 1 of 3 voters are well, and a majority needs 2", ""},
		{"a dead voter of five",
			upgradeOf(cluster("1 V", "2 V", "3 V", "4 V", "5 V silent"), 3, "v1", "v2", "v1", "v1", "v1"),
			[]uint64{2, 3, 4, 5, 1}, 3, "", "1 of 5 members run v2; next is n3 (3)"},
		{"only a dead one is left", upgradeOf(cluster("1 V", "2 V", "3 V silent"), 3, "v2", "v2", "v1"), []uint64{2, 3, 1}, 0,
			"", "2 of 3 members run v2; the rest does not answer"},
		{"one that restarts", upgradeOf(cluster("1 V", "2 V hushed", "3 V"), 3, "v1", "v2", "v1"), []uint64{2, 3, 1}, 0,
			"n2 (2) has not answered for 3.2 s", ""},
		{"one that is back", upgradeOf(cluster("1 V", "2 V back", "3 V"), 3, "v1", "v2", "v1"), []uint64{2, 3, 1}, 0,
			"n2 (2) is not well yet", ""},
		{"one that catches up", upgradeOf(cluster("1 V", "2 V lag", "3 V"), 3, "v1", "v2", "v1"), []uint64{2, 3, 1}, 0,
			"n2 (2) is not well yet: voter: 2 of 3, 1500 revisions behind", ""},
		{"one that drains", upgradeOf(cluster("1 V", "2 V draining", "3 V"), 3, "v1", "v2", "v1"), []uint64{2, 3, 1}, 0,
			"n2 (2) is draining", ""},
		{"a young leader", func() UpgradeInput {
			c := cluster("1 V", "2 V never", "3 V")
			c.LeaderSince = t0.Add(-time.Second)
			return upgradeOf(c, 3, "v1", "v2", "v1")
		}(), []uint64{2, 3, 1}, 0, "n2 (2) has not answered this leader yet", ""},
		{"a step back", func() UpgradeInput {
			in := upgradeOf(cluster("1 V", "2 V", "3 V"), 4, "v2", "v1", "v2")
			in.Target = "v1"
			return in
		}(), []uint64{2, 3, 1}, 0, "a step back: v1 knows the schema up to 3, and the database has 4", ""},
		{"alone", upgradeOf(cluster("1 V", "2 S"), 3, "v1", "v2"), []uint64{2, 1}, 1, "",
			"1 of 2 members run v2; next is n1 (1)"},
		{"what runs no muster does not count", upgradeOf(cluster("1 V", "2 -", "3 -"), 4, "v2", ""), []uint64{3, 1}, 0, "",
			"done: 2 members run v2, and the database has schema 4, the newest"},
		{"something else", func() UpgradeInput {
			in := upgradeOf(cluster("1 V", "2 V", "3 V"), 3, "v1", "v2", "v1")
			in.Wait = []string{"a rotation is under way"}
			return in
		}(), []uint64{2, 3, 1}, 0, "a rotation is under way", ""},
		{"a full disk", upgradeOf(cluster("1 V", "2 V full-disk", "3 V", "4 S"), 3, "v1", "v2", "v1", "v1"),
			[]uint64{4, 2, 3, 1}, 0,
			"n2 (2) is low on disk space", ""},
		{"a new leader", func() UpgradeInput {
			in := upgradeOf(cluster("1 V", "2 V", "3 V"), 3, "v1", "v2", "v1")
			in.LeaderSince = t0.Add(-3 * time.Second)
			return in
		}(), []uint64{2, 3, 1}, 0, "the leader leads for 3 s only: it judges the others after 10 s", ""},
		{"a leader of a while ago", func() UpgradeInput {
			in := upgradeOf(cluster("1 V", "2 V", "3 V"), 3, "v1", "v2", "v1")
			in.LeaderSince = t0.Add(-10 * time.Second)
			return in
		}(), []uint64{2, 3, 1}, 3, "", "1 of 3 members run v2; next is n3 (3)"},
		{"a certificate that ends soon", func() UpgradeInput {
			in := upgradeOf(cluster("1 V", "2 V", "3 V"), 3, "v1", "v2", "v1")
			in.Leaves = []Leaf{{1, "http", t0.Add(8 * 24 * time.Hour)}, {2, "http", t0},
				{3, "transport", t0.Add(30 * time.Hour)}, {9, "http", t0}}
			return in
		}(), []uint64{2, 3, 1}, 0, "the transport certificate of n3 (3) expires in 30 h, and nobody has renewed it", ""},
		{"one that has ended", func() UpgradeInput {
			in := upgradeOf(cluster("1 V", "2 V", "3 V"), 3, "v1", "v2", "v1")
			in.Leaves = []Leaf{{3, "http", t0.Add(-time.Hour)}}
			return in
		}(), []uint64{2, 3, 1}, 0, "the http certificate of n3 (3) has expired", ""},
		{"no leader", UpgradeInput{Config: testConfig(), Binaries: []Binary{{1, "v1", 3}}}, nil, 0, "",
			"no member is known yet"},
	} {
		t.Run(c.name, func(t *testing.T) {
			up := PlanUpgrade(c.in, t0)
			var order []uint64
			for _, m := range up.Members {
				order = append(order, m.NodeID)
			}
			if !slices.Equal(order, c.order) || up.Next != c.next || !strings.Contains(strings.Join(up.Wait, "; "), c.wait) ||
				(c.wait == "") != (len(up.Wait) == 0) {
				t.Errorf("order %v, next %d, wait %q: %+v", order, up.Next, up.Wait, up)
			}
			if c.summary != "" && up.Summary != c.summary || up.Done != strings.HasPrefix(up.Summary, "done") {
				t.Errorf("summary %q, done %v", up.Summary, up.Done)
			}
		})
	}
}

func TestCompareVersions(t *testing.T) {
	ascending := []string{"", "dev", "v0.9", "v1", "v1.0.0", "v1.0.0-3-gabc", "v1.9.2", "v1.10.0", "v2", "10.0"}
	for i, a := range ascending[2:] {
		for j, b := range ascending[2:] {
			if got := compareVersions(a, b); got < 0 != (i < j) || got > 0 != (i > j) {
				t.Errorf("%q and %q: %d", a, b, got)
			}
		}
	}
}

// Whatever the cluster is like, whoever is next leaves a majority of healthy voters behind, unless no cluster of so few
// voters could; it answers, and the target is what it does not run.
func TestPropertyUpgrade(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := upgradeOf(genInput(t), 3,
			rapid.SampledFrom([][]string{{"v1"}, {"v1", "v2"}, {"v2", "v1", "v1"}, {"v1", "v2", ""}}).Draw(t, "versions")...)
		up := PlanUpgrade(in, t0)
		if (up.Next != 0) && (len(up.Wait) > 0 || up.Done) {
			t.Fatalf("%+v", up)
		}
		if up.Next == 0 {
			return
		}
		voters, left, leaderLast := 0, 0, true
		for _, v := range in.State.Servers {
			if v.HasVotingRights {
				voters++
				if v.Healthy && v.NodeID != up.Next {
					left++
				}
			}
		}
		for _, m := range up.Members {
			if m.NodeID == up.Next && (m.NodeStatus != StatusAlive || m.Version == up.Target || m.State != UpgradeNext) {
				t.Fatalf("%+v", m)
			}
			leaderLast = leaderLast && (!m.IsLeader || m.NodeID != up.Next || up.Members[len(up.Members)-1].NodeID == m.NodeID)
		}
		for _, v := range in.State.Servers {
			if v.NodeID == up.Next && v.HasVotingRights && left < majority(voters) && voters > 2 {
				t.Fatalf("%d of %d voters are left: %+v", left, voters, up)
			}
		}
		if !leaderLast {
			t.Fatalf("the leader is not the last: %+v", up)
		}
	})
}
