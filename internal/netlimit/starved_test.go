package netlimit

import (
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// TestStarved: a listener is starved when accepting has failed for a while for want of descriptors, and only as long.
func TestStarved(t *testing.T) {
	begin := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	failure := func(number syscall.Errno) error {
		return &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", number)}
	}
	for name, x := range map[string]struct {
		every time.Duration
		err   error
		want  bool
	}{
		"descriptors of the process": {time.Second, failure(syscall.EMFILE), true},
		"descriptors of the machine": {50 * time.Millisecond, failure(syscall.ENFILE), true},
		"memory":                     {time.Second, failure(syscall.ENOMEM), true},
		"a caller that has gone":     {time.Second, failure(syscall.ECONNABORTED), false},
		"closed":                     {time.Second, net.ErrClosed, false},
		"now and then":               {4 * time.Second, failure(syscall.EMFILE), false},
		"success":                    {time.Second, nil, false},
	} {
		l := New(Limits{})
		now := begin
		for ; now.Before(begin.Add(20 * time.Second)); now = now.Add(x.every) {
			l.starved.note(now, x.err)
			if now.Sub(begin) < starvedAfter && l.Starved(now) {
				t.Errorf("%s: starved after %v", name, now.Sub(begin))
			}
		}
		if got := l.Starved(now); got != x.want {
			t.Errorf("%s: %v", name, got)
		}
		if l.Starved(now.Add(2 * starvedFor)) {
			t.Errorf("%s: starved without a failure", name)
		}
		l.starved.note(now, nil)
		if l.Starved(now) {
			t.Errorf("%s: starved after a success", name)
		}
	}
}

// TestStarvedListener: the listener notes what its Accept returns.
func TestStarvedListener(t *testing.T) {
	l := New(Limits{})
	listener := l.Listener(&failing{err: &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}})
	if _, err := listener.Accept(); err == nil {
		t.Fatal("accepted")
	}
	l.starved.mu.Lock()
	defer l.starved.mu.Unlock()
	if l.starved.first.IsZero() {
		t.Error("the failure is not noted")
	}
}

type failing struct {
	net.Listener
	err error
}

func (f *failing) Accept() (net.Conn, error) { return nil, f.err }
