package engine

import (
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
)

// writers write notes, each request once, and remember what was answered.
type writers struct {
	c       *testCluster
	mu      sync.Mutex
	log     []attempt
	stop    chan struct{}
	done    sync.WaitGroup
	acked   atomic.Int64
	slowest time.Duration
}

type attempt struct {
	request string
	node    uint64
	err     error
}

// run starts n goroutines that write to the given nodes in turn until finish is called.
func (c *testCluster) run(n int, nodes ...uint64) *writers {
	w := &writers{c: c, stop: make(chan struct{})}
	for i := range n {
		w.done.Add(1)
		go func() {
			defer w.done.Done()
			for k := i; ; k++ {
				select {
				case <-w.stop:
					return
				default:
				}
				if s := c.node(nodes[k%len(nodes)]); s != nil {
					w.attempt(s)
				}
			}
		}()
	}
	return w
}

func (w *writers) attempt(s *Engine) {
	a := attempt{request: uuid.NewString(), node: s.NodeID()}
	begin := time.Now()
	a.err = s.Write(bg, a.request, note(a.request))
	took := time.Since(begin)
	if a.err == nil {
		w.acked.Add(1)
	} else {
		time.Sleep(time.Millisecond) // a refusal costs nothing: leave the others some of the processor
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.slowest = max(w.slowest, took)
	w.log = append(w.log, a)
}

// more waits until n further writes have been answered with success.
func (w *writers) more(what string, n int64) {
	w.c.T.Helper()
	from := w.acked.Load()
	w.c.eventually(what, func() error {
		if got := w.acked.Load() - from; got < n {
			return fmt.Errorf("%d writes of %d", got, n)
		}
		return nil
	})
}

// finish stops the writers and compares what they were told with what the cluster holds.
func (w *writers) finish() {
	t := w.c.T
	t.Helper()
	close(w.stop)
	ended := make(chan struct{})
	go func() { w.done.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(2 * answerLimit):
		t.Fatal("a writer hangs")
	}
	w.c.agree()
	l := w.c.leader()
	notes := map[string]int{}
	if err := l.Read(bg, AsLeader, func(v *View) error {
		list, err := Collect(v, func(r *sql.Rows) (request string, err error) { return request, r.Scan(&request) },
			"SELECT request FROM notes")
		for _, request := range list {
			notes[request]++
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, a := range w.log {
		have := notes[a.request]
		var refusal *Refusal
		switch {
		case a.err == nil:
			count["ok"]++
			if have != 1 {
				t.Errorf("request %s was answered by node %d and is there %d times", a.request, a.node, have)
			}
		case errors.Is(a.err, ErrUnknownOutcome):
			count["unknown"]++
		case errors.Is(a.err, ErrNotLeader), errors.Is(a.err, ErrNoLeader), errors.As(a.err, &refusal):
			count[a.err.Error()]++
			if have != 0 {
				t.Errorf("request %s was refused by node %d with %v and is there", a.request, a.node, a.err)
			}
		default:
			t.Errorf("node %d answered %v", a.node, a.err)
		}
	}
	if w.slowest > answerLimit {
		t.Errorf("a write took %v", w.slowest)
	}
	t.Logf("writes: %v, slowest %v", count, w.slowest.Round(time.Millisecond))
	checkRevisions(t, l)
}

// checkRevisions verifies that no revision and no number is missing or used twice.
func checkRevisions(t testing.TB, l *Engine) {
	t.Helper()
	revisions := integers(t, l, "SELECT DISTINCT revision FROM notes ORDER BY revision")
	for i, r := range revisions {
		if r != int64(i)+1 {
			t.Fatalf("revision %d follows %d", r, i)
		}
	}
	if now := integers(t, l, "SELECT revision FROM cluster"); len(now) != 1 || now[0] != int64(len(revisions)) {
		t.Errorf("the cluster is at revision %v, the notes at %d", now, len(revisions))
	}
	if gaps := integers(t, l,
		"SELECT revision FROM notes GROUP BY revision HAVING min(seq) <> 1 OR max(seq) <> count(*)"); len(gaps) > 0 {
		t.Errorf("notes are missing in revisions %v", gaps)
	}
}

func noLeader(err error) bool {
	return errors.Is(err, ErrNotLeader) || errors.Is(err, ErrNoLeader) || errors.Is(err, ErrUnknownOutcome)
}
