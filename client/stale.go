package client

import (
	"net/http"
	"strconv"
	"time"
)

// firstTry is how long a read of OrStale waits for an answer before it checks whether there is a leader.
const firstTry = 2 * time.Second

// Age is the possible age of an answer from a member's own replica.
type Age struct {
	Addr   string        // of the answering member
	Leader bool          // it knows a leader: its replica is at most about a second behind
	Ago    time.Duration // how long ago it last knew one
	Known  bool          // it has known one since its start; otherwise Ago is 0
}

// Stale returns a Client for stale reads: the contacted member answers from its own replica, at once and even without a
// leader. report, if not nil, is called with the age of each such answer. Reads without a stale form, and all changes,
// work as usual.
func (c *Client) Stale(report func(Age)) *Client {
	stale := c.alone(0)
	stale.addrs, stale.stale, stale.report = c.addrs, true, report
	stale.last.Store(c.last.Load())
	return stale
}

// OrStale returns a Client with linearisable reads while there is a leader. Without one, its reads become stale reads
// after two seconds at most.
func (c *Client) OrStale(report func(Age)) *Client {
	either := c.Stale(report)
	either.stale, either.orStale = false, true
	return either
}

// tellAge reports the age of an answer, if it has one.
func (c *Client) tellAge(addr string, h http.Header) {
	leader := h.Get("X-Muster-Known-Leader")
	if !c.stale || c.report == nil || leader == "" {
		return
	}
	ms, err := strconv.ParseInt(h.Get("X-Muster-Last-Contact"), 10, 64)
	c.report(Age{Addr: addr, Leader: leader == "true", Ago: time.Duration(max(0, ms)) * time.Millisecond,
		Known: err == nil})
}
