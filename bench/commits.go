package main

import (
	"context"
	"time"
)

// commits has the leader's metrics of its transactions.
type commits struct{ count, requests, seconds float64 }

func (c *commits) add(o commits) {
	c.count, c.requests, c.seconds = c.count+o.count, c.requests+o.requests, c.seconds+o.seconds
}

func (c commits) since(o commits) commits {
	return commits{c.count - o.count, c.requests - o.requests, c.seconds - o.seconds}
}

// describe sets the average batch, the time of a commit, and the gap between two commits.
func (c commits) describe(v *value, took time.Duration) {
	if c.count < 1 {
		return
	}
	v.Batch, v.CommitMs = c.requests/c.count, c.seconds/c.count*1000
	v.GapMs = max(0, took.Seconds()-c.seconds) / c.count * 1000
}

// countCommits reads the metrics of a cluster that has them.
func countCommits(ctx context.Context, c cluster) (sum commits) {
	if k, ok := c.(committer); ok {
		sum, _ = k.commits(ctx)
	}
	return sum
}

func (c *musterCluster) commits(ctx context.Context) (sum commits, err error) {
	for i := range c.procs {
		metrics, err := c.metrics(ctx, i)
		if err != nil {
			return sum, err
		}
		sum.add(commits{metrics["muster_write_batch_size_count"], metrics["muster_write_batch_size_sum"],
			metrics["muster_commit_duration_seconds_sum"]})
	}
	return sum, nil
}
