package node_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster/cluster"
	"muster/cluster/datadir"
	"muster/migrations"
	"muster/store"
)

// TestRecoverMixedVersions: survivors of a lost majority have different musters. One that does not know the schema of
// the database says so and changes nothing, whichever directory it is used on and whoever tells it of the schema; an
// older one among the others is named. The newest log is chosen by its end alone.
func TestRecoverMixedVersions(t *testing.T) {
	g := startGroup(t, 3)
	for _, dir := range g.dirs {
		await(t, "its mirror has all members as voters", func(context.Context) bool {
			_, list, err := store.MirrorMembers(filepath.Join(dir, datadir.MirrorFile))
			voters := 0
			for i := range list {
				if list[i].Role == store.RoleVoter && list[i].MaxSchema > 0 {
					voters++
				}
			}
			return err == nil && voters == 3
		})
	}
	for _, n := range g.nodes {
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	known := migrations.Latest
	as := func(latest int64, f func()) {
		migrations.Latest = latest
		defer func() { migrations.Latest = known }()
		f()
	}
	var plans []*datadir.RecoveryPlan
	for _, dir := range g.dirs[:2] {
		withPlan(t, dir, func(_ *datadir.Dir, p *datadir.RecoveryPlan) { plans = append(plans, p) })
	}
	here, there := plans[0], plans[1]
	if here.Last.Before(there.Last) {
		here, there = there, here
	} else if here.Last == there.Last && here.NodeID > there.NodeID {
		here, there = there, here
	}
	if here.Schema != known || here.Known != known || here.Members[1].MaxSchema != known ||
		here.Members[1].Version != "test" {
		t.Errorf("%+v", here)
	}
	survivor := func(p *datadir.RecoveryPlan) datadir.Survivor {
		return datadir.Survivor{NodeID: p.NodeID, Last: p.Last, Schema: p.Schema, Known: p.Known}
	}
	other := survivor(there)
	if err := here.Check([]datadir.Survivor{other}); err != nil || len(here.Behind([]datadir.Survivor{other})) != 0 {
		t.Errorf("the same muster: %v", err)
	}
	const want = "Recover and start the survivors with the newer muster (node 1 ran test)"
	as(known-1, func() { // an older binary at hand, on the directory with the newest log and on the other
		for _, p := range plans {
			if err := p.Check(nil); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("an older muster on node %d: %v", p.NodeID, err)
			}
		}
		lagging := *here
		lagging.Schema = known - 1 // its mirror is from before the step, its log is not
		if err := lagging.Check([]datadir.Survivor{other}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the other one's mirror has the step: %v", err)
		}
		withPlan(t, g.dirs[0], func(_ *datadir.Dir, p *datadir.RecoveryPlan) {
			if p.Last != plans[0].Last || p.Schema != known || p.Known != known-1 || len(p.Members) != 3 {
				t.Errorf("an older muster plans %+v", p)
			}
		})
	})
	for _, x := range []datadir.Survivor{{NodeID: other.NodeID, Last: other.Last, Known: known - 1},
		{NodeID: other.NodeID, Last: other.Last, Schema: known - 1, Known: known - 1}} {
		list := here.Behind([]datadir.Survivor{x})
		if err := here.Check([]datadir.Survivor{x}); err != nil || len(list) != 1 ||
			!strings.Contains(list[0], "leads once it has a newer one") {
			t.Errorf("the other one is older: %v, %v", list, err)
		}
	}
	newer := other
	newer.Last, newer.Schema = here.Last, known-1
	newer.Last.Index++ // its mirror lags, its log does not
	if err := here.Check([]datadir.Survivor{newer}); err == nil || !strings.Contains(err.Error(), "has the newer log") {
		t.Errorf("the newer log is the other one's: %v", err)
	}
	adoptOlder(t, g.dirs[here.NodeID-1], g.dirs[there.NodeID-1], other, as)
}

// withPlan plans a recovery in the directory of a stopped member.
func withPlan(t *testing.T, dir string, f func(*datadir.Dir, *datadir.RecoveryPlan)) {
	t.Helper()
	d, err := datadir.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	p, err := datadir.PlanRecovery(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	f(d, p)
}

// adoptOlder applies the recovery of the first directory, which an older muster does not adopt in the second.
func adoptOlder(t *testing.T, from, to string, other datadir.Survivor, as func(int64, func())) {
	t.Helper()
	bundle := filepath.Join(t.TempDir(), "bundle")
	withPlan(t, from, func(d *datadir.Dir, p *datadir.RecoveryPlan) {
		r, err := datadir.ApplyRecovery(d, p, []datadir.Survivor{other}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		pack(t, d, r, bundle)
	})
	as(migrations.Latest-1, func() {
		withPlan(t, to, func(d *datadir.Dir, p *datadir.RecoveryPlan) {
			if _, err := datadir.AdoptRecovery(d, p, bundle, time.Now()); err == nil ||
				!strings.Contains(err.Error(), "with the newer muster") {
				t.Errorf("an older muster adopts: %v", err)
			}
		})
	})
	withPlan(t, to, func(d *datadir.Dir, p *datadir.RecoveryPlan) {
		if err := d.NoteRefused("127.0.0.1:1", true, 1); err != nil {
			t.Error(err)
		}
		if _, err := datadir.AdoptRecovery(d, p, bundle, time.Now()); err != nil {
			t.Error(err)
		}
		if cluster.NewIncarnation(d).Stored != 0 || d.RefusedAsOlder() != 0 {
			t.Error("it has the number of the other one's test writes, or counts as an older copy")
		}
	})
}

func pack(t *testing.T, d *datadir.Dir, r *datadir.Recovery, file string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := datadir.WriteBundle(d, r, f); err != nil {
		t.Fatal(err)
	}
}
