package netlimit

import (
	"context"
	"log/slog"
	"sync/atomic"

	"golang.org/x/time/rate"
)

// QuietLog writes a bounded number of lines a second and counts the others, for what callers can cause as often as they
// like.
type QuietLog struct {
	log    *slog.Logger
	limit  *rate.Limiter
	missed atomic.Uint64
}

// NewQuietLog returns a log that writes perSecond lines a second for long, and burst at once.
func NewQuietLog(log *slog.Logger, perSecond, burst int) *QuietLog {
	return &QuietLog{log: log, limit: rate.NewLimiter(rate.Limit(perSecond), burst)}
}

// Log writes a line, if there is room for it. The next one says how many were left out.
func (q *QuietLog) Log(level slog.Level, text string, args ...any) {
	if !q.log.Enabled(context.Background(), level) {
		return
	}
	if !q.limit.Allow() {
		q.missed.Add(1)
		return
	}
	if n := q.missed.Swap(0); n > 0 {
		args = append(args, "lines_left_out", n)
	}
	q.log.Log(context.Background(), level, text, args...)
}
