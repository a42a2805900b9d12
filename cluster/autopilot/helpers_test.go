package autopilot

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

var t0 = time.Date(2026, 4, 20, 8, 0, 0, 0, time.UTC)

// testConfig is independent of the defaults, so that those can be tuned.
func testConfig() Config {
	return Config{
		MaxVoters:            5,
		StandBys:             2,
		Stabilization:        Duration(10 * time.Second),
		LastContactThreshold: Duration(2 * time.Second),
		MaxLagRevisions:      1000,
		MaxLagTime:           Duration(20 * time.Second),
		DeadAfter:            Duration(24 * time.Hour),
		MinQuorum:            2,
	}
}

// cluster builds an Input from one line per node, "id role [word…]":
// role V, S, P (spare) or -, words: silent, never, lag, draining, drained,
// full-disk, frozen (cannot store), stalled, replicate, orphan, pinned, fresh (healthy for 4 s only), back
// (recovering), rare (probed every 50 s, last 30 s ago), @ZONE, vVERSION. Node 1 leads since an hour ago.
func cluster(lines ...string) Input {
	in := Input{LeaderID: 1, LeaderRevision: 5000, LeaderSince: t0.Add(-time.Hour), Previous: map[uint64]Health{}}
	for _, l := range lines {
		w := strings.Fields(l)
		var id uint64
		if err := json.Unmarshal([]byte(w[0]), &id); err != nil {
			panic(err)
		}
		o := Observation{
			NodeID:      id,
			Mode:        ModeFull,
			DrainState:  DrainActive,
			Member:      true,
			Revision:    5000,
			LastContact: t0.Add(-500 * time.Millisecond),
		}
		o.Role = map[string]string{"V": RoleVoter, "S": RoleStandBy, "P": RoleSpare, "-": RoleOutside}[w[1]]
		h := Health{Healthy: true, StableSince: t0.Add(-30 * time.Minute)}
		for _, x := range w[2:] {
			if zone, ok := strings.CutPrefix(x, "@"); ok {
				o.Zone = zone
				continue
			}
			if version, ok := strings.CutPrefix(x, "v"); ok && version[0] <= '9' {
				o.Version = x
				continue
			}
			switch x {
			case "silent":
				o.LastContact = t0.Add(-time.Minute)
				h = Health{StableSince: t0.Add(-58 * time.Second), Recovering: true}
			case "hushed":
				o.LastContact = t0.Add(-3200 * time.Millisecond)
			case "never":
				o.LastContact = time.Time{}
				h = Health{}
			case "lag":
				o.Revision = 3500
				h = Health{StableSince: t0.Add(-time.Minute)}
			case "draining", "drained":
				o.DrainState = x
			case "full-disk":
				o.DiskLow = true
			case "frozen":
				o.CannotStore = "its disk does not answer"
				h = Health{StableSince: t0.Add(-time.Minute), Recovering: true}
			case "stalled":
				o.Stalled, o.Revision = Duration(21*time.Second), 4990
				h = Health{StableSince: t0.Add(-time.Minute), Recovering: true}
			case "replicate":
				o.Mode = x
			case "orphan":
				o.Member, o.Mode, o.DrainState = false, "", ""
			case "pinned":
				o.Pinned = true
			case "fresh":
				h.StableSince = t0.Add(-4 * time.Second)
			case "back":
				h = Health{Healthy: true, StableSince: t0.Add(-4 * time.Second), Recovering: true}
			case "rare":
				o.ProbeInterval, o.LastContact = Duration(50*time.Second), t0.Add(-30*time.Second)
			default:
				panic("unknown word " + x)
			}
		}
		in.Members = append(in.Members, o)
		in.Previous[id] = h
	}
	return in
}

// short writes a plan as "promote 2 3", with the one kind first.
func short(t *testing.T, p Plan) string {
	t.Helper()
	if len(p) == 0 {
		return ""
	}
	s := string(p[0].Kind)
	for _, c := range p {
		if c.Kind != p[0].Kind {
			t.Fatalf("two kinds of change in one plan: %v", p)
		}
		if c.Reason == "" {
			t.Errorf("no reason: %+v", c)
		}
		s += " " + itoa(int(c.NodeID))
	}
	return s
}

// apply does to in what a perfect executor would do.
func apply(in Input, p Plan) Input {
	out := in
	out.Members = nil
	gone := map[uint64]bool{}
	role := map[uint64]string{}
	for _, c := range p {
		switch c.Kind {
		case KindTransfer:
			out.LeaderID = c.NodeID
		case KindCleanup:
			gone[c.NodeID] = true
		default:
			role[c.NodeID] = c.Role
		}
	}
	for _, o := range in.Members {
		if gone[o.NodeID] {
			continue
		}
		if r, ok := role[o.NodeID]; ok {
			if o.Role != RoleVoter && o.Role != RoleStandBy {
				o.Stalled = 0 // what has passed before Raft sends it anything does not count
			}
			o.Role = r
			if !o.Member && r == RoleOutside {
				continue
			}
		}
		out.Members = append(out.Members, o)
	}
	return out
}

// settle applies plans at one fixed time until there is none and returns them.
func settle(t *testing.T, in Input, cfg Config, now time.Time) (Input, []string) {
	t.Helper()
	var did []string
	for range 200 {
		s, p := Decide(in, cfg, now)
		if len(p) == 0 {
			return in, did
		}
		did = append(did, short(t, p))
		in.Previous = Carry(s)
		in = apply(in, p)
	}
	t.Fatalf("no fixed point: %v", did)
	return in, did
}
