package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	eventReaders = 1000
	eventWriters = 4
	eventPause   = 40 * time.Millisecond // of each writer between two writes: about 100 writes a second
)

// events measures the cost of 1 000 readers of the leader's stream for writers, and the delay of events. Writers are
// paced, because every event goes to every reader, and the readers share this machine.
func (b *bench) events(ctx context.Context) {
	out := outcome{}
	if b.muster == nil {
		return
	}
	started, err := b.muster.start(ctx, b.fleet)
	if err != nil {
		out.fail(b.muster, err)
		b.add(ctx, "events", "ms", true, out, nil)
		return
	}
	c := started.(*musterCluster)
	defer stop(c)
	leader, err := findLeader(ctx, c)
	if err != nil {
		out.fail(b.muster, err)
		b.add(ctx, "events", "ms", true, out, nil)
		return
	}
	var conns []*musterConn
	for range eventWriters {
		conns = append(conns, c.connect(leader, false))
	}
	write := func() sample {
		return load(ctx, eventWriters, b.duration/2, 1<<20, func(ctx context.Context, client int) error {
			defer time.Sleep(eventPause)
			return conns[client].write(ctx, "")
		})
	}
	write() // warm up
	var without, with sample
	crowd := &crowd{}
	for range b.rounds {
		without.add(write())
		if err := crowd.open(ctx, c, leader); err != nil {
			b.report.note("events: %v", err)
			crowd.close()
			return
		}
		before := crowd.got.Load()
		with.add(write())
		if got := crowd.got.Load() - before; got < int64(len(with.good)) {
			b.report.note("events: the readers have got %d events only", got)
		}
		if rss := c.procs[leader].rss() / 1e6; b.report.Machine["events"] == "" {
			b.report.Machine["events"] = "measured"
			b.report.note("events: RSS of the leader with %d readers: %.0f MB", eventReaders, rss)
		}
		crowd.close()
	}
	v, w := without.value(), with.value()
	// A writer's pause is not part of its latency: the operation's time includes it, so take it off.
	for _, x := range []*value{&v, &w} {
		x.P50, x.P99, x.Max = x.P50-milliseconds(eventPause), x.P99-milliseconds(eventPause), x.Max-milliseconds(eventPause)
		x.Value = x.P50
	}
	b.add(ctx, "events: latency of a write, no readers, p50", "ms", true, outcome{"muster": &v}, nil)
	b.add(ctx, fmt.Sprintf("events: latency of a write, %d readers, p50", eventReaders), "ms", true,
		outcome{"muster": &w}, below(v.P50*1.2, "ms"))
}

// crowd is many readers of one member's stream.
type crowd struct {
	got    atomic.Int64 // events received by all readers
	cancel context.CancelFunc
	done   sync.WaitGroup
}

func (x *crowd) open(ctx context.Context, c *musterCluster, member int) error {
	ctx, x.cancel = context.WithCancel(ctx)
	failed := make(chan error, eventReaders)
	var begun sync.WaitGroup
	slots := make(chan struct{}, 16) // handshakes at a time
	for range eventReaders {
		begun.Add(1)
		x.done.Go(func() {
			slots <- struct{}{}
			t := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: c.roots}}
			defer t.CloseIdleConnections()
			req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+c.apis[member]+"/api/v1/events", nil)
			req.Header.Set("Authorization", "Bearer "+c.token)
			resp, err := t.RoundTrip(req)
			<-slots
			begun.Done()
			if err == nil && resp.StatusCode != http.StatusOK {
				err = fmt.Errorf("the stream is refused: %s", resp.Status)
			}
			if err != nil {
				failed <- err
				return
			}
			defer resp.Body.Close()
			for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
				if strings.HasPrefix(lines.Text(), "data: ") {
					x.got.Add(1)
				}
			}
		})
	}
	begun.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

func (x *crowd) close() {
	x.cancel()
	x.done.Wait()
}
