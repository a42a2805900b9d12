package autopilot

import (
	"strings"
	"testing"
)

// TestUpgradeMigration: new machines get no votes while they are too few, then all votes go to them, one after the
// other, the leader's last; the quorum never depends on who has just come.
func TestUpgradeMigration(t *testing.T) {
	for name, c := range map[string]struct {
		lines  []string
		steps  string
		voters string
	}{
		"too few": {[]string{"1 V v1.0", "2 V v1.0", "3 V v1.0", "4 S v1.1", "5 S v1.1"}, "", "1 2 3"},
		"enough": {[]string{"1 V v1.0", "2 V v1.0", "3 V v1.0", "4 S v1.1", "5 S v1.1", "6 - v1.1"},
			"promote 4, demote 3, promote 5, demote 2, transfer 4, add 6, promote 6, demote 1, remove 3", "4 5 6"},
		"the numbers count, not the text": {[]string{"1 V v1.9", "2 V v1.9", "3 V v1.9", "4 S v1.10", "5 S v1.10"}, "",
			"1 2 3"},
		"one of the new is lost": {[]string{"1 V v1.0", "2 V v1.0", "3 V v1.0", "4 S v1.1", "5 S v1.1", "6 - v1.1 silent"},
			"", "1 2 3"},
		"a voter is lost, and an old stand-by is there": {[]string{"1 V v1.0", "2 V v1.0", "3 V v1.0 silent", "4 S v1.1",
			"5 S v1.1", "6 S v1.0"},
			"promote 6, demote 3, remove 3", "1 2 6"},
		"a voter is lost, and none but new": {[]string{"1 V v1.0", "2 V v1.0", "3 V v1.0 silent", "4 S v1.1"},
			"promote 4, demote 3", "1 2 4"},
		"a pinned one stays": {[]string{"1 V v1.0", "2 V v1.0 pinned", "3 V v1.0", "4 S v1.1", "5 S v1.1", "6 S v1.1"}, "",
			""},
		"nobody says a version": {[]string{"1 V", "2 V", "3 V", "4 S", "5 S"}, "promote 4 5", "1 2 3 4 5"},
		"more than before":      {[]string{"1 V v1.0", "2 S v1.1", "3 S v1.1", "4 - v1.1"}, "", "2 3 4"},
		"in zones": {[]string{"1 V v1.0 @a", "2 V v1.0 @b", "3 V v1.0 @c", "4 S v1.1 @a", "5 S v1.1 @b",
			"6 - v1.1 @c"}, "", "4 5 6"},
		"in zones, too many in one": {[]string{"1 V v1.0 @a", "2 V v1.0 @b", "3 V v1.0 @c", "4 S v1.1 @a", "5 S v1.1 @a",
			"6 - v1.1 @a", "7 - v1.1 @b", "8 - v1.1 @c"},
			"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig()
			cfg.MaxVoters = 5
			cfg.UpgradeMigration = true
			in, did := settle(t, cluster(c.lines...), cfg, t0)
			var voters []string
			for _, o := range in.Members {
				if o.Role == RoleVoter {
					voters = append(voters, utoa(o.NodeID))
				}
			}
			steps, who := strings.Join(did, ", "), strings.Join(voters, " ")
			t.Logf("%s: %s", who, steps)
			if c.voters != "" && who != c.voters || c.steps != "" && steps != c.steps || c.voters == "1 2 3" && steps != "" {
				t.Errorf("voters %s after %q, want %s after %q", who, steps, c.voters, c.steps)
			}
			s, _ := Decide(in, cfg, t0)
			for _, v := range s.Servers {
				t.Log(v.NodeID, v.Reason)
			}
			cfg.UpgradeMigration = false
			if _, off := settle(t, cluster(c.lines...), cfg, t0); strings.Contains(strings.Join(off, " "), "transfer") {
				t.Errorf("switched off, it does %v", off)
			}
		})
	}
}
