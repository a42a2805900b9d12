package main

import (
	"context"
	"fmt"
	"slices"
)

// reads measures linearisable reads at the leader: the Raft configuration and the list of three members, next to one
// key of etcd.
func (b *bench) reads(ctx context.Context) {
	if err := b.readable(ctx); err != nil {
		b.report.note("reads, etcd: %v", err)
	}
	for _, what := range []struct{ name, path string }{
		{"raft configuration", "/v1/operator/raft/configuration"},
		{"3 members", "/api/v1/cluster/members"},
	} {
		for _, clients := range []int{1, 64} {
			j := job{clients: clients, member: findLeader, op: func(ctx context.Context, c conn) error {
				return c.read(ctx, what.path)
			}}
			var g *goal
			if clients == 64 {
				g = ratioOf(1)
			}
			b.add(ctx, fmt.Sprintf("reads: %s, %d clients", what.name, clients), "/s", false, b.throughput(ctx, j), g)
		}
	}
}

// readable puts the key for etcd's reads.
func (b *bench) readable(ctx context.Context) error {
	for _, s := range slices.Concat(b.systems, b.beside) {
		if _, etcd := s.(etcdSystem); !etcd {
			continue
		}
		c, err := b.shared(ctx, s)
		if err != nil {
			return err
		}
		connection, err := c.dial(0, false)
		if err != nil {
			return err
		}
		err = connection.write(ctx, "bench/read")
		connection.close()
		if err != nil {
			return err
		}
	}
	return nil
}
