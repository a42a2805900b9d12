package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

const (
	snapshotSecrets = 800 // of 64 KiB each: a database of 50 MB
	snapshotSecret  = 64 << 10
	snapshotPath    = "/v1/operator/snapshot"
)

// snapshotFigures are the rows of the snapshot part.
type snapshotFigures struct{ alone, during, saves, restore, memory outcome }

// snapshot measures a database of 50 MB: the duration of a snapshot, its cost for concurrent writers, and the duration
// of a restore after many changes. It measures muster alone.
func (b *bench) snapshot(ctx context.Context) {
	if b.muster == nil {
		return
	}
	f := snapshotFigures{outcome{}, outcome{}, outcome{}, outcome{}, outcome{}}
	defer func() {
		b.add(ctx, "snapshot: 50 MB database, saving it", "s", true, f.saves, nil)
		b.add(ctx, "snapshot: 64 writers without one", "/s", false, f.alone, nil)
		b.add(ctx, "snapshot: 64 writers while snapshots stream", "/s", false, f.during, nil)
		b.add(ctx, "snapshot: RSS of the leader while they do", "MB", true, f.memory, nil)
		b.add(ctx, "snapshot: restoring 25 MB of changes", "s", true, f.restore, nil)
	}()
	started, err := b.muster.start(ctx, b.fleet)
	if err != nil {
		f.saves.fail(b.muster, err)
		return
	}
	defer stop(started)
	c := started.(*musterCluster)
	leader, err := findLeader(ctx, c)
	if err != nil {
		f.saves.fail(b.muster, err)
		return
	}
	file := filepath.Join(c.dir, "snapshot")
	if err := b.saveWhileWriting(ctx, c, leader, file, f); err != nil {
		f.saves.fail(b.muster, err)
		return
	}
	if err := c.fill(ctx, leader, snapshotSecrets/2); err != nil {
		f.restore.fail(b.muster, err)
		return
	}
	begin := time.Now()
	if err := c.restore(ctx, leader, file); err != nil {
		f.restore.fail(b.muster, err)
		return
	}
	f.restore.set("muster", value{Value: time.Since(begin).Seconds()})
}

// saveWhileWriting fills the database, then saves snapshots to a file while clients write.
func (b *bench) saveWhileWriting(ctx context.Context, c *musterCluster, leader int, file string,
	f snapshotFigures) error {
	if err := c.fill(ctx, leader, snapshotSecrets); err != nil {
		return err
	}
	conns := make([]*musterConn, 64)
	for i := range conns {
		conns[i] = c.connect(leader, false)
		defer conns[i].close()
	}
	write := func() value {
		s := load(ctx, len(conns), b.duration, 1<<20, func(ctx context.Context, i int) error {
			return conns[i].write(ctx, "")
		})
		return s.value()
	}
	write() // warm up
	f.alone.set("muster", write())

	var (
		took   []time.Duration
		failed error
		done   atomic.Bool
		wait   sync.WaitGroup
	)
	wait.Go(func() {
		for !done.Load() && failed == nil {
			begin := time.Now()
			failed = c.save(ctx, leader, file)
			took = append(took, time.Since(begin))
		}
	})
	v := write()
	rss := c.procs[leader].rss()
	done.Store(true)
	wait.Wait()
	if failed != nil {
		return failed
	}
	f.during.set("muster", v)
	f.memory.set("muster", value{Value: rss / 1e6})
	s := value{}
	s.latencies(took)
	s.Value = s.P50 / 1000
	f.saves.set("muster", s)
	return nil
}

// fill stores random secrets.
func (c *musterCluster) fill(ctx context.Context, leader, n int) error {
	var next atomic.Int64
	var wait sync.WaitGroup
	errs := make(chan error, 4)
	for range cap(errs) {
		wait.Go(func() {
			conn := c.connect(leader, false)
			defer conn.close()
			value := make([]byte, snapshotSecret)
			for i := next.Add(1); i <= int64(n) && ctx.Err() == nil; i = next.Add(1) {
				rand.Read(value)
				body := fmt.Sprintf(`{"encoding":"base64","value":%q}`, base64.StdEncoding.EncodeToString(value))
				if err := conn.call(ctx, "PUT", fmt.Sprintf("/api/v1/cluster/secrets/bench-%d", i), body, "", nil); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wait.Wait()
	close(errs)
	return <-errs
}

func (c *musterCluster) save(ctx context.Context, member int, name string) error {
	resp, err := c.stream(ctx, "GET", member, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(f, resp.Body)
	return err
}

func (c *musterCluster) restore(ctx context.Context, member int, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	resp, err := c.stream(ctx, "PUT", member, f)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

func (c *musterCluster) stream(ctx context.Context, method string, member int, body io.Reader) (*http.Response, error) {
	conn := c.admin[member]
	req, err := http.NewRequestWithContext(ctx, method, conn.base+snapshotPath, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", conn.token)
	resp, err := conn.http.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		resp.Body.Close()
		return nil, fmt.Errorf("%s %s: %d %s", method, snapshotPath, resp.StatusCode, text)
	}
	return resp, nil
}
