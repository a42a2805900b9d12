package process

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/internal/await"
)

// stubborn is a log whose reader stalls, goes away and comes back.
type stubborn struct {
	mu   sync.Mutex
	text bytes.Buffer
	err  error
	hold chan struct{}
}

func (s *stubborn) Write(p []byte) (int, error) {
	s.mu.Lock()
	hold := s.hold
	s.mu.Unlock()
	if hold != nil {
		<-hold
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	return s.text.Write(p)
}

func (s *stubborn) set(err error, hold chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.hold = err, hold
}

// TestLogWriter: a log that nobody reads costs lines, which are counted, and never stops who writes.
func TestLogWriter(t *testing.T) {
	out := &stubborn{}
	w := NewLogWriter(out)
	told := make(chan uint64, 10)
	w.tell(func(n uint64) { told <- n })
	fmt.Fprintln(w, "first")

	hold := make(chan struct{})
	await.True(t, "the first line", func() bool { out.mu.Lock(); defer out.mu.Unlock(); return out.text.Len() > 0 })
	out.set(nil, hold)
	long := strings.Repeat("x", 1<<10)
	for range 3000 { // more than the queue holds; nothing reads
		if n, err := fmt.Fprintln(w, long); err != nil || n != len(long)+1 {
			t.Fatal(n, err)
		}
	}
	if lost := w.lost.Load(); lost < 1900 || lost > 2100 {
		t.Errorf("%d lines were lost", lost)
	}
	out.set(errors.New("broken"), nil)
	close(hold)
	await.True(t, "all are lost", func() bool { return w.lost.Load() >= 2990 })
	out.set(nil, nil)
	fmt.Fprintln(w, "last")
	if n := <-told; n < 2990 {
		t.Errorf("told of %d lost lines", n)
	}
	w.Close()
	if text := out.text.String(); !strings.HasPrefix(text, "first\n") || !strings.HasSuffix(text, "last\n") {
		t.Errorf("it begins with %.20q and ends with %.20q", text, text[max(0, len(text)-20):])
	}
	before := w.lost.Load()
	fmt.Fprintln(w, "too late")
	if w.lost.Load() != before+1 {
		t.Error("a line after the end is not counted")
	}
}

// The end of a process does not wait for a log that nobody reads.
func TestLogWriterEnds(t *testing.T) {
	r, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer out.Close()
	w := NewLogWriter(struct{ io.Writer }{out})
	for range 1000 {
		fmt.Fprintln(w, strings.Repeat("y", 1000))
	}
	ended := make(chan struct{})
	go func() { w.Close(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("it waits")
	}
}
