package cluster

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"muster/cluster/datadir"
	"muster/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What makes the quorum stronger comes first, what weakens it last; ids decide among equals.
func TestDifferences(t *testing.T) {
	members := []store.Member{
		{NodeID: 1, Role: store.RoleVoter}, {NodeID: 2, Role: store.RoleNone}, {NodeID: 3, Role: store.RoleStandBy},
		{NodeID: 4, Role: store.RoleVoter}, {NodeID: 5, Role: store.RoleVoter}, {NodeID: 6, Role: store.RoleNone},
	}
	servers := []store.Server{{NodeID: 1, Role: store.RoleVoter}, {NodeID: 2, Role: store.RoleVoter},
		{NodeID: 4, Role: store.RoleStandBy}, {NodeID: 9, Role: store.RoleVoter}}
	want := []Difference{
		{NodeID: 4, Want: store.RoleVoter, Have: store.RoleStandBy},
		{NodeID: 5, Want: store.RoleVoter},
		{NodeID: 3, Want: store.RoleStandBy},
		{NodeID: 2, Have: store.RoleVoter},
		{NodeID: 9, Have: store.RoleVoter},
	}
	if d := cmp.Diff(want, differences(members, servers)); d != "" {
		t.Error(d)
	}
	if got := differences(members[:1], servers[:1]); got != nil {
		t.Errorf("they agree, and the difference is %v", got)
	}
}

func TestParseHook(t *testing.T) {
	for text, want := range map[string]Hook{
		"bgp=birdc disable all": {"bgp", "birdc disable all"},
		"a=b=c":                 {"a", "b=c"},
	} {
		if got, err := ParseHook(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "bgp", "=x", "bgp=", "bgp=  "} {
		if _, err := ParseHook(text); err == nil || !strings.Contains(err.Error(), "NAME=COMMAND") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// A hook runs once per generation, whoever asks again; what it prints does not get into the outcome; one that hangs is
// ended with what it has started.
func TestHooks(t *testing.T) {
	count := filepath.Join(t.TempDir(), "count")
	h := &Hooks{Log: slog.New(slog.DiscardHandler), Node: datadir.Node{NodeID: 7, Name: "seven"},
		Drain: []Hook{{"env", `test "$MUSTER_HOOK $MUSTER_NODE_ID $MUSTER_NODE_NAME" = "drain 7 seven" && echo x >>` + count},
			{"bad", "echo secret; exit 3"}}}
	for range 2 {
		got := h.run(context.Background(), store.HookDrain, 4)
		if len(got) != 2 || !got[0].OK || got[1].OK || got[1].Message != "exit status 3" {
			t.Fatalf("%+v", got)
		}
	}
	if data, err := os.ReadFile(count); err != nil || string(data) != "x\n" {
		t.Errorf("the hook ran %q, %v", data, err)
	}
	if got := h.run(context.Background(), store.HookResume, 5); got == nil || len(got) != 0 {
		t.Errorf("there is no resume hook: %+v", got)
	}
	h.Drain = []Hook{{"hang", "sleep 60 & sleep 60"}}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if got := h.run(ctx, store.HookDrain, 6); got[0].OK || !strings.Contains(got[0].Message, "did not end") {
		t.Errorf("%+v", got)
	}
}

// The leader asks everybody, Raft servers each second, but never more than the bound in all.
func TestProberIsBounded(t *testing.T) {
	asked := make(chan uint64, 100_000)
	p := newProber(func(_ context.Context, id uint64) (Report, error) { asked <- id; return Report{NodeID: id}, nil },
		func() {})
	var targets []target
	for id := uint64(1); id <= 2000; id++ {
		targets = append(targets, target{nodeID: id, raft: id <= 3})
	}
	now := time.Now()
	for i := range 100 { // ten seconds in steps of the loop
		p.round(context.Background(), targets, now.Add(time.Duration(i)*100*time.Millisecond))
		p.done.Wait()
	}
	close(asked)
	raft, others := 0, 0
	for id := range asked {
		if id <= 3 {
			raft++
		} else {
			others++
		}
	}
	if raft != 30 {
		t.Errorf("the three Raft servers were asked %d times in 10 s, not 30", raft)
	}
	if others > 10*probesPerSec {
		t.Errorf("%d probes of others in 10 s, more than %d a second", others, probesPerSec)
	}
	if got := len(p.snapshot()); got != 2000 {
		t.Errorf("%d members are known", got)
	}
}

// Members that do not answer are many and asked often while they are young; nobody waits forever behind them.
func TestProberIsFair(t *testing.T) {
	begin := time.Now()
	const last = 3*probeWorkers + 1
	p := newProber(func(ctx context.Context, id uint64) (Report, error) {
		if id != last {
			<-ctx.Done() // the whole round long
			return Report{}, ctx.Err()
		}
		return Report{NodeID: id}, nil
	}, func() {})
	var targets []target
	for id := uint64(1); id <= last; id++ {
		targets = append(targets, target{nodeID: id, joinedAt: begin})
	}
	for i := range 6 {
		ctx, end := context.WithCancel(context.Background())
		p.round(ctx, targets, begin.Add(time.Duration(i)*probeNewEvery))
		end()
		p.done.Wait()
	}
	if p.snapshot()[last].LastContact.IsZero() {
		t.Errorf("the last of %d members was not asked in 6 rounds of %d", last, probeWorkers)
	}
}
