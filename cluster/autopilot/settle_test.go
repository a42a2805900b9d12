package autopilot

import (
	"strings"
	"testing"
	"time"
)

// Ways to change a configuration.
var (
	max3        = func(c *Config) { c.MaxVoters = 3 }
	max7        = func(c *Config) { c.MaxVoters = 7 }
	zoned       = func(c *Config) { c.RedundancyZones = true }
	noStandBys  = func(c *Config) { c.StandBys = 0 }
	cleanup     = func(c *Config) { c.CleanupDeadMembers = true; c.DeadAfter = Duration(time.Minute) }
	cleanupMin3 = func(c *Config) { cleanup(c); c.MinQuorum = 3 }
)

// settleCases are what TestSettle goes through.
var settleCases = []struct {
	name string
	in   Input
	cfg  func(*Config)
	want string // rounds, separated by "; "
}{
	{"founder alone", cluster("1 V"), nil, ""},
	{"second member replicates only", cluster("1 V", "2 -"), nil, "add 2"},
	{"two and three together", cluster("1 V", "2 S", "3 -"), nil, "add 3; promote 2 3"},
	{"never answered stays outside", cluster("1 V", "2 S", "3 - never"), nil, ""},
	{"second waits for the third to be stable", cluster("1 V", "2 S", "3 S fresh"), nil, ""},
	{"four stay three", cluster("1 V", "2 V", "3 V", "4 -"), nil, "add 4"},
	{"five from three", cluster("1 V", "2 V", "3 V", "4 S", "5 -"), nil, "add 5; promote 4 5"},
	{"seven and more", cluster("1 V", "2 -", "3 -", "4 -", "5 -", "6 -", "7 -", "8 -"), nil,
		"add 2 3 4 5 6 7; promote 2 3 4 5"},
	{"max 7", cluster("1 V", "2 -", "3 -", "4 -", "5 -", "6 -", "7 -", "8 -"), max7,
		"add 2 3 4 5 6 7 8; promote 2 3 4 5 6 7"},
	{"longer stable goes first", cluster("1 V", "2 V", "3 V silent", "4 S fresh", "5 S"), max3, "promote 5; demote 3"},

	{"silent voter, nobody there", cluster("1 V", "2 V", "3 V silent"), nil, ""},
	{"silent voter, replaced", cluster("1 V", "2 V", "3 V silent", "4 S"), nil, "promote 4; demote 3"},
	{"silent voter, unstable stand-by", cluster("1 V", "2 V", "3 V silent", "4 S fresh"), nil, ""},
	{"silent voter, stand-by from outside", cluster("1 V", "2 V", "3 V silent", "4 -"), nil, "add 4; promote 4; demote 3"},
	{"two silent of five, one stand-by", cluster("1 V", "2 V", "3 V", "4 V silent", "5 V silent", "6 S"), nil,
		"promote 6; demote 5"},
	{"two silent of five, two stand-bys", cluster("1 V", "2 V", "3 V", "4 V silent", "5 V silent", "6 S", "7 S"), max7,
		"promote 6; demote 5; promote 7; demote 4"},
	{"replaced before the rest grows", cluster("1 V", "2 V", "3 V silent", "4 S", "5 S", "6 S"), nil,
		"promote 4; demote 3; promote 5 6"},
	{"returned voter becomes stand-by", cluster("1 V", "2 V", "3 S back", "4 V"), nil, ""},
	{"no majority answers", cluster("1 V", "2 V silent", "3 V silent", "4 S"), nil, ""},
	{"lagging voter keeps its place", cluster("1 V", "2 V", "3 V lag", "4 S"), nil, ""},
	{"silent and lagging", cluster("1 V", "2 V lag", "3 V silent", "4 S"), nil, "promote 4; demote 3"},
	{"never answered this leader", cluster("1 V", "2 V", "3 V never", "4 S"), nil, "promote 4; demote 3"},

	{"two stay two", cluster("1 V", "2 V"), nil, ""},
	{"two filled up", cluster("1 V", "2 V", "3 S"), nil, "promote 3"},
	{"four voters stay four", cluster("1 V", "2 V", "3 V", "4 V"), nil, ""},
	{"even with one silent", cluster("1 V", "2 V", "3 V", "4 V silent"), nil, "demote 4"},

	{"drained keeps its vote", cluster("1 V", "2 V", "3 V drained"), nil, ""},
	{"draining is not replaced yet", cluster("1 V", "2 V", "3 V draining", "4 S"), nil, ""},
	{"drained is replaced", cluster("1 V", "2 V", "3 V drained", "4 S"), nil, "promote 4; demote 3"},
	{"drained leader", cluster("1 V drained", "2 V", "3 V", "4 S"), nil, "promote 4; transfer 2; demote 1"},
	{"drained leader, no stand-by", cluster("1 V drained", "2 V", "3 V"), nil, "transfer 2"},
	{"drained leader, all drained", cluster("1 V drained", "2 V drained", "3 V drained"), nil, ""},
	{"drained only voter", cluster("1 V drained", "2 S"), nil, "promote 2; transfer 2; demote 1"},
	{"drained leader that nobody can follow yet", cluster("1 V drained", "2 V lag", "3 S", "4 S", "5 S", "6 S"), nil,
		"promote 3; promote 4; transfer 3; demote 1; promote 5 6"},
	{"drained stand-by gives its seat", cluster("1 V", "2 V", "3 V", "4 S drained", "5 S", "6 -"), max3,
		"add 6; remove 4"},
	{"drained member not added", cluster("1 V", "2 - drained", "3 - draining"), nil, ""},

	{"replicate-only voter, nobody there", cluster("1 V", "2 V", "3 V replicate"), nil, "demote 3"},
	{"replicate-only voter, replaced", cluster("1 V", "2 V", "3 V replicate", "4 S"), nil, "promote 4; demote 3"},
	{"replicate-only leader", cluster("1 V replicate", "2 V", "3 V"), nil, "transfer 2; demote 1"},
	{"replicate-only voter, majority needs it until a stand-by votes",
		cluster("1 V", "2 V silent", "3 V replicate", "4 S"), nil, "promote 4; demote 3"},
	{"replicate-only leader, one draining, one silent", cluster("1 V replicate", "2 V silent", "3 V draining", "4 S"), nil,
		"promote 4; transfer 4; demote 1"},
	{"replicate-only voter, majority needs it", cluster("1 V", "2 V silent", "3 V replicate"), nil, ""},
	{"replicas fill what full members leave", cluster("1 V", "2 - replicate", "3 - replicate", "4 - replicate"), nil,
		"add 2 3"},
	{"full members go before replicas", cluster("1 V", "2 S replicate", "3 S replicate", "4 -"), nil, "add 4; remove 3"},
	{"a dead voter takes no seat from a living replica", cluster("1 V", "2 V", "3 V", "4 V hushed", "5 S replicate"),
		func(c *Config) { c.StandBys = 1 }, "demote 4; remove 4"},
	{"replica with a vote will need a seat", cluster("1 V", "2 V silent", "3 V replicate", "4 - replicate"),
		func(c *Config) { c.StandBys = 1 }, ""},
	{"replicate-only is never promoted", cluster("1 V", "2 S replicate pinned", "3 S replicate", "4 S replicate"), nil,
		"remove 4"},

	{"max voters shrinks", cluster("1 V", "2 V", "3 V", "4 V", "5 V"), max3, "demote 5 4"},
	{"shrink spares the leader", func() Input {
		in := cluster("1 V", "2 V", "3 V", "4 V", "5 V")
		in.LeaderID = 5
		return in
	}(), max3, "demote 4 3"},
	{"shrink takes the silent first", cluster("1 V", "2 V silent", "3 V", "4 V", "5 V"), max3, "demote 2 5"},
	{"shrink spares the pinned", cluster("1 V", "2 V", "3 V", "4 V pinned", "5 V pinned"), max3, ""},

	{"shrink counts without the pinned", cluster("1 V", "2 V", "3 V", "4 V", "5 V pinned"), max3, "demote 4"},

	{"pinned beyond the target", cluster("1 V", "2 V", "3 V", "4 S pinned"), max3, "promote 4"},
	{"pinned and unstable", cluster("1 V", "2 S pinned fresh"), nil, "promote 2"},
	{"pinned and back from silence", cluster("1 V", "2 S pinned back"), nil, ""},
	{"pinned spare", cluster("1 V", "2 P pinned"), nil, "promote 2"},
	{"pinned from outside", cluster("1 V", "2 V", "3 V", "4 S", "5 S", "6 - pinned"), max3, "add 6; promote 6"},
	{"pinned catches up, nobody loses a seat", cluster("1 V", "2 V", "3 V", "4 S", "5 S", "6 S pinned lag"), max3, ""},
	{"pinned takes a missing place", cluster("1 V", "2 S pinned lag", "3 -", "4 -"), noStandBys, "add 3"},
	{"pinned is not undone", cluster("1 V", "2 V", "3 V", "4 V pinned", "5 S", "6 S"), max3, ""},

	{"orphan stand-by", cluster("1 V", "2 V", "3 V", "4 S orphan"), nil, "remove 4"},
	{"orphan voter", cluster("1 V", "2 V", "3 V orphan"), nil, "remove 3"},
	{"orphan voter replaced first", cluster("1 V", "2 V", "3 V orphan", "4 S"), nil, "promote 4; remove 3"},
	{"orphan the majority needs", cluster("1 V", "2 V silent", "3 V orphan"), nil, ""},
	{"orphans are not refilled", cluster("1 V", "2 V", "3 V", "4 V orphan", "5 V orphan", "6 S"), nil, "remove 4 5"},
	{"orphan leader", cluster("1 V orphan", "2 V", "3 V"), nil, "transfer 2; remove 1"},

	{"dead stand-by without successor stays", cluster("1 V", "2 V", "3 V", "4 S silent", "5 S"), max3, ""},
	{"dead stand-by gives its seat", cluster("1 V", "2 V", "3 V", "4 S silent", "5 S", "6 -"), max3, "add 6; remove 4"},
	{"just silent stand-by keeps its seat", cluster("1 V", "2 V", "3 V", "4 S hushed", "5 S", "6 -"), max3, ""},
	{"spare is raised", cluster("1 V", "2 V", "3 V", "4 P"), nil, "standby 4"},
	{"spare beyond the seats goes", cluster("1 V", "2 V", "3 V", "4 P", "5 S", "6 S"), max3, "remove 4"},
	{"no stand-bys", cluster("1 V", "2 V", "3 V", "4 -", "5 S"), func(c *Config) { max3(c); noStandBys(c) }, "remove 5"},
	{"seats for missing voters only", cluster("1 V", "2 -", "3 -", "4 -"), noStandBys, "add 2 3; promote 2 3"},
	{"stale answer does not enter", cluster("1 V", "2 - rare", "3 - rare"), nil, ""},
	{"recovering does not enter", cluster("1 V", "2 - back"), nil, ""},

	{"full disk keeps its vote without stand-by", cluster("1 V", "2 V", "3 V full-disk"), nil, ""},
	{"full disk replaced", cluster("1 V", "2 V", "3 V full-disk", "4 S"), nil, "promote 4; demote 3"},
	{"full disk of two", cluster("1 V", "2 V full-disk"), nil, "demote 2"},
	{"full disk of the leader", cluster("1 V full-disk", "2 V", "3 V"), nil, "transfer 2"},
	{"full disk of the leader, replaced", cluster("1 V full-disk", "2 V", "3 V", "4 S"), nil,
		"promote 4; transfer 2; demote 1"},
	{"frozen disk keeps its vote without stand-by", cluster("1 V", "2 V", "3 V frozen"), nil, ""},
	{"frozen disk replaced", cluster("1 V", "2 V", "3 V frozen", "4 S"), nil, "promote 4; demote 3"},
	{"frozen disk replaced from outside", cluster("1 V", "2 V", "3 V frozen", "4 -"), nil, "add 4; promote 4; demote 3"},
	{"frozen disk of two", cluster("1 V", "2 V frozen"), nil, "demote 2"},
	{"frozen disk of the leader", cluster("1 V frozen", "2 V", "3 V"), nil, "transfer 2"},
	{"frozen disk of the leader, replaced", cluster("1 V frozen", "2 V", "3 V", "4 S"), nil,
		"transfer 2; promote 4; demote 1"},
	{"frozen disks: leadership goes to the one that stores", cluster("1 V frozen", "2 V frozen", "3 V"), nil,
		"transfer 3"},
	{"frozen disks everywhere", cluster("1 V frozen", "2 V frozen", "3 V frozen"), nil, ""},
	{"frozen disk gets no vote", cluster("1 V", "2 S frozen", "3 S"), nil, ""},
	{"frozen disk does not enter", cluster("1 V", "2 V", "3 V", "4 - frozen"), nil, ""},
	{"a replica that stands still is replaced", cluster("1 V", "2 V", "3 V stalled", "4 S"), nil, "promote 4; demote 3"},
	{"full disks everywhere", cluster("1 V full-disk", "2 V full-disk", "3 V full-disk"), nil, ""},
	{"full disk gets no vote", cluster("1 V", "2 S full-disk", "3 S"), nil, ""},
	{"full disk does not enter", cluster("1 V", "2 V", "3 V", "4 - full-disk"), nil, ""},

	{"zones: votes and seats are spread", cluster("1 V @a", "2 - @a", "3 - @a", "4 - @b", "5 - @b", "6 - @c"), max3,
		"add 4 6 2 5; promote 4 6"},
	{"zones: a vote moves", cluster("1 V @a", "2 V @a", "3 V @b", "4 S @c", "5 S @c"), max3, "promote 4; demote 2"},
	{"zones: the leader keeps its vote", func() Input {
		in := cluster("1 V @a", "2 V @a", "3 V @b", "4 S @c", "5 S @c")
		in.LeaderID = 2
		return in
	}(), max3, "promote 4; demote 1"},
	{"zones: nobody else is there", cluster("1 V @a", "2 V @a", "3 V @b", "4 S @a", "5 S @a"), max3, ""},
	{"zones: two stay two to one", cluster("1 V @a", "2 V @a", "3 V @b", "4 S @a", "5 S @b"), max3, ""},
	{"zones: a stable member only", cluster("1 V @a", "2 V @a", "3 V @b", "4 S @c fresh"), max3, ""},
	{"zones: three of five", cluster("1 V @a", "2 V @a", "3 V @a", "4 V @b", "5 V @c", "6 S @b", "7 S @c"), nil,
		"promote 6; demote 3"},
	{"zones: four of five", cluster("1 V @a", "2 V @a", "3 V @a", "4 V @a", "5 V @b", "6 S @b", "7 S @c"), nil,
		"promote 7; demote 4; promote 6; demote 3"},
	{"zones: all of one zone", cluster("1 V @a", "2 V @a", "3 V @a", "4 - @b", "5 - @c"), max3,
		"add 4 5; promote 4; demote 3; promote 5; demote 2"},
	{"zones: all of one zone, no seats", cluster("1 V @a", "2 V @a", "3 V @a", "4 - @b", "5 - @c"), func(c *Config) {
		max3(c)
		noStandBys(c)
	},
		"add 4; promote 4; demote 3; add 5; promote 5; demote 2; remove 3 2"},
	{"zones: a lost zone's vote goes elsewhere",
		cluster("1 V @a", "2 V @b", "3 V @c silent", "4 S @c silent", "5 S @b", "6 - @a"), max3,
		"promote 5; demote 3; add 6; remove 4"},
	{"zones: a dead voter's goes to its own zone", cluster("1 V @a", "2 V @b", "3 V @c silent", "4 S @b", "5 S @c"), max3,
		"promote 5; demote 3"},
	{"zones: back from the loss", cluster("1 V @a", "2 V @b", "3 S @c", "4 S @c", "5 V @b", "6 S @a"), max3,
		"promote 3; demote 5; remove 6"},
	{"zones: stand-bys are spread", cluster("1 V @a", "2 V @b", "3 V @c", "4 S @a", "5 S @a", "6 - @b"), max3,
		"add 6; remove 5"},
	{"zones: no zone is one, too", cluster("1 V", "2 V", "3 V @a", "4 S @b"), max3, "promote 4; demote 2"},
	{"zones: two stay two", cluster("1 V @a", "2 V @b"), max3, ""},
	{"zones: two without one stay two", cluster("1 V", "2 V", "3 - @a silent"), max3, ""},
	{"zones: pinned votes stay", cluster("1 V @a", "2 V @a pinned", "3 V @b", "4 S @c"), max3, ""},
	{"zones: an interrupted move goes on", cluster("1 V @a", "2 V @a", "3 V @b", "4 V @c"), max3, "demote 2"},
	{"zones: replicas do not count", cluster("1 V @a", "2 V @a", "3 V @b", "4 S @c replicate"), max3, ""},

	{"redundancy zones: one voter each", cluster("1 V @a", "2 V @a", "3 V @b", "4 V @b", "5 V @c", "6 S @c"), zoned,
		"demote 4 2; remove 6"},
	{"redundancy zones: filled up", cluster("1 V @a", "2 - @a", "3 - @b", "4 - @b", "5 - @c"), zoned,
		"add 3 5 2 4; promote 3 5"},
	{"redundancy zones: the stand-by of the zone", cluster("1 V @a", "2 V @b silent", "3 V @c", "4 S @a", "5 S @b"), zoned,
		"promote 5; demote 2"},
	{"redundancy zones: another zone's when one is lost",
		cluster("1 V @a", "2 V @b silent", "3 V @c", "4 S @a", "5 S @b silent"), zoned,
		"promote 4; demote 2"},
	{"redundancy zones: two zones keep three voters", cluster("1 V @a", "2 V @b", "3 V @b", "4 S @a", "5 S @b"), zoned,
		""},
	{"redundancy zones: without zones nothing changes", cluster("1 V", "2 V", "3 V", "4 V", "5 V"), zoned, ""},

	{"clean-up is off", cluster("1 V", "2 V", "3 V", "4 - silent"), nil, ""},
	{"clean-up", cluster("1 V", "2 V", "3 V", "4 - silent"), cleanup, "cleanup 4"},
	{"clean-up of a voter", cluster("1 V", "2 V", "3 V silent"), cleanup, "cleanup 3"},
	{"clean-up keeps the minimum", cluster("1 V", "2 V", "3 V silent", "4 - silent"), cleanupMin3, ""},
	{"clean-up waits for replacement", cluster("1 V", "2 V", "3 V silent", "4 S"), cleanup,
		"promote 4; demote 3; cleanup 3"},
	{"clean-up leaves it to the stand-by on its way", cluster("1 V", "2 V", "3 V silent", "4 S fresh"), cleanup, ""},
	{"clean-up of two voters", cluster("1 V", "2 V", "3 V", "4 V silent", "5 V silent"), cleanup, "cleanup 4 5"},
	{"clean-up of what never came", cluster("1 V", "2 V", "3 V", "4 - never"), cleanup, "cleanup 4"},
}

// TestSettle gives a situation and the rounds of changes that follow from it
// while time stands still; stand-bys do not become stable meanwhile.
func TestSettle(t *testing.T) {
	for _, c := range settleCases {
		t.Run(c.name, func(t *testing.T) {
			cfg := testConfig()
			if c.cfg != nil {
				c.cfg(&cfg)
			}
			if err := cfg.Validate(); err != nil {
				t.Fatal(err)
			}
			_, did := settle(t, c.in, cfg, t0)
			if got := strings.Join(did, "; "); got != c.want {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}
