package store

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"muster/store/sizes"
)

// rowsOf says how many rows of each table others can cause at the most, by default: those of all owners where an owner
// can be had without end. 0: the table is this cluster's own, or its rows are as many as something else's here.
var rowsOf = map[string]struct {
	rows int
	why  string
}{
	"settings":            {0, "names are fixed"},
	"members":             {1 << 20, "as many as the overlay network has room for, which an operator chooses"},
	"removed_members":     {100_000, "the oldest go"},
	"leases":              {0, "limits.leases for each member"},
	"join_tokens":         {1 << 20, "limits.join_tokens for each credential"},
	"join_token_uses":     {0, "members"},
	"api_tokens":          {10_000, "limits.api_tokens"},
	"api_keys":            {1 << 20, "limits.api_keys for each credential"},
	"enrollments":         {100_000, "limits.enrollments"},
	"authorities":         {0, "a rotation at a time, of management alone"},
	"ca_rotations":        {0, "the same"},
	"secrets":             {20_000, "limits.secrets"},
	"sealed_secrets":      {0, "this cluster's own"},
	"peerings":            {1000, "limits.peerings"},
	"peering_secrets":     {1000, "peerings"},
	"peer_members":        {0, "the budget of a peering"},
	"peering_tombstones":  {1000, "peerings"},
	"backups":             {0, "backup.keep"},
	"workloads":           {1000, "limits.workloads"},
	"peer_bundles":        {1000, "peerings"},
	"idempotency":         {1 << 20, "limits.answers for each credential"},
	"audit":               {0, "audit.max_rows and refusals.max_rows"},
	"jwt_authorities":     {0, "this cluster's own"},
	"cluster":             {0, "this cluster's own"},
	"sequences":           {0, "this cluster's own"},
	"operations":          {0, "one at a time"},
	"overlay_allocations": {0, "members"},
	"certificates":        {0, "limits.certificates for each member"},
	"dek_generations":     {0, "this cluster's own"},
	"dek_wraps":           {0, "members"},
	"cluster_keys":        {0, "this cluster's own"},
	"unhealthy_members":   {0, "members"},
}

// TestBytesAreBounded walks the tables: where the rows that others can cause come to more than a quarter of a GiB when
// each is as large as it may be, there is a bound in bytes.
func TestBytesAreBounded(t *testing.T) {
	bounded := map[string]string{}
	for _, b := range byteBounds {
		bounded[b.table] = b.columns
	}
	left := maps.Clone(rowsOf)
	for i := range registry {
		r := &registry[i]
		x, known := rowsOf[r.name]
		if !known || x.why == "" {
			t.Errorf("%s: nobody says how many rows there may be", r.name)
			continue
		}
		small, all := 0, 0
		for _, s := range sizes.All {
			if s.Table != r.name {
				continue
			}
			all += s.Max
			if !strings.Contains(" "+bounded[r.name]+" ", " "+s.Column+" ") {
				small += s.Max
			}
		}
		if x.rows*all > 256<<20 && bounded[r.name] == "" {
			t.Errorf("%s: %d rows of %d bytes come to %d MiB, and no bound in bytes is there", r.name, x.rows, all,
				x.rows*all>>20)
		}
		if x.rows > 0 && x.rows < 1<<20 && x.rows*small > 512<<20 {
			t.Errorf("%s: besides what is bounded, %d rows of %d bytes come to %d MiB", r.name, x.rows, small, x.rows*small>>20)
		}
		delete(left, r.name)
	}
	for name := range left {
		t.Errorf("%s is no table of the registry", name)
	}
}

// TestByteBounds: each bound refuses a row that would exceed it, of one owner and of all, and takes one that replaces
// as much.
func TestByteBounds(t *testing.T) {
	bench := foundedBench(t, "10.200.0.0/16", 20)
	for _, b := range byteBounds {
		small := *b
		small.each, small.all = 10_000, 15_000
		var have int
		if _, err := bench.view().get(b.sum(), nil, &have); err != nil {
			t.Fatalf("%s: %v", b.table, err)
		}
		for _, x := range []struct {
			had, row int
			fits     bool
		}{{0, 5000, true}, {0, small.all + 1, false}, {small.all + 1, small.all + 1, true}, {0, 100, true},
			{0, small.each + 1, b.owner == ""}} {
			if have > 0 && x.row > 5000 && x.had == 0 && x.fits {
				continue // what the founding has made counts
			}
			_, err := bench.write(func(tx *Tx) error { return tx.boundBytes(&small, "x", x.had, x.row) })
			var refusal *Refusal
			if (err == nil) != x.fits || err != nil && !errors.As(err, &refusal) {
				t.Errorf("%s: %d bytes in place of %d: %v", b.table, x.row, x.had, err)
			}
		}
	}
}

// TestSecretsAreBoundedInBytes: many large values are refused, whoever puts them; those that are there can be replaced.
func TestSecretsAreBoundedInBytes(t *testing.T) {
	old := boundOfSecrets.all
	boundOfSecrets.all = 1 << 20
	t.Cleanup(func() { boundOfSecrets.all = old })
	c := newTestCluster(t, 1)
	s, value := c.leader(), make([]byte, 60<<10)
	var err error
	n := 0
	for ; n < 100 && err == nil; n++ {
		_, err = s.Secrets.Put(bg, Actor{Name: "test"}, fmt.Sprintf("s%d", n), value)
	}
	var refusal *Refusal
	if !errors.As(err, &refusal) || refusal.Code != Full || n < 15 || n > 20 {
		t.Fatalf("after %d: %v", n, err)
	}
	if _, err := s.Secrets.Put(bg, Actor{Name: "test"}, "s0", value); err != nil {
		t.Error("in place of one that is there:", err)
	}
	if _, err := s.Secrets.Put(bg, Actor{Name: "test"}, "small", []byte("x")); err != nil {
		t.Error("a small one:", err)
	}
}

// TestRejoinsDisplaceNothing: a used token may be shown without end, and what comes of that is not kept with what
// operators and members did, but for the first changes.
func TestRejoinsDisplaceNothing(t *testing.T) {
	b := hostBench(t, "")
	b.hostToken("t", nil, "")
	var seen rejoinings
	join := func(i int) {
		t.Helper()
		if _, err := b.write(func(tx *Tx) error {
			tx.rejoins = &seen
			_, err := tx.join(Joiner{TokenID: "t", Member: Member{
				Name:          "three",
				Mode:          ModeFull,
				Recipient:     "age1three",
				OverlayPort:   uint16(i),
				RaftAddress:   "10.0.0.3:7003",
				APIAddress:    "10.0.0.3:5003",
				AdvertiseAddr: "10.0.0.3",
			}}, NewID(), tx.actor)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	rows := func(outcome string) (n int) {
		t.Helper()
		if _, err := b.view().get("SELECT count(*) FROM audit WHERE action = 'member.rejoin' AND outcome = ?", []any{outcome},
			&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for range 3 {
		join(1)
	}
	if ok, others := rows(outcomeOK), rows(outcomeReplayed); ok != 0 || others != 2 {
		t.Errorf("unchanged: %d rows among what members did, %d others", ok, others)
	}
	for i := range 300 {
		join(1 + i%2)
	}
	if ok, others := rows(outcomeOK), rows(outcomeReplayed); ok != rejoinsPerHour || others != 302-rejoinsPerHour {
		t.Errorf("changed: %d rows among what members did, %d others", ok, others)
	}
}
