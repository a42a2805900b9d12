package datadir

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"testing"
	"time"

	"muster/internal/silent"
	"muster/store"
)

func openTestDir(t *testing.T) *Dir {
	t.Helper()
	d, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func newTestBook(d *Dir, given ...Place) *Book {
	return NewBook(d, &Node{NodeID: 1, Others: []Place{{2, "10.0.0.2:1"}, {3, "10.0.0.3:1"}}}, given,
		slog.New(slog.DiscardHandler))
}

// TestBook: the likeliest address comes first, and what was learned by contact, nothing else, is there at the next
// start.
func TestBook(t *testing.T) {
	d := openTestDir(t)
	check := func(b *Book, id uint64, want ...string) {
		t.Helper()
		if got := b.Candidates(id); !slices.Equal(got, want) {
			t.Errorf("node %d may be at %q, want %q", id, got, want)
		}
	}
	b := newTestBook(d, Place{2, "10.0.0.2:4"})
	check(b, 2, "10.0.0.2:4", "10.0.0.2:1")
	check(b, 9)
	b.UseTable(func(_ context.Context, id uint64) (string, bool) { return fmt.Sprintf("10.0.0.%d:3", id), id < 4 })
	b.Hear([]Place{{2, "10.0.0.2:2"}, {1, "10.0.0.1:9"}, {4, "0.0.0.0:1"}, {5, "10.0.0.5:2"}})
	check(b, 2, "10.0.0.2:4", "10.0.0.2:3", "10.0.0.2:2", "10.0.0.2:1")
	b.Met(2, "10.0.0.2:5")
	check(b, 2, "10.0.0.2:5", "10.0.0.2:4", "10.0.0.2:3", "10.0.0.2:2", "10.0.0.2:1")
	if b.At(2) != "10.0.0.2:5" || b.At(3) != "" {
		t.Errorf("nodes 2 and 3 were met at %q and %q", b.At(2), b.At(3))
	}
	for _, bad := range []string{"", "0.0.0.0:1", "10.0.0.256:1", "10.0.0.3", "[::]:1"} {
		b.Met(3, bad)
	}
	b.Met(1, "10.0.0.1:9") // itself
	b.Met(6, "six.example:7000")
	if known := b.Known(); !slices.Contains(known, 5) || !slices.Contains(known, 6) || slices.Contains(known, 1) ||
		slices.Contains(known, 4) {
		t.Errorf("it knows %v", known)
	}
	b.Save()

	b = newTestBook(d)
	check(b, 2, "10.0.0.2:5", "10.0.0.2:1")
	check(b, 3, "10.0.0.3:1")
	check(b, 5) // hearsay is not kept
	check(b, 6, "six.example:7000")
	if b.At(2) != "" {
		t.Error("a new process has met nobody yet")
	}
	b.Forget(6)
	b.Save()
	check(newTestBook(d), 6)

	if err := d.KeepPlaces([]Place{{3, "10.0.0.3:7"}, {2, "10.0.0.2:7"}}, time.Now()); err != nil {
		t.Fatal(err)
	}
	check(newTestBook(d), 2, "10.0.0.2:7", "10.0.0.2:1")
	for id := uint64(10); id < 10+2*maxInBook; id++ {
		b.Met(id, "10.0.0.9:1")
	}
	b.Save()
	if list, err := d.readBook(); err != nil || len(list) > maxInBook {
		t.Errorf("%d members are kept, %v", len(list), err)
	}
	if info, err := os.Stat(d.file(bookFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its file: %v, %v", info, err)
	}
	if err := os.WriteFile(d.file(bookFile), []byte("[{"), 0o600); err != nil {
		t.Fatal(err)
	}
	check(newTestBook(d), 2, "10.0.0.2:1") // a damaged one is only a pity
}

// TestAskWhereTheyAreNow: a recovery asks for others also where the operator says that they are now, and where they
// were met last, each time that it asks.
func TestAskWhereTheyAreNow(t *testing.T) {
	for _, x := range []struct {
		name string
		tell func(d *Dir, p *RecoveryPlan, address string) error
	}{
		{"given", func(_ *Dir, p *RecoveryPlan, address string) error { p.given = []Place{{2, address}}; return nil }},
		{"met", func(d *Dir, _ *RecoveryPlan, address string) error {
			return d.KeepPlaces([]Place{{2, address}}, time.Now())
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			d := openTestDir(t)
			node, err := Found(d, Plan{
				Name:         "one",
				Mode:         store.ModeFull,
				APIAddress:   "127.0.0.1:1",
				RaftAddress:  silent.Gone(t),
				Version:      "test",
				OverlayCIDR:  "10.200.0.0/16",
				OverlaySlice: 28,
			}, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			p := &RecoveryPlan{ClusterID: node.ClusterID, NodeID: 1, Name: "one", Members: []RecoveryMember{
				{NodeID: 1, Name: "one", Role: store.RoleVoter, RaftAddress: node.RaftAddress},
				{NodeID: 2, Name: "two", Role: store.RoleVoter, RaftAddress: silent.Gone(t)}}}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if err := p.AskAgain(ctx, d, nil); err != nil {
				t.Fatalf("nobody runs: %v", err)
			}
			if err := x.tell(d, p, silent.Deaf(t)); err != nil {
				t.Fatal(err)
			}
			var running *RunningError
			if err := p.AskAgain(ctx, d, nil); !errors.As(err, &running) || running.Member.NodeID != 2 {
				t.Errorf("node 2 runs elsewhere: %v", err)
			}
		})
	}
}
