package peering

import (
	"context"
	"sync"
	"time"

	"muster/internal/timing"
)

// Limits of what one other cluster can make this one store, whatever it sends and however often it connects. A burst
// allows for a new peering with thousands of members and for an outage; after that writes are slow and combine all news
// since the last one.
const (
	budgetWrites     = 60 // commits in a burst
	budgetWriteEvery = 5 * time.Second
	budgetBytes      = 16 << 20
	budgetBytesRate  = 64 << 10 // a second

	openBurst = 30 // streams that one peering may open
	openEvery = 2 * time.Second

	frameBurst     = 400 // messages on a stream
	framesPerSec   = 100
	streamBurst    = 24 << 20 // bytes on a stream
	streamPerSec   = 2 << 20
	maxImportBytes = 8 << 20 // stored members of one other cluster
)

// budget is what a peering may still write. A write is charged afterwards, so the next one waits longer after a large
// one.
type budget struct {
	mu            sync.Mutex
	writes, bytes bucket
	opens         bucket
}

func newBudget(now time.Time) *budget {
	return &budget{writes: newBucket(now, budgetWrites, 1/budgetWriteEvery.Seconds()),
		bytes: newBucket(now, budgetBytes, budgetBytesRate),
		opens: newBucket(now, openBurst, 1/openEvery.Seconds())}
}

// wait returns the time until the next write; bulk: it may be large.
func (b *budget) wait(now time.Time, bulk bool) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	d := b.writes.wait(now, 1)
	if bulk {
		d = max(d, b.bytes.wait(now, 0))
	}
	return d
}

// await blocks until the next write; it returns false when ctx ends first.
func (b *budget) await(ctx context.Context, bulk bool) bool {
	for {
		d := b.wait(time.Now(), bulk)
		if d <= 0 {
			return ctx.Err() == nil
		}
		if !timing.Rest(ctx, d) {
			return false
		}
	}
}

// charge counts one write of so many bytes.
func (b *budget) charge(now time.Time, bytes int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.writes.take(now, 1)
	b.bytes.take(now, float64(bytes))
}

// open reports whether one more stream may be opened, and counts it.
func (b *budget) open(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.opens.wait(now, 1) > 0 {
		return false
	}
	b.opens.take(now, 1)
	return true
}

// bucket is a token bucket that may be overdrawn.
type bucket struct {
	have, most, perSec float64
	at                 time.Time
}

func newBucket(now time.Time, most, perSec float64) bucket {
	return bucket{have: most, most: most, perSec: perSec, at: now}
}

func (b *bucket) fill(now time.Time) {
	if d := now.Sub(b.at); d > 0 {
		b.have, b.at = min(b.most, b.have+b.perSec*d.Seconds()), now
	}
}

// wait returns the time until there are that many tokens.
func (b *bucket) wait(now time.Time, need float64) time.Duration {
	b.fill(now)
	if b.have >= need {
		return 0
	}
	return time.Duration((need-b.have)/b.perSec*float64(time.Second)) + time.Millisecond
}

func (b *bucket) take(now time.Time, n float64) {
	b.fill(now)
	b.have -= n
}
