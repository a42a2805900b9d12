package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"muster/client"
)

// ledger is the history of tokens that were minted and lists that were read while a cluster was being hurt. Each
// request to mint asks for a node id of its own, so that it is seen whether it was carried out, and how often.
type ledger struct {
	next atomic.Uint64

	mu     sync.Mutex
	mints  []mint
	lists  []listing
	faults []string
}

// mint is one request for a token. Times are since the ledger was begun; a mint that was not acknowledged may or may
// not have happened.
type mint struct {
	node       uint64
	id         string // of the token, when acknowledged
	begin, end time.Duration
	through    int
	refused    bool // the answer was that nothing was done
}

// listing is one answered list.
type listing struct {
	begin, end time.Duration
	through    int
	have       map[uint64]int // how often each node id occurs
}

var epoch = time.Now()

func now() time.Duration { return time.Since(epoch) }

func newLedger(first uint64) *ledger {
	l := &ledger{}
	l.next.Store(first)
	return l
}

func (l *ledger) fault(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.faults) < 20 {
		l.faults = append(l.faults, fmt.Sprintf(format, args...))
	}
}

// What a cluster may answer while nobody leads, within 5 s: that nothing was done, with Retry-After, or that it is not
// known.
const (
	nothingDone = `{"error":"no cluster leader: raft commit timeout"}`
	mayBeDone   = `{"error":"raft commit timeout: the request may or may not have been carried out; `
)

func (l *ledger) checkRefusal(a answer, m *member) {
	if a.err != nil {
		return // the member that was asked is down, or went down
	}
	unknown := strings.HasPrefix(a.body, mayBeDone) && a.header.Get("X-Muster-Outcome") == "unknown"
	if a.status != 503 || !unknown && (a.body != nothingDone || a.header.Get("Retry-After") == "") {
		l.fault("node %d answers %v (Retry-After %q)", m.n, a, a.header.Get("Retry-After"))
	}
}

// mint asks for one token through a member and writes down what came of it.
func (l *ledger) mint(u *user, m *member) bool {
	x := mint{node: l.next.Add(1), begin: now(), through: m.n}
	a := u.do(m, "POST", "/api/v1/cluster/pki/join-tokens", fmt.Sprintf(`{"nodeID":%d}`, x.node))
	x.end = now()
	if a.err == nil && a.late(5500*time.Millisecond) && m.up() {
		l.fault("node %d answered after %v: %v", m.n, a.took, a)
	}
	if a.err == nil && a.status == 201 {
		var v struct{ Result minted }
		if err := json.Unmarshal([]byte(a.body), &v); err != nil || v.Result.ID == "" {
			l.fault("node %d: %v", m.n, a)
		}
		x.id = v.Result.ID
	} else {
		l.checkRefusal(a, m)
		x.refused = a.err == nil && a.body == nothingDone
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mints = append(l.mints, x)
	return x.id != ""
}

// list reads all tokens through a member and writes down what was there.
func (l *ledger) list(u *user, m *member) bool {
	x := listing{begin: now(), through: m.n, have: map[uint64]int{}}
	a := u.do(m, "GET", "/api/v1/cluster/join-tokens", "")
	x.end = now()
	if a.err != nil || a.status != 200 {
		l.checkRefusal(a, m)
		return false
	}
	var v struct{ Result []client.JoinToken }
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		l.fault("node %d: %v", m.n, err)
		return false
	}
	for _, t := range v.Result {
		x.have[t.NodeID]++
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lists = append(l.lists, x)
	return true
}

// run repeats something in the background until the function it returns is called.
func run(n int, what func()) (stop func()) {
	var wait sync.WaitGroup
	var stopped atomic.Bool
	for range n {
		wait.Go(func() {
			for !stopped.Load() {
				what()
			}
		})
	}
	return sync.OnceFunc(func() { stopped.Store(true); wait.Wait() })
}

func (l *ledger) acknowledged() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range l.mints {
		if x.id != "" {
			n++
		}
	}
	return n
}

// awaitMore waits until n more tokens have been acknowledged.
func (l *ledger) awaitMore(t *testing.T, n int) {
	t.Helper()
	want := l.acknowledged() + n
	eventually(t, formed, fmt.Sprintf("%d more tokens are acknowledged", n), func() error {
		if got := l.acknowledged(); got < want {
			return fmt.Errorf("%d are missing", want-got)
		}
		return nil
	})
}

// gap is the longest time without an acknowledgement since a moment.
func (l *ledger) gap(since time.Duration) (longest time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ends := []time.Duration{since}
	for _, x := range l.mints {
		if x.id != "" && x.end > since {
			ends = append(ends, x.end)
		}
	}
	slices.Sort(ends)
	for i := 1; i < len(ends); i++ {
		longest = max(longest, ends[i]-ends[i-1])
	}
	return longest
}

// check compares the history with what every member lists now, and with itself: what was acknowledged is there, once,
// in every list that was asked for afterwards; and what one list has shown, no later list lacks.
func (l *ledger) check(t *testing.T, u *user, members []*member) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.faults {
		t.Error(f)
	}
	for _, m := range members {
		ids := map[string]int{}
		nodes := map[uint64]int{}
		for _, x := range u.tokens(t, m) {
			ids[x.ID]++
			nodes[x.NodeID]++
		}
		for _, x := range l.mints {
			if x.id != "" && ids[x.id] != 1 {
				t.Errorf("token %s for node %d, acknowledged by node %d, is %d times in the list of node %d", x.id, x.node,
					x.through, ids[x.id], m.n)
			}
			if x.refused && nodes[x.node] > 0 {
				t.Errorf("node %d answered that nothing was done, and there is a token for node %d", x.through, x.node)
			}
			if nodes[x.node] > 1 {
				t.Errorf("one request through node %d has made %d tokens for node %d", x.through, nodes[x.node], x.node)
			}
		}
	}
	// In the order in which they were asked for, each list must show what had been acknowledged or shown before.
	byBegin := slices.SortedFunc(slices.Values(l.lists), func(a, b listing) int { return cmp.Compare(a.begin, b.begin) })
	byEnd := slices.SortedFunc(slices.Values(l.lists), func(a, b listing) int { return cmp.Compare(a.end, b.end) })
	mints := slices.SortedFunc(slices.Values(l.mints), func(a, b mint) int { return cmp.Compare(a.end, b.end) })
	known := map[uint64]string{}
	stale := 0
	for _, r := range byBegin {
		for ; len(mints) > 0 && mints[0].end < r.begin; mints = mints[1:] {
			if x := mints[0]; x.id != "" {
				known[x.node] = fmt.Sprintf("node %d acknowledged at %v", x.through, x.end)
			}
		}
		for ; len(byEnd) > 0 && byEnd[0].end < r.begin; byEnd = byEnd[1:] {
			for node := range byEnd[0].have {
				if known[node] == "" {
					known[node] = fmt.Sprintf("node %d listed at %v", byEnd[0].through, byEnd[0].end)
				}
			}
		}
		for node, how := range known {
			if r.have[node] == 0 {
				if stale++; stale < 5 {
					t.Errorf("a stale read: the list that node %d was asked for at %v lacks the token for node %d, which %s",
						r.through, r.begin, node, how)
				}
			}
		}
	}
	t.Logf("%d mints, %d lists", len(l.mints), len(l.lists))
}
