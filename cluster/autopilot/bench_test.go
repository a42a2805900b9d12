package autopilot

import (
	"testing"
	"time"
)

func big(n int) Input {
	in := Input{LeaderID: 1, LeaderRevision: 1 << 20, LeaderSince: t0.Add(-time.Hour),
		Previous: make(map[uint64]Health, n)}
	for i := 1; i <= n; i++ {
		o := Observation{
			NodeID:      uint64(i),
			Name:        "node-" + itoa(i),
			Mode:        ModeFull,
			DrainState:  DrainActive,
			Member:      true,
			Revision:    1 << 20,
			Version:     "1.0.0",
			RTT:         Duration(time.Millisecond),
			LastContact: t0.Add(-time.Second),
		}
		switch {
		case i <= 5:
			o.Role = RoleVoter
		case i <= 7:
			o.Role = RoleStandBy
		default:
			o.ProbeInterval = Duration(50 * time.Second)
			if i%10 == 0 {
				o.LastContact = t0.Add(-time.Duration(i) * time.Second)
			}
		}
		in.Members = append(in.Members, o)
		in.Previous[o.NodeID] = Health{Healthy: true, StableSince: t0.Add(-time.Hour)}
	}
	return in
}

func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{3, 100, 10_000} {
		in := big(n)
		b.Run(itoa(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Decide(in, testConfig(), t0)
			}
		})
	}
	in := big(10_000)
	for i := range in.Members {
		in.Members[i].Zone = string(rune('a' + i%3))
	}
	b.Run("10000 in zones", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			Decide(in, testConfig(), t0)
		}
	})
}

func BenchmarkCarry(b *testing.B) {
	s, _ := Decide(big(10_000), testConfig(), t0)
	b.ReportAllocs()
	for b.Loop() {
		Carry(s)
	}
}
