package store

import (
	"encoding/json"
	"fmt"
	"testing"
)

// TestRefusalsDisplaceNothing: rows of refusals, replays and other clusters go by their own number, whatever there is of
// them; those of operators and members stay.
func TestRefusalsDisplaceNothing(t *testing.T) {
	c := newTestCluster(t, 1)
	l := c.leader()
	actor := Actor{Name: "test"}
	for range 4 {
		for _, x := range []struct {
			actor Actor
			rows  int
		}{{actor, 200}, {Actor{Name: "peering", Peer: true}, 600}} {
			err := l.Write(bg, x.actor, func(tx *Tx) error {
				for i := range x.rows {
					if err := tx.audit("test.row", fmt.Sprint("test/", i), ""); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		list := make([]RefusedAttempt, 600)
		for i := range list {
			list[i] = RefusedAttempt{Remote: fmt.Sprint(i), Object: "POST /x", Detail: "401"}
		}
		if err := l.Audit.NoteRefusals(bg, list); err != nil {
			t.Fatal(err)
		}
	}
	ok := func() int64 {
		return integers(t, l, "SELECT count(*) FROM audit WHERE outcome = 'ok' AND action <> 'audit.prune'")[0]
	}
	others := func() int64 { return integers(t, l, "SELECT count(*) FROM audit WHERE outcome <> 'ok'")[0] }
	before := ok()
	if n := others(); n != 4800 {
		t.Fatalf("%d rows of others", n)
	}
	prune := func() {
		t.Helper()
		for steps, more := 0, true; more; steps++ {
			var err error
			if more, err = l.Audit.Prune(bg, actor); err != nil || steps > 20 {
				t.Fatalf("step %d: %v", steps, err)
			}
		}
	}
	for name, value := range map[string]string{SettingRefusalsRows: "2000", SettingAuditMaxRows: "1000"} {
		if _, err := l.Settings.Set(bg, actor, map[string]json.RawMessage{name: json.RawMessage(value)}); err != nil {
			t.Fatal(err)
		}
	}
	before += 2 // of the settings
	prune()
	if now, n := ok(), others(); now != before || n > 2020 || n < 1000 {
		t.Errorf("%d rows of %d are kept, and %d of others", now, before, n)
	}
	if oldest, err := l.Events.Oldest(bg); err != nil || oldest > 1 {
		t.Errorf("what operators did is said to be there from revision %d on, %v", oldest, err)
	}
	// Many rows of operators do not take the others away either.
	n := others()
	err := l.Write(bg, actor, func(tx *Tx) error {
		for i := range 1500 {
			if err := tx.audit("test.row", fmt.Sprint("test/", i), ""); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	prune()
	if others() != n {
		t.Errorf("%d rows of others, %d before", others(), n)
	}
}
