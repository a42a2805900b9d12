package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const attemptLimit = 250 * time.Millisecond // of one try of one write, while leaders change

// failover kills the leader with SIGKILL, again and again, while one writer per survivor keeps writing. What counts is
// the time from the kill to the first answer of a try that began after it.
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
	b.report.add("fail-over: SIGKILL of the leader to the next write, p99", "ms", true, out, below(1000, "ms"))
}

func (b *bench) killLeaders(ctx context.Context, s system, kills int) (times []time.Duration, err error) {
	c, err := s.start(ctx, b.fleet)
	if err != nil {
		return nil, err
	}
	defer stop(c)
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
		victim := c.processes()[leader]
		if err := victim.start(); err != nil {
			return times, err
		}
		if err := allCaughtUp(ctx, c); err != nil {
			return times, fmt.Errorf("after its restart: %w", err)
		}
	}
	return times, nil
}

func killOne(ctx context.Context, c cluster, leader int) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	survivors := []int{(leader + 1) % members, (leader + 2) % members}
	type answer struct{ asked, answered time.Time }
	answers := make(chan answer, 1<<16)
	var wait sync.WaitGroup
	defer wait.Wait()
	for i := range survivors {
		w, err := newWriter(c, survivors[i], survivors[1-i])
		if err != nil {
			cancel()
			return 0, err
		}
		wait.Go(func() {
			defer w.close()
			w.run(ctx, func(asked, answered time.Time) {
				select {
				case answers <- answer{asked, answered}:
				default:
				}
			})
		})
	}
	defer cancel() // before the wait
	pause(ctx, 500*time.Millisecond)
	killed := time.Now()
	c.processes()[leader].kill()
	for {
		select {
		case a := <-answers:
			if a.asked.After(killed) {
				return a.answered.Sub(killed), nil
			}
		case <-ctx.Done():
			return 0, fmt.Errorf("no write was answered within 30 s of the kill")
		}
	}
}

// writer writes in a loop; a try that fails is repeated at the next member with the same key.
type writer struct {
	conns []conn
	first error // the first failure, for the curious
}

func newWriter(c cluster, on ...int) (*writer, error) {
	w := &writer{}
	for _, member := range on {
		connection, err := c.dial(member)
		if err != nil {
			w.close()
			return nil, err
		}
		w.conns = append(w.conns, connection)
	}
	return w, nil
}

// run writes until ctx ends and reports each answered write, with the time at which its last try began.
func (w *writer) run(ctx context.Context, done func(asked, answered time.Time)) {
	for at := 0; ctx.Err() == nil; {
		for key := newKey(); ctx.Err() == nil; at++ {
			asked := time.Now()
			once, cancel := context.WithTimeout(ctx, attemptLimit)
			err := w.conns[at%len(w.conns)].write(once, key)
			cancel()
			if err == nil {
				done(asked, time.Now())
				break
			}
			if w.first == nil {
				w.first = err
			}
			pause(ctx, 5*time.Millisecond)
		}
	}
}

func (w *writer) close() {
	for _, c := range w.conns {
		c.close()
	}
}
