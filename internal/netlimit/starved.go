package netlimit

import (
	"errors"
	"sync"
	"syscall"
	"time"
)

const (
	starvedAfter = 2 * time.Second // shorter shortages are not reported
	starvedFor   = 3 * time.Second // without another failure; servers try again within a second
)

// starvation tracks since when accept fails for lack of file descriptors or memory.
type starvation struct {
	mu          sync.Mutex
	first, last time.Time // failures, since the last success
}

func (s *starvation) note(now time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.first, s.last = time.Time{}, time.Time{}
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOBUFS),
		errors.Is(err, syscall.ENOMEM):
		if s.first.IsZero() || now.Sub(s.last) > starvedFor {
			s.first = now
		}
		s.last = now
	}
}

// Starved reports whether the listeners have not been able to accept for two seconds, because this process or the
// machine has no descriptors or memory left.
func (l *Limiter) Starved(now time.Time) bool {
	if l == nil {
		return false
	}
	s := &l.starved
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.first.IsZero() && now.Sub(s.first) >= starvedAfter && now.Sub(s.last) <= starvedFor
}
