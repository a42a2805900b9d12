package main

import (
	"context"
	"fmt"
)

// writes mints join tokens, each a committed row, next to etcd's puts of 256 bytes under new keys.
func (b *bench) writes(ctx context.Context) {
	goals := map[int]*goal{1: ratioOf(0.7), 64: ratioOf(1)}
	for _, clients := range b.clients {
		b.write(ctx, "leader", job{clients: clients, member: findLeader}, goals[clients])
	}
	b.write(ctx, "follower", job{clients: 64, member: findFollower}, nil)
}

func (b *bench) write(ctx context.Context, where string, j job, g *goal) {
	j.writes = j.member != nil && where == "leader"
	j.op = func(ctx context.Context, c conn) error { return c.write(ctx, "") }
	b.add(ctx, fmt.Sprintf("writes: %d clients, %s", j.clients, where), "/s", false, b.throughput(ctx, j), g)
}
