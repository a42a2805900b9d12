package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"time"
)

// latency measures the cost of distance between members: every byte between them takes the given time, one way. It
// measures muster alone, and runs only when named in -only. Clients sit beside the contacted member.
func (b *bench) latency(ctx context.Context) {
	if b.muster == nil {
		return
	}
	for _, delay := range b.delays {
		if err := b.apart(ctx, delay); err != nil && ctx.Err() == nil {
			b.report.note("members %v apart: %v", delay, err)
			b.report.failed = true
		}
	}
}

// apart measures a new cluster with this delay between its members.
func (b *bench) apart(ctx context.Context, delay time.Duration) error {
	ctx, cancel := context.WithCancel(ctx) // ends the relays
	defer cancel()
	system := *b.muster
	system.delay = delay
	system.flags = append(slices.Clone(system.flags), "--network-latency", max(delay, defaultLatency).String())
	c, err := system.start(ctx, b.fleet)
	if err != nil {
		return err
	}
	defer stop(c)
	write := func(ctx context.Context, c conn) error { return c.write(ctx, "") }
	read := func(ctx context.Context, c conn) error { return c.read(ctx, "/api/v1/cluster/members/1") }
	for _, m := range []struct {
		what string
		job  job
	}{
		{"writes at the leader", job{clients: 1, member: findLeader, op: write}},
		{"writes at the leader", job{clients: 64, member: findLeader, op: write}},
		{"writes at a follower", job{clients: 64, member: findFollower, op: write}},
		{"reads at the leader", job{clients: 1, member: findLeader, op: read}},
		{"reads at the leader", job{clients: 64, member: findLeader, op: read}},
	} {
		run, closeAll, err := b.connect(ctx, &system, c, m.job)
		if err != nil {
			return err
		}
		run(min(time.Second, b.duration))
		sum := run(b.duration)
		closeAll()
		v := sum.value()
		b.add(ctx, fmt.Sprintf("members %v apart: %s, %d clients", delay, m.what, m.job.clients), "/s", false,
			outcome{"muster": &v}, nil)
	}
	times, err := losses[0].inTurn(ctx, c, b.kills)
	v := value{}
	v.latencies(times)
	v.Value = v.Max
	if err != nil {
		v.Error = err.Error()
	}
	b.add(ctx, fmt.Sprintf("members %v apart: fail-over, the longest of %d", delay, len(times)), "ms", true,
		outcome{"muster": &v}, nil)
	return nil
}

const defaultLatency = 24 * time.Millisecond // of --network-latency

// way is what a relay does with the bytes that it forwards.
type way struct {
	delay time.Duration
	// hold returns the functions that wait before a piece is forwarded: to the member behind the relay, and back. nil:
	// nothing waits.
	hold func(net.Conn) (to, back func(), err error)
}

// relay accepts connections and forwards their bytes, delayed in each direction.
func relay(ctx context.Context, from, to string, w way) error {
	l, err := net.Listen("tcp", from)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer in.Close()
				there, back := func() {}, func() {}
				if w.hold != nil {
					if there, back, err = w.hold(in); err != nil {
						return // the dialer is gone, or tries again
					}
				}
				out, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				defer out.Close()
				context.AfterFunc(ctx, func() { in.Close() })
				ended := make(chan struct{}, 2)
				go func() { later(out, in, w.delay, there); ended <- struct{}{} }()
				go func() { later(in, out, w.delay, back); ended <- struct{}{} }()
				<-ended
			}()
		}
	}()
	return nil
}

// later copies each piece after the delay, and once hold returns.
func later(to io.Writer, from io.Reader, delay time.Duration, hold func()) {
	type piece struct {
		data []byte
		due  time.Time
	}
	pieces := make(chan piece, 1<<12)
	go func() {
		defer close(pieces)
		for {
			buffer := make([]byte, 32<<10)
			n, err := from.Read(buffer)
			if n > 0 {
				pieces <- piece{buffer[:n], time.Now().Add(delay)}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range pieces {
		time.Sleep(time.Until(p.due))
		hold()
		if _, err := to.Write(p.data); err != nil {
			go func() { // drain the rest in the background
				for range pieces {
				}
			}()
			return
		}
	}
}
