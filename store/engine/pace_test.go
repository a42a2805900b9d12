package engine

import (
	"testing"
	"time"

	"muster/internal/timing"
)

// How often a replica is copied: a small share of the time under load, at once when nobody writes any more, and in no
// case so seldom that the leader takes the replica for one that stands still.
func TestPaceOfMirror(t *testing.T) {
	begin := time.Unix(1_000_000, 0)
	const ms, second = time.Millisecond, time.Second
	for _, tc := range []struct {
		name           string
		took           time.Duration // by each copy
		every, writing time.Duration // between changes, and for how long
		share          int           // of the time at most, in thousandths
		longest        time.Duration // from a change to the copy that shows it
		last           time.Duration // from the last change
	}{
		{"small, always written", 10 * ms, 10 * ms, time.Minute, 30, 600 * ms, 600 * ms},
		{"100 MB, always written", 100 * ms, 10 * ms, 5 * time.Minute, 40, 4 * second, second},
		{"huge, always written", 400 * ms, 10 * ms, 5 * time.Minute, 100, 5 * second, 5 * second},
		{"100 MB, a change now and then", 100 * ms, 5 * second, 5 * time.Minute, 30, second, second},
		{"100 MB, a change each second", 100 * ms, second, 10 * time.Minute, 40, 4 * second, 4 * second},
		{"one change", 100 * ms, time.Hour, second, 100, 400 * ms, 400 * ms},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := pace{credit: mirrorCredit, quiet: mirrorQuiet}
			var copying, longest, last time.Duration
			now, shown := begin, time.Time{}
			end := begin.Add(tc.writing)
			for now.Before(end.Add(20 * time.Second)) {
				newest := begin.Add(timing.Earlier(now, end).Sub(begin) / tc.every * tc.every)
				if newest.After(shown) {
					p.noteChange(now)
					if !p.next(now, newest).After(now) {
						longest = max(longest, now.Add(tc.took).Sub(timing.Later(shown.Add(tc.every), begin)))
						if newest.Add(tc.every).After(end) {
							last = now.Add(tc.took).Sub(newest)
						}
						p.noteCopy(now, now.Add(tc.took))
						now, shown, copying = now.Add(tc.took), newest, copying+tc.took
					}
				}
				now = now.Add(10 * time.Millisecond)
			}
			if share := int(copying * 1000 / now.Sub(begin)); share > tc.share {
				t.Errorf("copying took %d thousandths of the time", share)
			}
			if longest > tc.longest {
				t.Errorf("a change was shown after %v", longest)
			}
			if shown.Add(tc.every).Before(end) || last > tc.last {
				t.Errorf("the last change, %v before the end, was shown after %v", end.Sub(shown), last)
			}
		})
	}
}
