package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"syscall"
	"time"
)

const probeEvery, probeLimit = 20 * time.Millisecond, 2 * time.Second

// loss is a way to lose the leader in the midst of writes. What is measured is how long it takes until a write that
// began after it is answered.
type loss struct {
	what  string
	times int     // at most
	limit float64 // ms
	hurt  func(c cluster, leader int) error
	mend  func(c cluster, leader int) error
	left  func(leader int) []int // members that are asked afterwards
	cuts  bool                   // the members are behind relays
}

var losses = []loss{
	{
		what:  "SIGKILL of the leader",
		times: math.MaxInt,
		limit: 850,
		hurt:  func(c cluster, leader int) error { c.processes()[leader].kill(); return nil },
		mend:  func(c cluster, leader int) error { return c.processes()[leader].start() },
		left:  others,
	},
	{
		what:  "SIGSTOP of the leader",
		times: 10,
		limit: 1500,
		hurt:  func(c cluster, leader int) error { return c.processes()[leader].signal(syscall.SIGSTOP) },
		mend:  func(c cluster, leader int) error { return c.processes()[leader].signal(syscall.SIGCONT) },
		left:  others,
	},
	isolation("isolation of the leader", true, true),
	isolation("cut from the leader to the others", true, false),
	isolation("cut from the others to the leader", false, true),
	{
		what:  "SIGKILL of all and their start",
		times: 5,
		limit: 3000,
		hurt:  killAll,
		mend:  func(cluster, int) error { return nil },
		left:  func(leader int) []int { return append(others(leader), leader) },
	},
}

func others(leader int) []int { return []int{(leader + 1) % members, (leader + 2) % members} }

// isolation loses the leader by the network: what it sends to the others does not arrive, or what they send to it, or
// both.
func isolation(what string, from, to bool) loss {
	return loss{
		what:  what,
		times: 10,
		limit: 1500,
		hurt:  func(c cluster, leader int) error { c.links().set(leader, from, to); return nil },
		mend:  func(c cluster, leader int) error { c.links().set(leader, false, false); return nil },
		left:  others,
		cuts:  true,
	}
}

// killAll kills all members and starts them again.
func killAll(c cluster, _ int) error {
	all := c.processes()
	for _, p := range all {
		p.kill()
	}
	for _, p := range all {
		if err := p.start(); err != nil {
			return err
		}
	}
	return nil
}

// failover loses the leader again and again, in each way, while clients write at the others.
func (b *bench) failover(ctx context.Context) {
	for _, l := range losses {
		out := outcome{}
		for _, s := range b.systems {
			times := min(b.kills, l.times)
			if s.name() == "etcd" {
				times = min(times, b.etcdKills)
			}
			took, err := b.lose(ctx, s, &l, times)
			if len(took) == 0 {
				out.fail(s, err)
				continue
			}
			v := value{}
			v.latencies(took)
			v.Value = v.P99
			if err != nil {
				v.Error = fmt.Sprintf("ended after %d of %d times: %v", len(took), times, err)
			}
			out.set(s.name(), v)
			b.report.note("fail-over, %s, %s: %d times, p50 %.0f, p99 %.0f, max %.0f ms", l.what, s.name(), v.N, v.P50, v.P99,
				v.Max)
		}
		b.add(ctx, "fail-over: "+l.what+" to the next answered write, p99", "ms", true, out, below(l.limit, "ms"))
	}
}

func (b *bench) lose(ctx context.Context, s system, l *loss, times int) (took []time.Duration, err error) {
	ctx, cancel := context.WithCancel(ctx) // ends the relays
	defer cancel()
	if l.cuts {
		s = relayed(s)
	}
	c, err := s.start(ctx, b.fleet)
	if err != nil {
		return nil, err
	}
	defer stop(c)
	return l.inTurn(ctx, c, times)
}

// inTurn loses whoever leads, so many times.
func (l *loss) inTurn(ctx context.Context, c cluster, times int) (took []time.Duration, err error) {
	for range times {
		leader, err := findLeader(ctx, c)
		if err != nil {
			return took, err
		}
		t, err := l.once(ctx, c, leader)
		if err != nil {
			return took, err
		}
		took = append(took, t)
		if err := allCaughtUp(ctx, c); err != nil {
			return took, fmt.Errorf("after %d times: %w", len(took), err)
		}
	}
	return took, nil
}

// once loses the leader, measures, and mends what it has done.
func (l *loss) once(ctx context.Context, c cluster, leader int) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	survivors := others(leader)
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
	var probes []conn
	for _, member := range l.left(leader) {
		p, err := c.dial(member, true)
		if err != nil {
			return 0, err
		}
		defer p.close()
		probes = append(probes, p)
	}
	lost := time.Now()
	if err := l.hurt(c, leader); err != nil {
		return 0, err
	}
	answered, err := probe(ctx, probes)
	return answered.Sub(lost), errors.Join(err, l.mend(c, leader))
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
			return answered, fmt.Errorf("no write was answered within 30 s of the loss; one try: %v", err)
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
