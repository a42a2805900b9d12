package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// sample is the result of one or more runs of a load.
type sample struct {
	took   time.Duration   // wall time
	good   []time.Duration // latency of each successful operation
	failed int
	err    error         // the first failure
	cpu    time.Duration // of the three servers
	commit commits       // of the leader, meanwhile
}

func (s *sample) add(o sample) {
	s.took += o.took
	s.cpu += o.cpu
	s.commit.add(o.commit)
	s.good = append(s.good, o.good...)
	s.failed += o.failed
	if s.err == nil {
		s.err = o.err
	}
}

// load runs op in a closed loop in each of clients goroutines, until d has passed or limit operations were begun. It
// waits for unfinished operations at the end and does not count them.
func load(ctx context.Context, clients int, d time.Duration, limit int64,
	op func(ctx context.Context, client int) error) sample {
	var (
		begun atomic.Int64
		wait  sync.WaitGroup
		parts = make([]sample, clients)
		start = time.Now()
		end   = start.Add(d)
	)
	for i := range parts {
		wait.Go(func() {
			part := &parts[i]
			for ctx.Err() == nil && begun.Add(1) <= limit {
				t := time.Now()
				if t.After(end) {
					return
				}
				once, cancel := context.WithTimeout(ctx, 10*time.Second)
				err := op(once, i)
				cancel()
				now := time.Now()
				switch {
				case err != nil && ctx.Err() == nil:
					part.failed++
					part.err = err
					time.Sleep(10 * time.Millisecond) // do not spin against a server that refuses at once
				case err == nil && now.Before(end):
					part.good = append(part.good, now.Sub(t))
				}
			}
		})
	}
	wait.Wait()
	sum := sample{took: min(time.Since(start), d)}
	for _, p := range parts {
		sum.add(p)
	}
	return sum
}

// value converts a sample to operations per second with their latencies.
func (s *sample) value() value {
	v := value{N: len(s.good), Failed: s.failed, Value: float64(len(s.good)) / s.took.Seconds()}
	v.latencies(s.good)
	if len(s.good) > 0 {
		v.CPU = float64(s.cpu.Microseconds()) / float64(len(s.good))
	}
	s.commit.describe(&v, s.took)
	if s.err != nil {
		v.Error = fmt.Sprintf("%d failed, such as: %v", s.failed, s.err)
	}
	return v
}

// quantile returns a quantile of sorted values; 0 without values.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func sorted(d []time.Duration) []time.Duration {
	d = slices.Clone(d)
	slices.Sort(d)
	return d
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// job is a load for all systems.
type job struct {
	clients int
	member  func(context.Context, cluster) (int, error) // the member that the clients connect to
	op      func(context.Context, conn) error
	writes  bool // op is a write, which the engine alone supports, too
}

// transactor is a conn that does the work of many clients in one transaction.
type transactor interface {
	transaction(ctx context.Context, n int) error
}

// committer is a cluster that counts its commits.
type committer interface {
	commits(ctx context.Context) (commits, error)
}

// yardsticks returns the systems that support a job.
func (b *bench) yardsticks(j job) (list []system) {
	for _, s := range slices.Concat(b.systems, b.beside) {
		if _, engine := s.(engineSystem); !engine || j.writes {
			list = append(list, s)
		}
	}
	return list
}

// throughput runs the job on the shared clusters in turns, so that other work on the machine affects all of them.
func (b *bench) throughput(ctx context.Context, j job) outcome {
	var (
		out   = outcome{}
		sums  = make(map[string]*sample)
		runs  = make(map[string]func(time.Duration) sample)
		slice = b.duration / time.Duration(b.rounds)
	)
	systems := b.yardsticks(j)
	for _, s := range systems {
		run, closeAll, err := b.prepare(ctx, s, j)
		if err != nil {
			out.fail(s, err)
			continue
		}
		defer closeAll()
		run(min(time.Second, b.duration)) // warm up
		runs[s.name()], sums[s.name()] = run, &sample{}
	}
	for range b.rounds {
		for _, s := range systems {
			if run := runs[s.name()]; run != nil {
				sums[s.name()].add(run(slice))
			}
		}
	}
	for name, sum := range sums {
		out.set(name, sum.value())
	}
	return out
}

// prepare connects the clients of a job.
func (b *bench) prepare(ctx context.Context, s system, j job) (run func(time.Duration) sample, closeAll func(),
	err error) {
	c, err := b.shared(ctx, s)
	if err != nil {
		return nil, nil, err
	}
	return b.connect(ctx, s, c, j)
}

// connect makes the connections of a job's clients to a cluster of that system.
func (b *bench) connect(ctx context.Context, s system, c cluster, j job) (run func(time.Duration) sample,
	closeAll func(), err error) {
	member, err := j.member(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	conns := make([]conn, b.connections(s, j.clients))
	for i := range conns {
		if conns[i], err = c.dial(member, len(conns) < j.clients); err != nil {
			return nil, nil, err
		}
	}
	clients, op := j.clients, func(ctx context.Context, client int) error {
		return j.op(ctx, conns[client%len(conns)])
	}
	if t, ok := conns[0].(transactor); ok {
		clients, op = 1, func(ctx context.Context, _ int) error { return t.transaction(ctx, j.clients) }
	}
	run = func(d time.Duration) sample {
		before := countCommits(ctx, c) // its CPU is not part of the load
		cpu := totalCPU(c.processes())
		sum := load(ctx, clients, d, 1<<20, op)
		sum.cpu = totalCPU(c.processes()) - cpu
		sum.commit = countCommits(ctx, c).since(before)
		if clients < j.clients { // each transaction was that many operations
			sum.good = slices.Concat(slices.Repeat([][]time.Duration{sum.good}, j.clients)...)
		}
		return sum
	}
	closeAll = func() {
		for _, c := range conns {
			c.close()
		}
	}
	return run, closeAll, nil
}
