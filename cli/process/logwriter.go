package process

import (
	"bytes"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

const (
	logQueue = 1 << 20     // bytes that may wait for the reader of the log
	logFlush = time.Second // for waiting lines at the end
)

// LogWriter writes lines to a descriptor with an unreliable reader: a journal that restarts, a closed pipe, a stopped
// terminal. Write never blocks and never fails; lines that cannot be written are lost and counted.
type LogWriter struct {
	out  io.Writer
	lost atomic.Uint64

	mu     sync.Mutex
	told   func(lost uint64) // called at the first written line after lost ones
	queue  [][]byte
	size   int
	closed bool
	more   chan struct{}
	done   chan struct{}
}

// NewLogWriter starts a goroutine that writes to out; Close ends it.
func NewLogWriter(out io.Writer) *LogWriter {
	w := &LogWriter{out: out, more: make(chan struct{}, 1), done: make(chan struct{})}
	go w.run()
	return w
}

// Write queues a line, or counts it as lost when too many wait.
func (w *LogWriter) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	w.mu.Lock()
	if w.closed || w.size+len(p) > logQueue {
		w.lost.Add(1)
	} else {
		w.queue = append(w.queue, bytes.Clone(p))
		w.size += len(p)
	}
	w.mu.Unlock()
	w.wake()
	return len(p), nil
}

func (w *LogWriter) tell(told func(lost uint64)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = told
}

func (w *LogWriter) wake() {
	select {
	case w.more <- struct{}{}:
	default:
	}
}

// next removes and returns the oldest line, or nil for an empty queue. told is nil once the writer is closed.
func (w *LogWriter) next() (line []byte, told func(uint64), closed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		told = w.told
	}
	if len(w.queue) == 0 {
		w.queue = nil
		return nil, told, w.closed
	}
	line, w.queue = w.queue[0], w.queue[1:]
	w.size -= len(line)
	return line, told, w.closed
}

func (w *LogWriter) run() {
	defer close(w.done)
	known := uint64(0)
	for {
		line, told, closed := w.next()
		switch {
		case line != nil:
			if _, err := w.out.Write(line); err != nil {
				w.lost.Add(1)
			} else if lost := w.lost.Load(); lost > known && told != nil {
				told(lost - known)
				known = lost
			}
		case closed:
			return
		default:
			<-w.more
		}
	}
}

// Close blocks until the waiting lines are written, for a second at most; later lines are lost.
func (w *LogWriter) Close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.wake()
	select {
	case <-w.done:
	case <-time.After(logFlush):
	}
}
