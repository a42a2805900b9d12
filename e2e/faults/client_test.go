package faults

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"muster/client"
)

// slack is added to what is promised: the harness shares the machine with the members.
const slack = 2 * time.Second

// bound is how long the answer to a request may take that waits for the database alone.
const bound = 5*time.Second + slack

// verdict is what a client may believe after a request.
type verdict int

const (
	done    verdict = iota // 2xx
	refused                // a definite refusal: nothing has happened
	nothing                // 503 or 500 that says nothing has happened
	unknown                // it may have happened
	unsent                 // it did not get as far as a member
	strange                // no answer that a member may give
)

func (v verdict) String() string {
	return [...]string{"done", "refused", "nothing", "unknown", "unsent", "strange"}[v]
}

// answer is what came of a request.
type answer struct {
	verdict verdict
	status  int
	body    string
	err     error
	took    time.Duration
}

func (a answer) String() string {
	if a.err != nil {
		return fmt.Sprintf("%s (%v) after %v", a.verdict, a.err, a.took.Round(time.Millisecond))
	}
	return fmt.Sprintf("%s, %d %.300s after %v", a.verdict, a.status, a.body, a.took.Round(time.Millisecond))
}

// web asks members. It does not check their certificates, which campaigns replace: other tests do.
var web = &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{
	TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
	ForceAttemptHTTP2: false,
	// one connection for each request under way
	TLSNextProto:        map[string]func(string, *tls.Conn) http.RoundTripper{},
	DialContext:         (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
	MaxIdleConnsPerHost: 16,
	IdleConnTimeout:     10 * time.Second,
}}

// do sends one request and judges its answer. What nobody may answer, or too late, is a violation.
func (c *campaign) do(m *member, method, path, body string, limit time.Duration) (a answer) {
	before, served := m.disturbed.Load(), m.answers()
	begin := time.Now()
	a = c.try(m, method, path, body, limit+8*time.Second)
	a.took = time.Since(begin)
	if a.verdict == strange {
		c.violate("%s answers %s %s with %v", m.name, method, path, a)
	}
	undisturbed := served && m.disturbed.Load() == before && m.answers()
	if undisturbed && limit > 0 && a.took > limit {
		if lost := c.host.Lost(begin, begin.Add(a.took)); a.took-lost > limit {
			c.violate("%s answers %s %s too late, and the machine lost but %v: %v", m.name, method, path, lost, a)
		}
	}
	return a
}

func (c *campaign) try(m *member, method, path, body string, limit time.Duration) (a answer) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "https://"+m.api+path, bytes.NewReader([]byte(body)))
	if err != nil {
		return answer{err: err, verdict: strange}
	}
	req.GetBody = nil // the transport is not to send it again by itself: the record would not know
	req.Header.Set("Authorization", "Bearer "+c.token)
	if body != "" && method != "DELETE" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := web.Do(req)
	if err != nil {
		if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" {
			return answer{err: err, verdict: unsent}
		}
		return answer{err: err, verdict: unknown}
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{err: err, verdict: unknown}
	}
	a = answer{status: resp.StatusCode, body: string(data)}
	a.verdict = judge(method, path, a, resp.Header)
	return a
}

// Texts that the families give, each in its own envelope, when nothing has been done and may be in a moment.
var notDone = []string{"no cluster leader", "No cluster leader", "; try again", "older schema"}

// judge reads an answer as a client must: by its status, by the header that says of an outcome that it is not known,
// and by the families' documented texts. What fits none of these is strange.
func judge(method, path string, a answer, h http.Header) verdict {
	says := func(text string) bool { return strings.Contains(a.body, text) }
	again := h.Get("Retry-After") != ""
	plain := strings.HasPrefix(path, "/v1/") // these families say with 500 what others say with 503
	unavailable := a.status == http.StatusServiceUnavailable || plain && a.status == http.StatusInternalServerError
	switch {
	case a.status/100 == 2:
		return done
	case unavailable && h.Get("X-Muster-Outcome") == "unknown":
		if !says("may or may not have been carried out") || path == joinPath && !again { // a join is safe to repeat
			return strange
		}
		return unknown
	case unavailable && again && slices.ContainsFunc(notDone, says):
		return nothing
	case plain && a.status == http.StatusInternalServerError &&
		(says("failed to transfer leadership: ") || says("leadership transfer in progress")):
		return refused
	// one that admits nobody any more
	case method == "POST" && path == joinPath && a.status == http.StatusUnauthorized && says("oin token"):
		return refused
	}
	switch a.status {
	case http.StatusBadRequest, http.StatusNotFound, http.StatusConflict, http.StatusTooManyRequests:
		return refused
	}
	return strange
}

// result takes an answer of the members family apart.
func result[T any](a answer) (v T, err error) {
	if a.verdict != done {
		return v, fmt.Errorf("%v", a)
	}
	var x struct{ Result *T }
	x.Result = &v
	err = json.Unmarshal([]byte(a.body), &x)
	return v, err
}

func (m *member) status() (st client.Status, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", "https://"+m.api+"/api/v1/status", nil)
	if err != nil {
		return st, err
	}
	resp, err := web.Do(req)
	if err != nil {
		return st, err
	}
	defer resp.Body.Close()
	var v struct{ Result client.Status }
	err = json.NewDecoder(resp.Body).Decode(&v)
	return v.Result, err
}

func (c *campaign) list(m *member) ([]client.Member, error) {
	return result[[]client.Member](c.try(m, "GET", membersPath, "", bound))
}

// joinToken makes a token for a machine of the campaign.
func (c *campaign) joinToken(m *member) (token string, err error) {
	err = c.host.Within(patience, func() error {
		x, err := result[client.NewJoinToken](c.try(m, "POST", tokensPath, `{"ttlSeconds":3600}`, bound))
		token = x.Token
		return err
	})
	return token, err
}

const (
	membersPath = "/api/v1/cluster/members"
	tokensPath  = "/api/v1/cluster/join-tokens"
	mintPath    = "/api/v1/cluster/pki/join-tokens"
	secretsPath = "/api/v1/cluster/secrets/"
	joinPath    = "/api/v1/cluster/join"
)
