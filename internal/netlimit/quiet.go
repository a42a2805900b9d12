package netlimit

import (
	"context"
	"log/slog"
	"sync/atomic"

	"golang.org/x/time/rate"
)

// QuietLog is a rate-limited log for events that callers can cause at will. It counts the lines that it drops.
type QuietLog struct {
	log    *slog.Logger
	limit  *rate.Limiter
	missed atomic.Uint64
}

// NewQuietLog returns a log that sustains perSecond lines a second with bursts of burst lines.
func NewQuietLog(log *slog.Logger, perSecond, burst int) *QuietLog {
	return &QuietLog{log: log, limit: rate.NewLimiter(rate.Limit(perSecond), burst)}
}

// Log writes a line unless the limit is reached. The next line says how many were dropped.
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
