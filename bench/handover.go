package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// handover transfers leadership while one plain client per member keeps writing. It measures two gaps: the longest time
// without any answer, and the longest wait of one client.
func (b *bench) handover(ctx context.Context) {
	anybody, oneClient := outcome{}, outcome{}
	for _, s := range b.systems {
		gaps, how, err := b.handovers(ctx, s)
		if len(gaps) == 0 {
			anybody.fail(s, err)
			continue
		}
		var all, one, usual []time.Duration
		for _, g := range gaps {
			all, one, usual = append(all, g.anybody), append(one, g.oneClient), append(usual, g.usual)
		}
		v, w, u := value{}, value{}, value{}
		v.latencies(all)
		w.latencies(one)
		u.latencies(usual)
		v.Value, w.Value = v.Max, w.Max
		if err != nil {
			v.Error = fmt.Sprintf("ended after %d of %d: %v", len(gaps), b.transfers, err)
		}
		anybody.set(s.name(), v)
		oneClient.set(s.name(), w)
		b.report.note("hand-over, %s: %d times by %s; longest wait of a client p50 %.0f, max %.0f ms; in the second before "+
			"each, max %.0f ms",
			s.name(), v.N, how, w.P50, w.Max, u.Max)
	}
	b.add(ctx, "hand-over: longest time without any answered write", "ms", true, anybody, below(100, "ms"))
	b.add(ctx, fmt.Sprintf("hand-over: longest wait of one client (retry after %v)", tryLimit), "ms", true, oneClient,
		below(100, "ms"))
}

const byTransfer, bySignal = "transfer of leadership", "SIGTERM of the leader"

func (b *bench) handovers(ctx context.Context, s system) (gaps []gap, how string, err error) {
	how = byTransfer
	c, err := s.start(ctx, b.fleet)
	if err != nil {
		return nil, how, err
	}
	defer stop(c)
	for i := range b.transfers {
		g, err := moveLeader(ctx, c, how, i)
		if err != nil && how == byTransfer && len(gaps) == 0 && s.name() == "muster" {
			b.report.note("hand-over, muster: the transfer failed (%v): SIGTERM instead", err)
			how = bySignal
			g, err = moveLeader(ctx, c, how, i)
		}
		if err != nil {
			return gaps, how, err
		}
		gaps = append(gaps, g)
	}
	return gaps, how, nil
}

type gap struct{ usual, anybody, oneClient time.Duration }

// moveLeader transfers leadership once and waits until all members are healthy again.
func moveLeader(ctx context.Context, c cluster, how string, round int) (gap, error) {
	from, err := findLeader(ctx, c)
	if err != nil {
		return gap{}, err
	}
	to, on := (from+1+round%2)%members, []int{0, 1, 2}
	act := func() error { return c.transfer(ctx, from, to) }
	if how == bySignal {
		on = slices.Delete(on, from, from+1)
		act = func() error { c.processes()[from].terminate(10 * time.Second); return nil }
	}
	g, err := watch(ctx, c, on, act)
	if how == bySignal {
		err = errors.Join(err, c.processes()[from].start())
	}
	if err != nil {
		return g, err
	}
	if err := allCaughtUp(ctx, c); err != nil {
		return g, err
	}
	if now, err := findLeader(ctx, c); err != nil || now == from {
		return g, fmt.Errorf("the leader is the same as before (%v)", err)
	}
	return g, nil
}

// watch lets one client per member write, from a second before act until a second after it.
func watch(ctx context.Context, c cluster, on []int, act func() error) (gap, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel()
	answers := make([][]time.Time, len(on))
	for i := range on {
		w, err := newWriter(c, on[i], on[(i+1)%len(on)])
		if err != nil {
			return gap{}, err
		}
		clients.Go(func() { w.run(ctx, func(t time.Time) { answers[i] = append(answers[i], t) }) })
	}
	pause(ctx, 200*time.Millisecond) // connections are made
	before := time.Now()
	pause(ctx, time.Second)
	begin := time.Now()
	err := act()
	pause(ctx, tryLimit+500*time.Millisecond)
	end := time.Now()
	cancel()
	clients.Wait()
	var g gap
	for _, a := range answers {
		g.usual = max(g.usual, longest(a, before, begin))
		g.oneClient = max(g.oneClient, longest(a, begin, end))
	}
	everybody := slices.Concat(answers...)
	slices.SortFunc(everybody, time.Time.Compare)
	g.anybody = longest(everybody, begin, end)
	return g, err
}

// longest returns the longest time without an answer between two moments; a gap that began before counts from its
// beginning. The answers are in order.
func longest(answers []time.Time, from, to time.Time) (gap time.Duration) {
	last := from
	for _, t := range answers {
		if t.After(to) {
			break
		}
		if t.After(from) {
			gap = max(gap, t.Sub(last))
		}
		last = t
	}
	return max(gap, to.Sub(last))
}
