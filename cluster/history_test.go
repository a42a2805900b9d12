package cluster

import (
	"testing"
	"time"
)

// The memory holds an hour, however long the member runs and however often things change, and keeps what still holds.
func TestHistoryIsBounded(t *testing.T) {
	t.Parallel()
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	h := newHistory(now)
	h.look(now, 1, map[uint64]bool{7: true}) // and stays so
	for i := range 10_000 {
		now = now.Add(historyEvery)
		bad := map[uint64]bool{7: true}
		if i%2 == 0 {
			bad[2] = true
		}
		h.look(now, uint64(1+i%3), bad)
		h.look(now, uint64(1+i%3), nil) // nothing is known: nothing changes
		h.add(now, &figures{Commits: uint64(i), CommitMs: 1.5, Servers: []serverFigure{{NodeID: 2, Lag: uint64(i)}}})
	}
	out := h.show(9)
	if out.NodeID != 9 || len(out.At) != historyKept || len(out.Servers) != 1 || len(out.Servers[0].Lag) != historyKept {
		t.Errorf("%d samples, %+v servers", len(out.At), len(out.Servers))
	}
	if n := len(out.Leaders); n > historyKept+2 {
		t.Errorf("%d changes of leadership in an hour of one each %v", n, historyEvery)
	}
	if n := len(out.Health); n > historyKept+3 || n < historyKept/2 {
		t.Errorf("%d changes of health", n)
	}
	if c := out.Health[0]; c.NodeID != 7 || c.Healthy {
		t.Errorf("what has held for longer than an hour is forgotten: %+v", c)
	}
	if out.CommitMs[0] == nil || *out.CommitMs[0] != 1.5 {
		t.Errorf("%+v", out.CommitMs[:2])
	}
}

// What nobody has told is null, not 0.
func TestHistoryWithoutLeader(t *testing.T) {
	now := time.Now()
	h := newHistory(now)
	h.look(now, 0, nil)
	h.add(now, nil)
	h.add(now, &figures{Servers: []serverFigure{{NodeID: 3, Lag: 4}}})
	out := h.show(1)
	if out.Commits[0] != nil || out.CommitMs[1] != nil || out.Servers[0].Lag[0] != nil || *out.Servers[0].Lag[1] != 4 {
		t.Errorf("%+v", out)
	}
	if len(out.Leaders) != 1 || out.Leaders[0].NodeID != 0 || len(out.Health) != 0 {
		t.Errorf("%+v %+v", out.Leaders, out.Health)
	}
}
