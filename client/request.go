package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"time"
)

// maxAnswer bounds the body of an answer, in bytes.
const maxAnswer = 64 << 20

// repeat is when a request may be sent again. Each value includes the ones before it. A request that certainly reached
// no server is always sent to the next address.
type repeat int

const (
	never       repeat = iota // not once it may have reached a server
	on503                     // after 503 with Retry-After: the request is idempotent
	always                    // also after the connection broke: it changes nothing
	alwaysKeyed               // likewise: the server recognises its Idempotency-Key
)

// request is one call, independent of the answering member.
type request struct {
	method string
	path   string
	query  url.Values
	body   any // marshalled as JSON; nil for none
	repeat repeat
	header func(http.Header) // called with the answer's header; may be nil
	slow   bool              // it waits for machines, not for the database
	stale  bool              // a read that a member can answer from its own replica

	doubt *bool // set once the request may have been executed without an answer
}

// changes reports whether the request may change anything.
func (r request) changes() bool { return r.repeat != always }

// enveloped makes a call of the /api/v1 families and decodes "result" of the answer.
func enveloped[T any](ctx context.Context, c *Client, r request) (T, error) {
	answer, err := plain[struct {
		Result T `json:"result"`
	}](ctx, c, r)
	return answer.Result, err
}

// plain makes a call and decodes the whole answer; an empty one leaves the zero value.
func plain[T any](ctx context.Context, c *Client, r request) (T, error) {
	var out T
	body, err := c.do(ctx, r)
	if err != nil || len(body) == 0 {
		return out, err
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber() // keeps all digits of integers in SQL results
	if err := decoder.Decode(&out); err != nil {
		return out, fmt.Errorf("the answer is not what a muster server says: %w", err)
	}
	return out, nil
}

// do makes a call. Without a leader, a Client of OrStale repeats a read as a stale read.
func (c *Client) do(ctx context.Context, r request) ([]byte, error) {
	if !c.orStale || !r.stale {
		return c.untilAnswered(ctx, r)
	}
	first, cancel := context.WithTimeout(ctx, firstTry)
	answer, err := c.untilAnswered(first, r)
	late := first.Err() != nil
	cancel()
	if err == nil || ctx.Err() != nil || !late && !errors.Is(err, ErrNoLeader) && !errors.Is(err, ErrNoServer) {
		return answer, err
	}
	switch s, failed := c.Survey(ctx); {
	case failed != nil:
		return nil, err
	case s.Leader:
		return c.untilAnswered(ctx, r)
	}
	return c.Stale(c.report).untilAnswered(ctx, r)
}

// untilAnswered sends the request to one address after another until one answers, and again as r.repeat allows. It
// blocks at most until the deadline of ctx; without one, for the Client's timeout.
func (c *Client) untilAnswered(ctx context.Context, r request) ([]byte, error) {
	var body []byte
	if r.body != nil {
		var err error
		if body, err = json.Marshal(r.body); err != nil {
			return nil, err
		}
	}
	ctx, cancel := c.bound(ctx, r)
	defer cancel()
	if r.stale && c.stale {
		r.query = maps.Clone(r.query)
		if r.query == nil {
			r.query = url.Values{}
		}
		r.query.Set("stale", "")
	}
	r.doubt = new(bool)
	key := ""
	if r.repeat == alwaysKeyed {
		key = newKey()
	}
	var refused *Error // the latest refusal that allows a repetition
	for broken := false; ; {
		answer, reached, err := c.round(ctx, r, body, key)
		wait := 200 * time.Millisecond
		var refusal *Error
		switch {
		case err == nil:
			return answer, nil
		case errors.As(err, &refusal):
			if !r.again(refusal) {
				return nil, err
			}
			*r.doubt = *r.doubt || refusal.Unknown
			refused, wait = refusal, refusal.pause()
		case errors.Is(err, ErrNoServer) && reached && !broken:
			broken = true // a server accepted the connection: one more round
		case errors.Is(err, ErrNoServer) && refused != nil:
			return nil, r.honest(refused) // an earlier refusal says more
		default:
			return nil, r.honest(err)
		}
		if deadline, _ := ctx.Deadline(); time.Until(deadline) <= wait {
			if refused != nil {
				return nil, r.honest(refused)
			}
			return nil, r.honest(err)
		}
		select {
		case <-ctx.Done():
			return nil, r.honest(ctx.Err())
		case <-time.After(wait):
		}
	}
}

// bound sets the Client's deadline for a request whose ctx has none.
func (c *Client) bound(ctx context.Context, r request) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	limit := c.timeout
	if r.slow {
		limit = max(limit, slowTimeout)
	}
	return context.WithTimeout(ctx, limit)
}

// pause is how long to wait before the request is repeated.
func (e *Error) pause() time.Duration {
	if e.RetryAfter < 0 {
		return time.Second
	}
	return max(200*time.Millisecond, e.RetryAfter)
}

// honest marks an error as ErrUnknownOutcome if an earlier attempt may have been executed.
func (r request) honest(err error) error {
	if !*r.doubt || errors.Is(err, ErrUnknownOutcome) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
}

// again reports whether the request may be repeated after this answer.
func (r request) again(e *Error) bool {
	if e.Status == http.StatusInternalServerError { // the raft family's answer without a leader
		return e.RetryAfter >= 0 && r.repeat >= always
	}
	if e.Status != http.StatusServiceUnavailable || r.repeat == never {
		return false
	}
	return e.RetryAfter >= 0 || r.repeat > on503
}

// round asks each address at most once, beginning with the one that answered last. reached reports whether one of them
// accepted a connection.
func (c *Client) round(ctx context.Context, r request, body []byte, key string) (answer []byte, reached bool,
	err error) {
	var (
		tried   []Attempt
		refusal *Error
		first   = int(c.last.Load())
	)
	for i := range c.addrs {
		n := (first + i) % len(c.addrs)
		left := len(c.addrs) - i
		answer, sent, err := c.send(ctx, c.addrs[n], r, body, key, left)
		var e *Error
		switch {
		case err == nil:
			c.last.Store(int64(n))
			return answer, true, nil
		case errors.As(err, &e) && r.again(e):
			*r.doubt = *r.doubt || e.Unknown
			refusal = e // another member may already know a leader
			continue
		case errors.As(err, &e):
			c.last.Store(int64(n))
			return nil, true, e
		case errors.Is(ctx.Err(), context.Canceled):
			*r.doubt = *r.doubt || sent && r.changes()
			return nil, sent, r.honest(ctx.Err())
		case sent && r.repeat < always:
			return nil, true, fmt.Errorf("%s: %w: %w", c.addrs[n], ErrUnknownOutcome, err)
		}
		*r.doubt = *r.doubt || sent && r.changes()
		reached = reached || sent
		tried = append(tried, Attempt{c.addrs[n], err})
		if ctx.Err() != nil {
			break
		}
	}
	if refusal != nil {
		return nil, true, refusal
	}
	return nil, reached, &NoServerError{Tried: tried, Reading: r.method == http.MethodGet}
}

// send makes one HTTP request. After a failure, sent reports whether a connection was made, so that the request may
// have been executed. left is the number of remaining addresses, including this one; a hanging address leaves time for
// them.
func (c *Client) send(ctx context.Context, addr string, r request, body []byte, key string, left int) (answer []byte,
	sent bool, err error) {
	if deadline, ok := ctx.Deadline(); ok && r.repeat >= always && left > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, fairShare(time.Until(deadline), left))
		defer cancel()
	}
	traced := httptrace.WithClientTrace(ctx,
		&httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { sent = true }})
	target := addr + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	var reader io.Reader
	if body != nil {
		reader = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(traced, r.method, target, reader)
	if err != nil {
		return nil, false, err
	}
	req.Header.Set("User-Agent", c.agent)
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	start := time.Now()
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, sent, c.explain(err, time.Since(start))
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, true, c.explain(err, time.Since(start))
	case resp.StatusCode >= 300:
		if resp.StatusCode < 500 {
			c.tellAge(addr, resp.Header) // the object may not have been replicated yet
		}
		return nil, true, answerError(resp, answer)
	case len(answer) > maxAnswer:
		return nil, true, &Error{Status: resp.StatusCode, Message: "the answer is longer than 64 MiB"}
	}
	if r.header != nil {
		r.header(resp.Header)
	}
	c.tellAge(addr, resp.Header)
	return answer, true, nil
}

// fairShare returns one address's share of a call's remaining time: enough for a member to report that it has no
// leader, but not all.
func fairShare(remaining time.Duration, addresses int) time.Duration {
	return max(remaining/time.Duration(addresses), min(answerTimeout, remaining*5/6))
}

// retryAfter parses the Retry-After header, in seconds or as a date; -1 if it is absent or invalid.
func retryAfter(resp *http.Response) time.Duration {
	text := resp.Header.Get("Retry-After")
	if n, err := strconv.Atoi(text); err == nil && n >= 0 {
		return time.Duration(min(n, math.MaxInt32)) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, time.Until(at))
	}
	return -1
}

// newKey returns a random UUID (version 4).
func newKey() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// seconds rounds a duration up to whole seconds.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }
