package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
)

// footprint is where the resident memory of a muster is, in bytes, as the kernel and the process itself tell.
type footprint struct {
	resident float64
	files    float64 // pages of the binary and of mapped files
	golang   float64 // what Go's runtime holds
	sqlite   float64 // the database in memory and the page caches
	raft     float64 // what else C code uses: the entries of the Raft log, above all
	free     float64 // what C code has freed and keeps, as far as it is resident
}

// footprint asks one member.
func (c *musterCluster) footprint(ctx context.Context, member int) (f footprint, err error) {
	metrics, err := c.metrics(ctx, member)
	f = footprint{
		resident: c.procs[member].status("VmRSS"),
		files:    c.procs[member].status("RssFile") + c.procs[member].status("RssShmem"),
		golang:   metrics["go_memstats_sys_bytes"] - metrics["go_memstats_heap_released_bytes"],
		sqlite:   metrics[`muster_c_memory_bytes{of="sqlite"}`],
		raft:     metrics[`muster_c_memory_bytes{of="raft"}`],
	}
	f.free = max(0, f.resident-f.files-f.golang-f.sqlite-f.raft)
	return f, err
}

func (f footprint) String() string {
	return fmt.Sprintf("%.0f MB: Go %.0f, SQLite %.0f, Raft log and other C %.0f, free %.0f, files %.0f", f.resident/1e6,
		f.golang/1e6, f.sqlite/1e6, f.raft/1e6, f.free/1e6, f.files/1e6)
}

// weigh reports the memory of the leader and of the largest other member, each with where it is.
func (c *musterCluster) weigh(ctx context.Context, b *bench, what string, leader, others float64) {
	led, err := findLeader(ctx, c)
	if err != nil {
		return
	}
	largest := 0.0
	for i := range c.procs {
		f, err := c.footprint(ctx, i)
		if err != nil {
			b.report.note("memory of n%d: %v", i+1, err)
			continue
		}
		role := "follows"
		if i == led {
			role = "leads"
			b.add(ctx, "memory: leader, "+what, "MB", true, outcome{"muster": {Value: f.resident / 1e6}}, below(leader, "MB"))
		} else {
			largest = max(largest, f.resident)
		}
		b.report.note("memory of n%d (%s), %s: %v", i+1, role, what, f)
	}
	b.add(ctx, "memory: largest other member, "+what, "MB", true, outcome{"muster": {Value: largest / 1e6}},
		below(others, "MB"))
}

// metrics returns a member's metrics by name and labels.
func (c *musterCluster) metrics(ctx context.Context, member int) (map[string]float64, error) {
	var text []byte
	if err := c.admin[member].call(ctx, "GET", "/metrics", "", "", &text); err != nil {
		return nil, err
	}
	all := make(map[string]float64)
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if n, err := strconv.ParseFloat(value, 64); err == nil {
			all[name] = n
		}
	}
	return all, nil
}
