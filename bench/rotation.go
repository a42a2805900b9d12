package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

const (
	rotationClients = 16
	rotationLimit   = time.Minute
)

// rotation replaces the data-encryption key under many secrets while clients go on minting tokens.
func (b *bench) rotation(ctx context.Context) {
	if b.muster == nil {
		return
	}
	fail := func(err error) { b.add(ctx, "rotation", "s", true, outcome{"muster": {Error: err.Error()}}, nil) }
	started, err := b.muster.start(ctx, b.fleet)
	if err != nil {
		fail(err)
		return
	}
	defer stop(started)
	c := started.(*musterCluster)
	leader, err := findLeader(ctx, c)
	if err != nil {
		fail(err)
		return
	}
	conns := make([]*musterConn, rotationClients)
	for i := range conns {
		conns[i] = c.connect(leader, b.muster.http2)
		defer conns[i].close()
	}
	var next atomic.Int64
	put := load(ctx, rotationClients, rotationLimit, int64(b.secrets), func(ctx context.Context, client int) error {
		return conns[client].call(ctx, "PUT", fmt.Sprintf("/api/v1/cluster/secrets/bench-%d", next.Add(1)), `{"value":"`+newKey()+`"}`, "", nil)
	})
	if put.failed > 0 || len(put.good) < b.secrets {
		fail(fmt.Errorf("%d of %d secrets were stored: %w", len(put.good), b.secrets, put.err))
		return
	}
	mint := func(d time.Duration) value {
		s := load(ctx, rotationClients, d, 1<<40, func(ctx context.Context, client int) error { return conns[client].write(ctx, "") })
		return s.value()
	}
	mint(min(time.Second, b.duration))
	quiet := mint(b.duration)

	busy := make(chan value, 1)
	during, end := context.WithCancel(ctx)
	go func() {
		s := load(during, rotationClients, rotationLimit, 1<<40, func(ctx context.Context, client int) error { return conns[client].write(ctx, "") })
		busy <- s.value()
	}()
	begin := time.Now()
	err = c.admin[leader].call(ctx, "POST", "/api/v1/cluster/keys/rotate", "", "", nil)
	if err == nil {
		err = eventually(ctx, rotationLimit, func(ctx context.Context) error {
			var list struct{ Result []struct{ State string } }
			if err := c.admin[leader].call(ctx, "GET", "/api/v1/cluster/keys", "", "", &list); err != nil {
				return err
			}
			if n := len(list.Result); n < 2 || list.Result[n-2].State != "retired" {
				return fmt.Errorf("the old generation is not retired")
			}
			return nil
		})
	}
	took := time.Since(begin)
	end()
	writes := <-busy
	if err != nil {
		fail(err)
		return
	}
	b.add(ctx, fmt.Sprintf("rotation: %d secrets re-encrypted, %d clients writing", b.secrets, rotationClients), "s", true,
		outcome{"muster": {Value: took.Seconds(), N: b.secrets}}, below(10, "s"))
	b.report.note("rotation: meanwhile %d writes, %d failed; p99 %.1f ms, max %.1f ms (before: %.1f and %.1f ms)",
		writes.N, writes.Failed, writes.P99, writes.Max, quiet.P99, quiet.Max)
}
