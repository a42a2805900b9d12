package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// handover moves leadership on purpose while one writer per member keeps writing, and looks for the longest time any of
// them had to wait between two answers. Where muster does not answer the call, its leader gets SIGTERM instead.
func (b *bench) handover(ctx context.Context) {
	out := outcome{}
	for _, s := range b.systems {
		gaps, usual, how, err := b.handovers(ctx, s)
		if len(gaps) == 0 {
			out.fail(s, err)
			continue
		}
		v := value{}
		v.latencies(gaps)
		v.Value = v.Max
		if err != nil {
			v.Error = fmt.Sprintf("ended after %d of %d: %v", len(gaps), b.transfers, err)
		}
		out.set(s.name(), v)
		b.report.note("hand-over, %s: %d %s, longest gap p50 %.0f, max %.0f ms; without one %.0f ms", s.name(), v.N, how, v.P50, v.Max, milliseconds(quantile(sorted(usual), 1)))
	}
	b.report.add("hand-over: longest gap of a writer", "ms", true, out, below(100, "ms"))
}

func (b *bench) handovers(ctx context.Context, s system) (gaps, usual []time.Duration, how string, err error) {
	c, err := s.start(ctx, b.fleet)
	if err != nil {
		return nil, nil, "", err
	}
	defer stop(c)
	how = "transfers"
	for i := 0; i < b.transfers; i++ {
		from, err := findLeader(ctx, c)
		if err != nil {
			return gaps, usual, how, err
		}
		to := (from + 1 + i%2) % members
		act, on := func() error { return c.transfer(ctx, from, to) }, []int{0, 1, 2}
		if how != "transfers" {
			act, on = func() error { c.processes()[from].terminate(10 * time.Second); return nil }, []int{(from + 1) % members, (from + 2) % members}
		}
		before, after, err := gap(ctx, c, on, act)
		switch {
		case err != nil && how == "transfers" && i == 0 && s.name() == "muster":
			b.report.note("hand-over, muster: transfer-leadership failed (%v): SIGTERM of the leader instead", err)
			how, i = "SIGTERMs of the leader", -1
			continue
		case err != nil:
			return gaps, usual, how, err
		}
		usual, gaps = append(usual, before), append(gaps, after)
		if c.processes()[from].gone() != nil {
			err = c.processes()[from].start()
		}
		if err == nil {
			err = allCaughtUp(ctx, c)
		}
		if now, _ := findLeader(ctx, c); err == nil && now == from {
			err = fmt.Errorf("the leader is the same as before")
		}
		if err != nil {
			return gaps, usual, how, err
		}
	}
	return gaps, usual, how, nil
}

// gap is the longest time between two answers that any of the writers saw in the second before, and in the time after,
// act began.
func gap(ctx context.Context, c cluster, on []int, act func() error) (before, after time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	var (
		wait  sync.WaitGroup
		times = make([][]time.Time, len(on))
	)
	for i, member := range on {
		others := append([]int{member}, on[(i+1)%len(on)])
		w, err := newWriter(c, others...)
		if err != nil {
			cancel()
			wait.Wait()
			return 0, 0, err
		}
		wait.Go(func() {
			defer w.close()
			w.run(ctx, func(_, answered time.Time) { times[i] = append(times[i], answered) })
		})
	}
	pause(ctx, 200*time.Millisecond) // connections are made
	begin := time.Now()
	pause(ctx, time.Second)
	acted := time.Now()
	err = act()
	pause(ctx, time.Second)
	end := time.Now()
	cancel()
	wait.Wait()
	for _, answers := range times {
		before = max(before, longest(answers, begin, acted))
		after = max(after, longest(answers, acted, end))
	}
	return before, after, err
}

// longest is the longest time without an answer that overlaps the time from one moment to another.
func longest(answers []time.Time, from, to time.Time) (longest time.Duration) {
	last := from
	for _, t := range answers {
		if t.After(from) && last.Before(to) {
			longest = max(longest, t.Sub(last))
		}
		if t.After(last) || t.Before(from) {
			last = t
		}
	}
	if last.Before(to) {
		longest = max(longest, to.Sub(last))
	}
	return longest
}
