package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const probeEvery, probeLimit = 20 * time.Millisecond, 2 * time.Second

// failover kills the leader with SIGKILL, again and again, while clients write at the survivors.
func (b *bench) failover(ctx context.Context) {
	out := outcome{}
	for _, s := range b.systems {
		kills := b.kills
		if s.name() == "etcd" {
			kills = min(kills, b.etcdKills)
		}
		times, err := b.killLeaders(ctx, s, kills)
		if len(times) == 0 {
			out.fail(s, err)
			continue
		}
		v := value{}
		v.latencies(times)
		v.Value = v.P99
		if err != nil {
			v.Error = fmt.Sprintf("ended after %d of %d kills: %v", len(times), kills, err)
		}
		out.set(s.name(), v)
		b.report.note("fail-over, %s: %d kills, p50 %.0f, p99 %.0f, max %.0f ms", s.name(), v.N, v.P50, v.P99, v.Max)
	}
	b.add(ctx, "fail-over: SIGKILL of the leader to the next answered write, p99", "ms", true, out, below(1000, "ms"))
}

func (b *bench) killLeaders(ctx context.Context, s system, kills int) (times []time.Duration, err error) {
	c, err := s.start(ctx, b.fleet)
	if err != nil {
		return nil, err
	}
	defer stop(c)
	return killInTurn(ctx, c, kills)
}

// killInTurn kills whoever leads, so many times, and starts it again each time.
func killInTurn(ctx context.Context, c cluster, kills int) (times []time.Duration, err error) {
	for range kills {
		leader, err := findLeader(ctx, c)
		if err != nil {
			return times, err
		}
		took, err := killOne(ctx, c, leader)
		if err != nil {
			return times, err
		}
		times = append(times, took)
		if err := c.processes()[leader].start(); err != nil {
			return times, err
		}
		if err := allCaughtUp(ctx, c); err != nil {
			return times, fmt.Errorf("after kill %d: %w", len(times), err)
		}
	}
	return times, nil
}

// killOne kills the leader in the midst of writes and tells how long it takes until a write that began after the kill
// is answered.
func killOne(ctx context.Context, c cluster, leader int) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	survivors := []int{(leader + 1) % members, (leader + 2) % members}
	var background sync.WaitGroup
	defer background.Wait()
	defer cancel()
	for i := range survivors {
		w, err := newWriter(c, survivors[i], survivors[1-i])
		if err != nil {
			return 0, err
		}
		background.Go(func() { w.run(ctx, func(time.Time) {}) })
	}
	pause(ctx, 500*time.Millisecond)
	probes := make([]conn, len(survivors))
	for i, member := range survivors {
		var err error
		if probes[i], err = c.dial(member, true); err != nil {
			return 0, err
		}
		defer probes[i].close()
	}
	killed := time.Now()
	c.processes()[leader].kill()
	answered, err := probe(ctx, probes)
	return answered.Sub(killed), err
}

// probe makes one write, asking every survivor again each 20 ms with the same key until one of them answers. So a try
// that hangs hides nothing, and how soon a client gives up a try does not show in the result.
func probe(ctx context.Context, survivors []conn) (answered time.Time, err error) {
	ctx, cancel := context.WithCancel(ctx)
	var tries sync.WaitGroup
	defer tries.Wait()
	defer cancel()
	answers := make(chan time.Time, 1)
	refused := make(chan error, 1)
	key := newKey()
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		for _, s := range survivors {
			tries.Go(func() {
				once, cancel := context.WithTimeout(ctx, probeLimit)
				defer cancel()
				if err := s.write(once, key); err != nil {
					offer(refused, err)
				} else {
					offer(answers, time.Now())
				}
			})
		}
		select {
		case t := <-answers:
			return t, nil
		case <-tick.C:
		case <-ctx.Done():
			select {
			case err = <-refused:
			default:
			}
			return answered, fmt.Errorf("no write was answered within 30 s of the kill; one try: %v", err)
		}
	}
}

// offer sends unless the channel is full.
func offer[T any](to chan T, v T) {
	select {
	case to <- v:
	default:
	}
}
