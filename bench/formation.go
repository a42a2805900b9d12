package main

import (
	"context"
	"time"
)

const startLimit = 30 * time.Second

// formation founds clusters and measures the time until all three members are voters and answer.
func (b *bench) formation(ctx context.Context) {
	out := outcome{}
	for _, s := range b.systems {
		var times []time.Duration
		for range b.formations {
			begin := time.Now()
			c, err := s.start(ctx, b.fleet)
			if err != nil {
				out.fail(s, err)
				break
			}
			times = append(times, time.Since(begin))
			stop(c)
		}
		if out[s.name()] == nil {
			v := value{}
			v.latencies(times)
			v.Value = v.P50 / 1000
			out.set(s.name(), v)
		}
	}
	b.add(ctx, "formation: nothing to three voters (median)", "s", true, out, below(5, "s"))
}
