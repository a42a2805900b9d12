package main

import (
	"context"
	"slices"
	"time"
)

// idle measures clusters without requests. The worst of the three members counts.
func (b *bench) idle(ctx context.Context) {
	const settle, watch = 5 * time.Second, 10 * time.Second
	cpu, memory := outcome{}, outcome{}
	before := make(map[*process]time.Duration)
	clusters := make(map[string]cluster)
	for _, s := range slices.Concat(b.systems, b.beside) {
		c, err := b.shared(ctx, s)
		if err != nil {
			cpu.fail(s, err)
			continue
		}
		clusters[s.name()] = c
	}
	pause(ctx, settle)
	begin := time.Now()
	for _, c := range clusters {
		for _, p := range c.processes() {
			before[p] = p.cpu()
		}
	}
	pause(ctx, watch)
	for name, c := range clusters {
		var busy, bytes float64
		for _, p := range c.processes() {
			busy = max(busy, (p.cpu()-before[p]).Seconds()/time.Since(begin).Seconds()*100)
			bytes = max(bytes, p.rss())
		}
		cpu.set(name, value{Value: busy})
		memory.set(name, value{Value: bytes / 1e6})
	}
	b.add(ctx, "idle: CPU of the busiest member", "% of a core", true, cpu, below(1, "% of a core"))
	b.add(ctx, "idle: RSS of the largest member", "MB", true, memory, below(40, "MB"))
}

// pause sleeps until d has passed or ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
