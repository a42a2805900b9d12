package store

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
)

// writers mint join tokens, each id once, and remember what was answered.
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
	id, request string
	node        uint64
	err         error
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

func (w *writers) attempt(s *Store) {
	a := attempt{id: NewID(), request: uuid.NewString(), node: s.NodeID()}
	begin := time.Now()
	_, a.err = s.JoinTokens.Create(bg, Actor{Name: "writer", RequestID: a.request},
		JoinToken{ID: a.id, Format: FormatMuster, KeyEpoch: 1, MaxUses: 1, ExpiresAt: begin.Add(time.Hour)})
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
	w.c.t.Helper()
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
	t := w.c.t
	t.Helper()
	close(w.stop)
	ended := make(chan struct{})
	go func() { w.done.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(2 * answerLimit):
		t.Fatal("a writer hangs")
	}
	content := w.c.agree()
	if len(content["audit"]) == 0 {
		t.Fatal("no audit rows")
	}
	l := w.c.leader()
	tokens, audits := map[string]int{}, map[string]int{}
	err := l.Read(bg, AsLeader, func(v *View) error {
		for query, into := range map[string]map[string]int{"SELECT id FROM join_tokens": tokens, "SELECT request_id FROM audit": audits} {
			rows, err := v.query(query)
			if err != nil {
				return err
			}
			for rows.Next() {
				var id string
				if err := rows.Scan(&id); err != nil {
					return err
				}
				into[id]++
			}
			rows.Close()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, a := range w.log {
		have := tokens[a.id]
		if have != audits[a.request] {
			t.Errorf("token %s is there %d times and has %d audit rows", a.id, have, audits[a.request])
		}
		var refusal *Refusal
		switch {
		case a.err == nil:
			count["ok"]++
			if have != 1 {
				t.Errorf("token %s was answered by node %d and is there %d times", a.id, a.node, have)
			}
		case errors.Is(a.err, ErrUnknownOutcome):
			count["unknown"]++
		case errors.Is(a.err, ErrNotLeader), errors.Is(a.err, ErrNoLeader), errors.As(a.err, &refusal):
			count[a.err.Error()]++
			if have != 0 {
				t.Errorf("token %s was refused by node %d with %v and is there", a.id, a.node, a.err)
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

// checkRevisions verifies that no revision and no audit number is missing or used twice.
func checkRevisions(t testing.TB, l *Store) {
	t.Helper()
	revisions := integers(t, l, "SELECT DISTINCT revision FROM audit ORDER BY revision")
	for i, r := range revisions {
		if r != int64(i)+1 {
			t.Fatalf("revision %d follows %d", r, i)
		}
	}
	if now := integers(t, l, "SELECT revision FROM cluster"); len(now) != 1 || now[0] != int64(len(revisions)) {
		t.Errorf("the cluster is at revision %v, the audit at %d", now, len(revisions))
	}
	if gaps := integers(t, l, "SELECT revision FROM audit GROUP BY revision HAVING min(seq) <> 1 OR max(seq) <> count(*)"); len(gaps) > 0 {
		t.Errorf("audit rows are missing in revisions %v", gaps)
	}
}

func audits(t testing.TB, s *Store, request string) int {
	t.Helper()
	return len(integers(t, s, "SELECT seq FROM audit WHERE request_id = ?", request))
}

func noLeader(err error) bool {
	return errors.Is(err, ErrNotLeader) || errors.Is(err, ErrNoLeader) || errors.Is(err, ErrUnknownOutcome)
}
