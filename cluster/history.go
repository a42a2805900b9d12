package cluster

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"muster/api"
	"muster/cluster/autopilot"
	"muster/store"
)

// Each member keeps the last hour in memory: lag of replicas, commit latency, leaders, and changes of health. It is for
// the web page and is lost when the process ends.
const (
	historyTick   = time.Second      // who leads, and who is unhealthy
	historyEvery  = 10 * time.Second // figures
	historyKept   = 360              // samples: an hour
	historyFor    = historyKept * historyEvery
	changesKept   = 2000 // changes of health or leadership; the oldest are dropped
	figuresWithin = 2 * time.Second
	pathFigures   = "/internal/figures" // a Raft server, to the leader
)

// figures are the leader's last sample, which only it has.
type figures struct {
	Commits  uint64         `json:"commits"`  // transactions since the previous sample
	CommitMs float64        `json:"commitMs"` // mean commit latency
	Servers  []serverFigure `json:"servers"`
}

type serverFigure struct {
	NodeID uint64  `json:"nodeId"`
	Lag    uint64  `json:"lag"`
	RTTMs  float64 `json:"rttMs"`
}

// history is the recorded hour of one member.
type history struct {
	mu        sync.Mutex
	since     time.Time
	samples   []sample
	leaders   []api.LeaderChange
	health    []api.HealthChange
	unhealthy map[uint64]bool
	newest    figures // measured by this member as leader
}

type sample struct {
	at      time.Time
	figures *figures // nil: no figures from a leader
}

func newHistory(now time.Time) *history {
	return &history{since: now, unhealthy: map[uint64]bool{}}
}

// look records the leader and the unhealthy members; a nil map means unknown.
func (h *history) look(now time.Time, leader uint64, unhealthy map[uint64]bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.leaders); n == 0 || h.leaders[n-1].NodeID != leader {
		h.leaders = append(h.leaders, api.LeaderChange{At: now, NodeID: leader})
	}
	if unhealthy != nil {
		for id := range unhealthy {
			if !h.unhealthy[id] {
				h.unhealthy[id] = true
				h.health = append(h.health, api.HealthChange{At: now, NodeID: id})
			}
		}
		for id := range h.unhealthy {
			if !unhealthy[id] {
				delete(h.unhealthy, id)
				h.health = append(h.health, api.HealthChange{At: now, NodeID: id, Healthy: true})
			}
		}
	}
	// Keep the last change before the hour: it is the state at its beginning.
	for len(h.leaders) > 1 && (len(h.leaders) > changesKept || now.Sub(h.leaders[1].At) > historyFor) {
		h.leaders = h.leaders[1:]
	}
	h.health = forget(h.health, now)
}

// forget drops changes that are too old or too many, but keeps the last one of each member.
func forget(list []api.HealthChange, now time.Time) []api.HealthChange {
	last := map[uint64]int{}
	for i, c := range list {
		last[c.NodeID] = i
	}
	excess := len(list) - changesKept
	kept := list[:0]
	for i, c := range list {
		old := now.Sub(c.At) > historyFor || i < excess
		if !old || last[c.NodeID] == i && !c.Healthy {
			kept = append(kept, c)
		}
	}
	return kept
}

func (h *history) add(now time.Time, f *figures) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.samples = append(h.samples, sample{now, f})
	for len(h.samples) > historyKept || now.Sub(h.samples[0].at) > historyFor {
		h.samples = h.samples[1:]
	}
}

// show returns the history in columns.
func (h *history) show(nodeID uint64) api.History {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := len(h.samples)
	out := api.History{
		NodeID:       nodeID,
		Since:        h.since.UTC().Truncate(time.Second),
		EverySeconds: int(historyEvery / time.Second),
		At:           make([]int64, n),
		Commits:      make([]*uint64, n),
		CommitMs:     make([]*float64, n),
		Servers:      []api.ServerHistory{},
		Leaders:      append([]api.LeaderChange{}, h.leaders...),
		Health:       append([]api.HealthChange{}, h.health...),
	}
	at := map[uint64]int{}
	for i, s := range h.samples {
		out.At[i] = s.at.Unix()
		if s.figures == nil {
			continue
		}
		out.Commits[i] = &s.figures.Commits
		if s.figures.Commits > 0 {
			out.CommitMs[i] = &s.figures.CommitMs
		}
		for j := range s.figures.Servers {
			f := &s.figures.Servers[j]
			k, known := at[f.NodeID]
			if !known {
				k = len(out.Servers)
				at[f.NodeID] = k
				lag, rtt := make([]*uint64, n), make([]*float64, n)
				out.Servers = append(out.Servers, api.ServerHistory{NodeID: f.NodeID, Lag: lag, RTTMs: rtt})
			}
			out.Servers[k].Lag[i], out.Servers[k].RTTMs[i] = &f.Lag, &f.RTTMs
		}
	}
	slices.SortFunc(out.Servers, func(a, b api.ServerHistory) int { return int(a.NodeID) - int(b.NodeID) })
	return out
}

// historian records the history of a member.
type historian struct {
	*member
	view    *view
	history *history
}

// History returns the last hour as this member recorded it.
func (x *historian) History() api.History { return x.history.show(x.Store.NodeID()) }

// run records until ctx ends.
func (x *historian) run(ctx context.Context) {
	tick := time.NewTicker(historyTick)
	defer tick.Stop()
	var sampled, seen time.Time
	revision, commits, took := uint64(0), uint64(0), time.Duration(0)
	for {
		now := time.Now()
		var unhealthy map[uint64]bool
		if rev := x.Store.Mirror.Revision(); rev != revision || now.Sub(seen) > historyEvery {
			if m, err := x.Store.Members.Unhealthy(ctx, store.Stale); err == nil {
				revision, seen, unhealthy = rev, now, m
				if unhealthy == nil {
					unhealthy = map[uint64]bool{}
				}
			}
		}
		x.history.look(now, x.Store.LeaderID(), unhealthy)
		if now.Sub(sampled) >= historyEvery-historyTick/2 {
			sampled = now
			n, total := x.Store.Commits()
			x.measure(n-commits, total-took)
			commits, took = n, total
			x.history.add(now, x.figures(ctx))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// measure takes this member's sample as leader.
func (x *historian) measure(commits uint64, took time.Duration) {
	f := figures{Commits: commits, Servers: []serverFigure{}}
	if commits > 0 {
		f.CommitMs = milliseconds(took / time.Duration(commits))
	}
	state := x.view.state.Load()
	for i := range state.Servers {
		if v := &state.Servers[i]; v.Role != autopilot.RoleOutside {
			f.Servers = append(f.Servers, serverFigure{v.NodeID, v.Lag, milliseconds(v.RTT.Std())})
		}
	}
	x.history.mu.Lock()
	x.history.newest = f
	x.history.mu.Unlock()
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// serve answers another Raft server.
func (x *historian) serve(w http.ResponseWriter, _ *http.Request) { writeJSON(w, x.ownFigures()) }

// ownFigures returns what this member last measured.
func (x *historian) ownFigures() figures {
	x.history.mu.Lock()
	defer x.history.mu.Unlock()
	return x.history.newest
}

// figures returns the leader's figures; nil without an answering leader, and on members outside Raft.
func (x *historian) figures(ctx context.Context) *figures {
	leader := x.Store.LeaderID()
	if leader == 0 || x.Store.Outside() { // there may be thousands outside Raft, too many to ask
		return nil
	}
	if leader == x.Store.NodeID() {
		f := x.ownFigures()
		return &f
	}
	ctx, cancel := context.WithTimeout(ctx, figuresWithin)
	defer cancel()
	f := new(figures)
	if x.Transport.Call(ctx, http.MethodGet, leader, pathFigures, nil, f) != nil {
		return nil
	}
	return f
}
