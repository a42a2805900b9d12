package client

import (
	"context"
	"errors"
	"time"
)

// afterFirst is how long Survey waits for more answers once one member has answered that it knows no leader.
const afterFirst = 500 * time.Millisecond

// Survey is the result of asking all addresses of a Client for their status.
type Survey struct {
	Leader   bool      // one of them knows a leader
	Answered int       // number of answers
	Silent   []Attempt // the others, with the reason; without a reason if Survey did not wait for them
}

// Survey asks all addresses concurrently for their status. It blocks until a member knows a leader, or all have
// answered, or half a second has passed since the first answer. The next call of this Client begins with a member that
// knows a leader, or else with one that answered. It needs no token. The error is a *NoServerError if no member answers
// before ctx ends or the Client's timeout has passed, or the context's error after a cancellation.
func (c *Client) Survey(ctx context.Context) (Survey, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	type answer struct {
		n      int
		leader bool
		err    error
	}
	answers := make(chan answer, len(c.addrs))
	for n := range c.addrs {
		go func() {
			leader, err := c.knowsLeader(ctx, n)
			answers <- answer{n, leader, err}
		}()
	}
	var (
		s      Survey
		silent = make([]error, len(c.addrs))
		heard  = make([]bool, len(c.addrs))
		enough <-chan time.Time
	)
	for range c.addrs {
		select {
		case a := <-answers:
			heard[a.n], silent[a.n] = a.err == nil, a.err
			if a.err != nil {
				break
			}
			if s.Answered++; s.Answered == 1 || a.leader {
				c.last.Store(int64(a.n))
				enough = time.After(afterFirst)
			}
			if s.Leader = a.leader; a.leader {
				return s, nil
			}
		case <-enough:
			return c.unheard(s, heard, silent), nil
		}
	}
	s = c.unheard(s, heard, silent)
	if s.Answered > 0 {
		return s, nil
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return s, ctx.Err()
	}
	return s, &NoServerError{Tried: s.Silent}
}

// unheard adds the addresses that have not answered.
func (c *Client) unheard(s Survey, heard []bool, why []error) Survey {
	for n, addr := range c.addrs {
		if !heard[n] {
			s.Silent = append(s.Silent, Attempt{addr, why[n]})
		}
	}
	return s
}

// knowsLeader asks one member. It returns true for any other server, so that the call itself reports the error.
func (c *Client) knowsLeader(ctx context.Context, n int) (bool, error) {
	one := c.alone(n)
	status, err := one.Status(ctx)
	var refusal *Error
	var none *NoServerError
	switch {
	case errors.As(err, &refusal):
		return true, nil
	case errors.As(err, &none) && len(none.Tried) == 1:
		return false, none.Tried[0].Err
	case err != nil:
		return false, err
	}
	return status.Cluster == nil || status.Cluster.LeaderNodeID != 0, nil
}

// alone returns a Client for one address, with the same connections.
func (c *Client) alone(n int) *Client {
	one := &Client{
		addrs:   c.addrs[n : n+1],
		token:   c.token,
		agent:   c.agent,
		timeout: c.timeout,
		ownCA:   c.ownCA,
		http:    c.http,
	}
	return one
}
