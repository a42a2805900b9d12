package backup

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster/store"
)

var noon = time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)

// records reads "good@-30m/2 failed@-10m/3 running@0s/2", the newest first: state, begun when, on which member.
func records(text string) (list []store.Backup) {
	for i, word := range strings.Fields(text) {
		state, rest, _ := strings.Cut(word, "@")
		at, node, _ := strings.Cut(rest, "/")
		d, err := time.ParseDuration(at)
		if err != nil {
			panic(err)
		}
		b := store.Backup{ID: fmt.Sprint("b", i), State: state, StartedAt: noon.Add(d), CreatedRev: uint64(1000 - i)}
		if !b.Active() {
			b.FinishedAt = b.StartedAt
		}
		fmt.Sscan(node, &b.NodeID)
		list = append(list, b)
	}
	return list
}

// TestDecide: what is begun, carried on and deleted at noon, of an interval of an hour and members 1 to 3.
func TestDecide(t *testing.T) {
	hourly := store.BackupSettings{Interval: time.Hour, Directory: "/v", Keep: 2}
	for name, test := range map[string]struct {
		records string
		change  func(*store.BackupSettings)
		want    string // "due", "resume b0", "delete b2 b1" in the order in which it is done
	}{
		"nothing yet":                    {"", nil, "due"},
		"never":                          {"good@-9h/1", func(o *store.BackupSettings) { o.Interval = 0 }, ""},
		"no directory":                   {"", func(o *store.BackupSettings) { o.Directory = "" }, ""},
		"too early":                      {"good@-59m/1", nil, ""},
		"due":                            {"good@-60m/1", nil, "due"},
		"under way":                      {"running@-1m/2 good@-2h/1", nil, "resume b0"},
		"asked for":                      {"waiting@0s good@-1m/1", nil, "resume b0"},
		"asked for, switched off":        {"waiting@0s", func(o *store.BackupSettings) { o.Interval = 0 }, "resume b0"},
		"of a removed member":            {"good@-1m/9", nil, "due"},
		"of a removed member, and older": {"good@-1m/9 good@-30m/1", nil, ""},
		"failed just now":                {"failed@-59s/1", nil, ""},
		"failed a minute ago":            {"failed@-60s/1", nil, "due"},
		"failed thrice":                  {"failed@-3m/1 failed@-6m/1 failed@-8m/1", nil, ""},
		"failed thrice, long enough ago": {"failed@-4m/1 failed@-6m/1 failed@-8m/1", nil, "due"},
		"failed, but too early":          {"failed@-10m/1 good@-20m/1", nil, ""},
		"a clock was ahead":              {"good@9000h/1", nil, "due"},
		"a clock is a little ahead":      {"good@30s/1", nil, ""},
		"a clock was ahead of a failure": {"failed@9000h/1", nil, "due"},
		"too many":                       {"good@-1m/1 good@-2m/2 good@-3m/3 good@-4m/1", nil, "delete b3 b2"},
		"the only one that is there":     {"good@-1m/9 good@-2m/9 good@-3m/3", nil, ""},
		"too old": {"good@-1m/1 good@-3h/2", func(o *store.BackupSettings) { o.KeepFor = 2 * time.Hour; o.Keep = 9 },
			"delete b1"},
		"too old, but the last": {"good@-50h/1 failed@-55h/1", func(o *store.BackupSettings) {
			o.Interval, o.KeepFor = 100*time.Hour, 2*time.Hour
		}, ""},
		"many failures": {strings.Repeat("failed@-1m/1 ", keptFailures+2), nil, "delete b11 b10"},
	} {
		t.Run(name, func(t *testing.T) {
			o := hourly
			if test.change != nil {
				test.change(&o)
			}
			step := Decide(State{Now: noon, Settings: o, Backups: records(test.records),
				Members: map[uint64]bool{1: true, 2: true, 3: true}})
			var got []string
			if step.Resume != nil {
				got = append(got, "resume "+step.Resume.ID)
			}
			if step.Due {
				got = append(got, "due")
			}
			if len(step.Delete) > 0 {
				got = append(got, "delete")
			}
			for _, d := range step.Delete {
				if got = append(got, d.ID); d.Why == "" {
					t.Errorf("%s is deleted without a reason", d.ID)
				}
			}
			if text := strings.Join(got, " "); text != test.want {
				t.Errorf("%q, not %q", text, test.want)
			}
		})
	}
}

// Whatever the records, the last good backup that is there is never deleted, nor one that is under way; and after all
// deletions are done there is nothing more to delete.
func TestDeletionsNeverTakeTheLast(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOfN(rapid.StringMatching(`(good|failed|running)@-[0-9]{1,4}m/[1-4]`), 0, 40).Draw(t, "records")
		s := State{Now: noon, Members: map[uint64]bool{1: true, 2: true},
			Settings: store.BackupSettings{
				Interval:  time.Hour,
				Directory: "/v",
				Keep:      rapid.IntRange(1, 5).Draw(t, "keep"),
				KeepFor:   time.Duration(rapid.IntRange(0, 50).Draw(t, "keepFor")) * time.Hour,
			},
			Backups: records(strings.Join(words, " "))}
		last := s.LastGood()
		gone := map[string]bool{}
		for _, d := range Decide(s).Delete {
			if gone[d.ID] = true; d.Active() || last != nil && d.ID == last.ID {
				t.Fatalf("%s is deleted", d.ID)
			}
		}
		s.Backups = slices.DeleteFunc(slices.Clone(s.Backups), func(b store.Backup) bool { return gone[b.ID] })
		if more := Decide(s).Delete; len(more) > 0 {
			t.Fatalf("then %d more", len(more))
		}
	})
}

// TestSpread: the leader is the last resort, and the others take turns.
func TestSpread(t *testing.T) {
	for text, want := range map[string]string{
		"":                                   "[2 3 1]",
		"good@-1m/2":                         "[3 2 1]",
		"good@-1m/3 good@-2m/2":              "[2 3 1]",
		"failed@-1m/2 good@-2m/3 good@-3m/2": "[2 3 1]",
	} {
		if got := fmt.Sprint(Spread([]uint64{1, 2, 3}, 1, records(text))); got != want {
			t.Errorf("%q: %s, not %s", text, got, want)
		}
	}
}
