package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestPositionText(t *testing.T) {
	for text, want := range map[string]Position{"12.1": {12, 1}, "12": After(12), "0": After(0), "0.0": {}} {
		if got, ok := ParsePosition(text); !ok || got != want || got.String() != text {
			t.Errorf("%s: %v %t, written %s", text, got, ok, got)
		}
	}
	for _, text := range []string{"", ".", "1.", ".1", "-1", "1.-1", "x", "1.1.1", "99999999999999999999", " 1"} {
		if got, ok := ParsePosition(text); ok {
			t.Errorf("%q is taken for %v", text, got)
		}
	}
}

func TestEventTypes(t *testing.T) {
	for action, want := range map[string]string{
		"member.join": "member", "member.role": "autopilot", "member.unhealthy": "autopilot", "api_token.create": "token",
		"join_token.revoke": "token",
		"dek.rotate":        "key", "key.rotate": "key", "leader.elected": "leader", "certificate.issue": "certificate",
		"ca.rotate": "certificate", "enrollment.revoke": "certificate", "api_key.create": "token",
		"store.prune": "cluster", "cluster.found": "cluster", "access.refused": "access", "peering.establish": "peering",
		"": "cluster",
	} {
		got := typeOf(action)
		if got != want || !slices.Contains(EventTypes, got) {
			t.Errorf("%q is of type %q, not %q", action, got, want)
		}
	}
}

var writtenAction = regexp.MustCompile(`(?:\baudit\(|\bAction:\s+|\baction :?= )"([a-z_]+)\.[a-z_]+"`)

// TestActionsHaveTypes: the noun of every action that is written has a type.
func TestActionsHaveTypes(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, m := range writtenAction.FindAllStringSubmatch(string(source), -1) {
			if seen++; typesOfNouns[m[1]] == "" {
				t.Errorf("%s: %s has no type: give the noun %q one in typesOfNouns", file, m[0], m[1])
			}
		}
	}
	if seen < 50 {
		t.Errorf("only %d actions were found", seen)
	}
}

// TestFeedTellsEverything: however rows arrive and however the window moves, a reader is told each row once, in order,
// or told that it was overtaken.
func TestFeedTellsEverything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var f feed
		f.init(rapid.IntRange(1, 20).Draw(t, "window"))
		start := uint64(rapid.IntRange(0, 5).Draw(t, "start"))
		f.reset(After(start))
		var all []Position
		rev := start
		type reader struct {
			at  Position
			got []Position
			out bool
		}
		readers := []*reader{{at: After(start)}}
		var last []AuditRow
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0, 1:
				rev++
				last = nil
				for seq := range rapid.IntRange(1, 30).Draw(t, "rows") {
					last = append(last, AuditRow{Revision: rev, Seq: uint64(seq + 1)})
					all = append(all, Position{rev, uint64(seq + 1)})
				}
				f.add(last)
			case 2:
				f.add(last) // what a broken stream has brought already
			case 3:
				for _, r := range readers {
					list, inside, _, _ := f.after(r.at, rapid.IntRange(1, 10).Draw(t, "limit"))
					r.out = r.out || !inside
					for _, e := range list {
						r.got = append(r.got, e.Position())
						r.at = e.Position()
					}
				}
				if rapid.Bool().Draw(t, "one more") {
					readers = append(readers, &reader{at: f.end})
				}
			}
			if len(f.events) >= 2*f.limit+1 && len(last) <= f.limit {
				t.Fatalf("%d events in a window of %d", len(f.events), f.limit)
			}
		}
		for i, r := range readers {
			if r.out {
				continue
			}
			want := all[:0:0]
			for _, p := range all {
				if len(r.got) > 0 && !p.Before(r.got[0]) && !r.at.Before(p) {
					want = append(want, p)
				}
			}
			if !slices.Equal(r.got, want) {
				t.Fatalf("reader %d was told %v, not %v", i, r.got, want)
			}
		}
	})
}

// TestFeedRests: a window that was left behind is not taken for the present, and is not added to with a gap.
func TestFeedRests(t *testing.T) {
	var f feed
	f.init(10)
	f.reset(After(5))
	f.add([]AuditRow{{Revision: 6, Seq: 1}})
	f.readers = 1
	if f.rest() {
		t.Error("it rests under a reader")
	}
	f.readers = 0
	if !f.rest() {
		t.Error("it does not rest without readers")
	}
	f.add([]AuditRow{{Revision: 9, Seq: 1}})
	if end, fresh, _ := f.position(); fresh || end != (Position{6, 1}) {
		t.Errorf("resting at %v, fresh %t", end, fresh)
	}
	f.reset(After(20))
	if end, fresh, _ := f.position(); !fresh || end != After(20) {
		t.Errorf("again at %v, fresh %t", end, fresh)
	}
}

// TestAuditFrom: halving finds the first revision of a time, also with revisions missing in front.
func TestAuditFrom(t *testing.T) {
	b := foundedBench(t, "10.200.0.0/16", 28)
	begin := b.now
	for i := range 50 {
		b.now = begin.Add(time.Duration(i/3) * time.Minute)
		if _, err := b.write(func(tx *Tx) error { return tx.audit("test", fmt.Sprint(i), "") }); err != nil {
			t.Fatal(err)
		}
	}
	b.exec("UPDATE cluster SET revision = revision + 1") // the bench does not; the trigger wants one at a time
	for range 50 {
		b.exec("UPDATE cluster SET revision = revision + 1")
	}
	b.exec("DELETE FROM audit WHERE revision < 10")
	v := b.view()
	for minute := range 20 {
		at := begin.Add(time.Duration(minute) * time.Minute)
		got, err := v.auditFrom(at)
		if err != nil {
			t.Fatal(err)
		}
		var want uint64
		if _, err := v.get("SELECT coalesce(min(revision), 0) FROM audit WHERE at >= ?", []any{rfc3339(at)},
			&want); err != nil {
			t.Fatal(err)
		}
		if want == 0 {
			if got <= b.rev {
				t.Errorf("minute %d: revision %d, though nothing is as new", minute, got)
			}
		} else if got > want || got+1 < want && got >= 10 {
			t.Errorf("minute %d: from revision %d on, not %d", minute, got, want)
		}
	}
}

// TestAuditRetention: the leader deletes the oldest rows beyond the limit, in steps; who asks for what is gone is told
// so, and what is kept is told from anywhere.
func TestAuditRetention(t *testing.T) {
	c := newTestCluster(t, 1)
	l := c.leader()
	set := func(name, value string) error {
		_, err := l.Settings.Set(bg, Actor{Name: "test"}, map[string]json.RawMessage{name: json.RawMessage(value)})
		return err
	}
	if err := set(SettingAuditMaxRows, "999"); err == nil {
		t.Error("999 rows are too few to be taken")
	}
	if err := errors.Join(set(SettingAuditMaxRows, "1000"), set(SettingAuditMaxAge, `"1h"`)); err != nil {
		t.Fatal(err)
	}
	var writers sync.WaitGroup
	for w := range 32 {
		writers.Go(func() {
			for i := range 100 {
				if err := l.Audit.NoteTransfer(bg, Actor{Name: "test"}, uint64(w*1000+i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	steps := 0
	for more := true; more; steps++ {
		var err error
		if more, err = l.Audit.Prune(bg, Actor{Name: "test"}); err != nil || steps > 10 {
			t.Fatalf("step %d: %v", steps, err)
		}
	}
	kept := integers(t, l, "SELECT count(*) FROM audit")[0]
	if steps < 2 || kept < 900 || kept > 1010 {
		t.Errorf("%d rows are kept after %d steps", kept, steps)
	}
	if again, err := l.Audit.Prune(bg, Actor{Name: "test"}); err != nil || again ||
		integers(t, l, "SELECT count(*) FROM audit")[0] != kept {
		t.Errorf("pruning goes on by itself: %v %v", again, err)
	}
	oldest, err := l.Events.Oldest(bg)
	if err != nil || oldest == 0 {
		t.Fatalf("oldest %d, %v", oldest, err)
	}
	if _, err := l.Events.history(bg, After(oldest-1), 10); !errors.Is(err, ErrPruned) {
		t.Errorf("reading across the gap: %v", err)
	}
	end, _ := l.Events.End()
	l.events.reset(end) // as on a member that has just begun to read
	r := l.Events.Read(After(oldest))
	defer r.Close()
	for told := int64(0); told < kept; {
		list, err := r.Next(bg, 100)
		if err != nil {
			t.Fatal(err)
		}
		told += int64(len(list))
	}

	// Age counts, too.
	if err := set(SettingAuditMaxRows, "1000000"); err != nil {
		t.Fatal(err)
	}
	err = l.Read(bg, AsLeader, func(v *View) error {
		v.Now = v.Now.Add(2 * time.Hour)
		until, err := v.pruneUntil(auditClass{true, time.Hour, 1_000_000})
		if err == nil && until != l.Revision() {
			err = fmt.Errorf("until revision %d of %d", until, l.Revision())
		}
		return err
	})
	if err != nil {
		t.Errorf("two hours later: %v", err)
	}
}

// TestHealthNoted: a change of health is written once, whoever asks for it how often.
func TestHealthNoted(t *testing.T) {
	c := newTestCluster(t, 1)
	l := c.leader()
	actor := Actor{Name: "test"}
	for _, x := range []struct {
		healthy bool
		rows    int64
	}{{false, 1}, {false, 1}, {true, 2}, {true, 2}, {false, 3}} {
		if err := l.Members.SetHealth(bg, actor,
			[]HealthChange{{NodeID: 1, Healthy: x.healthy, Reason: "test"}}); err != nil {
			t.Fatal(err)
		}
		if n := integers(t, l,
			"SELECT count(*) FROM audit WHERE action IN ('member.healthy', 'member.unhealthy')")[0]; n != x.rows {
			t.Errorf("healthy %t: %d rows, not %d", x.healthy, n, x.rows)
		}
		noted, err := l.Members.Unhealthy(bg, AsLeader)
		if err != nil || noted[1] == x.healthy {
			t.Errorf("healthy %t: noted %v, %v", x.healthy, noted, err)
		}
	}
}
