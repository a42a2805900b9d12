package handlers

import (
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"muster/internal/netlimit"
)

// failureLimiter limits how often one address may present a wrong credential. Valid credentials are never delayed.
type failureLimiter struct {
	mu    sync.Mutex
	hosts map[string]*failing
}

type failing struct {
	limit *rate.Limiter
	last  time.Time
}

const (
	failuresPerMinute = 120
	failingHosts      = 10_000
)

const tooManyFailures = "too many failed attempts; try again in a minute"

func newFailureLimiter() *failureLimiter { return &failureLimiter{hosts: map[string]*failing{}} }

// spent reports whether an address has reached the limit. It counts nothing.
func (l *failureLimiter) spent(host string) bool {
	host = failingHost(host)
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.hosts[host]
	return f != nil && f.limit.Tokens() < 1
}

// failingHost returns the key that failures are counted by: the address, or with IPv6 its /64, all of which one caller
// may own.
func failingHost(host string) string {
	if ip, err := netip.ParseAddr(host); err == nil && !ip.Is4() {
		return netlimit.GroupOf(ip).String()
	}
	return host
}

// count records a failure and returns an error when the limit is reached.
func (l *failureLimiter) count(host string) error {
	host = failingHost(host)
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	f := l.hosts[host]
	if f == nil {
		if len(l.hosts) >= failingHosts {
			for h, x := range l.hosts {
				if now.Sub(x.last) > time.Minute {
					delete(l.hosts, h)
				}
			}
		}
		if len(l.hosts) >= failingHosts {
			return Fail(http.StatusTooManyRequests, tooManyFailures)
		}
		f = &failing{limit: rate.NewLimiter(rate.Every(time.Minute/failuresPerMinute), failuresPerMinute)}
		l.hosts[host] = f
	}
	f.last = now
	if !f.limit.AllowN(now, 1) {
		return Fail(http.StatusTooManyRequests, tooManyFailures)
	}
	return nil
}
