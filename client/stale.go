package client

import (
	"net/http"
	"strconv"
	"time"
)

// firstTry is how long a read of OrStale waits for the leader before it looks whether there is one.
const firstTry = 2 * time.Second

// Age says how old an answer from a member's own replica may be.
type Age struct {
	Addr   string        // of the member that answered
	Leader bool          // it knows a leader: its replica is at most about a second behind
	Ago    time.Duration // how long ago it last knew one
	Known  bool          // it has known one since it started; Ago is 0 otherwise
}

// Stale returns a Client whose reads are answered by the member that is asked, from its own replica, at once and also
// without a leader; report, if it is not nil, is called with the age of each such answer. What cannot be read so is read as
// usual, and so is everything that changes something.
func (c *Client) Stale(report func(Age)) *Client {
	stale := c.alone(0)
	stale.addrs, stale.stale, stale.report = c.addrs, true, report
	stale.last.Store(c.last.Load())
	return stale
}

// OrStale returns a Client whose reads are as usual while there is a leader. When there turns out to be none, they are answered
// as those of Stale, after two seconds at the most.
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
