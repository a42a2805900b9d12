package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

const (
	rotationClients = 16
	rotationLimit   = time.Minute
)

// rotation replaces the data-encryption key under many secrets while clients mint tokens.
func (b *bench) rotation(ctx context.Context) {
	if b.muster == nil {
		return
	}
	if err := b.measureRotation(ctx); err != nil {
		b.add(ctx, "rotation", "s", true, outcome{"muster": {Error: err.Error()}}, nil)
	}
}

func (b *bench) measureRotation(ctx context.Context) error {
	started, err := b.muster.start(ctx, b.fleet)
	if err != nil {
		return err
	}
	defer stop(started)
	c := started.(*musterCluster)
	leader, err := findLeader(ctx, c)
	if err != nil {
		return err
	}
	conns := make([]*musterConn, rotationClients)
	for i := range conns {
		conns[i] = c.connect(leader, b.muster.http2)
		defer conns[i].close()
	}
	if err := putSecrets(ctx, conns, b.secrets); err != nil {
		return err
	}
	mint := func(ctx context.Context, d time.Duration) value {
		s := load(ctx, len(conns), d, 1<<40, func(ctx context.Context, client int) error {
			return conns[client].write(ctx, "")
		})
		return s.value()
	}
	mint(ctx, min(time.Second, b.duration))
	quiet := mint(ctx, b.duration)

	busy := make(chan value, 1)
	during, end := context.WithCancel(ctx)
	go func() { busy <- mint(during, rotationLimit) }()
	begin := time.Now()
	err = rotateKey(ctx, c.admin[leader])
	took := time.Since(begin)
	end()
	writes := <-busy
	if err != nil {
		return err
	}
	b.add(ctx, fmt.Sprintf("rotation: %d secrets re-encrypted, %d clients writing", b.secrets, rotationClients),
		"s", true, outcome{"muster": {Value: took.Seconds(), N: b.secrets}}, below(10, "s"))
	b.report.note("rotation: meanwhile %d writes, %d failed; p99 %.1f ms, max %.1f ms (before: %.1f and %.1f ms)",
		writes.N, writes.Failed, writes.P99, writes.Max, quiet.P99, quiet.Max)
	return nil
}

// putSecrets stores n secrets over all connections.
func putSecrets(ctx context.Context, conns []*musterConn, n int) error {
	var next atomic.Int64
	put := load(ctx, len(conns), rotationLimit, int64(n), func(ctx context.Context, client int) error {
		path := fmt.Sprintf("/api/v1/cluster/secrets/bench-%d", next.Add(1))
		return conns[client].call(ctx, "PUT", path, `{"value":"`+newKey()+`"}`, "", nil)
	})
	if put.failed > 0 || len(put.good) < n {
		return fmt.Errorf("%d of %d secrets were stored: %w", len(put.good), n, put.err)
	}
	return nil
}

// rotateKey makes a new data-encryption key, and blocks until the old generation is retired.
func rotateKey(ctx context.Context, admin *musterConn) error {
	if err := admin.call(ctx, "POST", "/api/v1/cluster/keys/rotate", "", "", nil); err != nil {
		return err
	}
	return eventually(ctx, rotationLimit, func(ctx context.Context) error {
		var list struct{ Result []struct{ State string } }
		if err := admin.call(ctx, "GET", "/api/v1/cluster/keys", "", "", &list); err != nil {
			return err
		}
		if n := len(list.Result); n < 2 || list.Result[n-2].State != "retired" {
			return errors.New("the old generation is not retired")
		}
		return nil
	})
}
