package transport

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"muster/store"
)

// Paths of internal requests that the transport itself knows; their servers register them.
const (
	PathProbe        = "/internal/probe"
	PathAnnounce     = "/internal/announce"
	PathTrust        = "/internal/trust"
	PathCertificates = "/internal/certificates"
	PathNudge        = "/internal/nudge"
	PathPrepare      = "/internal/prepare"
)

// headerRemoved marks the answer to a removed node, whose id is never used again.
const headerRemoved = "X-Muster-Removed"

// headerRecovered, in the answer to a member that a recovery left out, is since when the recovered cluster has had a
// leader (Service.Recovered).
const headerRecovered = "X-Muster-Recovered"

// newClient returns a client of the internal HTTP. aged: the certificates of both ends may have expired.
func (t *Transport) newClient(aged bool) *http.Transport {
	return &http.Transport{
		DialTLSContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			id, err := nodeOf(addr)
			if err != nil {
				return nil, err
			}
			return t.dial(ctx, id, protoHTTP, aged)
		},
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: 2,
		IdleConnTimeout:     time.Minute,
		// The probe each second is a sign of life, too.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 1500 * time.Millisecond, PingTimeout: 500 * time.Millisecond,
			MaxConcurrentStreams: 1000},
	}
}

// HostOf returns the host name of a member in requests to its internal HTTP.
func HostOf(nodeID uint64) string { return fmt.Sprintf("node-%d", nodeID) }

func nodeOf(addr string) (uint64, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return 0, err
	}
	digits, ok := strings.CutPrefix(host, "node-")
	if !ok {
		return 0, fmt.Errorf("%q is not the name of a node", host)
	}
	return strconv.ParseUint(digits, 10, 64)
}

// Call sends one internal request and decodes the answer into out, unless that is nil. It blocks until the answer or
// until ctx ends. An answer other than 200 is a *StatusError.
func (t *Transport) Call(ctx context.Context, method string, nodeID uint64, path string, body io.Reader,
	out any) error {
	return call(ctx, t.roundTrip, method, nodeID, path, body, out)
}

func call(ctx context.Context, by func(*http.Request) (*http.Response, error), method string, nodeID uint64,
	path string, body io.Reader, out any) error {
	r, err := http.NewRequestWithContext(ctx, method, "https://"+HostOf(nodeID)+":1"+path, body)
	if err != nil {
		return err
	}
	resp, err := by(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return &StatusError{
			NodeID:    nodeID,
			Status:    resp.StatusCode,
			Text:      string(data),
			Removed:   resp.Header.Get(headerRemoved) != "",
			Recovered: resp.Header.Get(headerRecovered),
		}
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(data, out)
}

// StatusError is an answer of another member other than 200.
type StatusError struct {
	NodeID uint64
	Status int
	Text   string

	Removed   bool   // the member reports that this one was removed
	Recovered string // of the cluster that has left this member out: see Service.Recovered
}

// Final reports whether the same request would be rejected again.
func (e *StatusError) Final() bool {
	return e.Status < 500 && e.Status != http.StatusMisdirectedRequest
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("node %d answers %d: %.200s", e.NodeID, e.Status, e.Text)
}

// Get requests something that is too long for Call. The caller checks the status and closes the body.
func (t *Transport) Get(ctx context.Context, nodeID uint64, path string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+HostOf(nodeID)+":1"+path, nil)
	if err != nil {
		return nil, err
	}
	return t.client.RoundTrip(r)
}

// CallAt is Call to one address, over a new connection.
func (t *Transport) CallAt(ctx context.Context, method string, id uint64, address, path string, body io.Reader,
	out any) error {
	once := &http.Transport{ForceAttemptHTTP2: true,
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return t.dialAt(ctx, id, address, protoHTTP, false)
		}}
	defer once.CloseIdleConnections()
	return call(ctx, once.RoundTrip, method, id, path, body, out)
}

// Nudge tells members that leadership has just been handed over. It does not block.
func (t *Transport) Nudge(nodes []uint64) {
	for _, id := range nodes {
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_ = t.Call(ctx, http.MethodPost, id, PathNudge, nil, nil)
		}()
	}
}

// Prepared is a voter's answer to a Preparation.
type Prepared struct {
	Revision uint64 `json:"revision"` // of the voter's copy
}

// Prepare asks a voter to prepare for the leadership that it is about to get. It blocks until the answer or until ctx
// ends.
func (t *Transport) Prepare(ctx context.Context, node uint64, p store.Preparation) (revision uint64, err error) {
	body, err := json.Marshal(p)
	if err != nil {
		return 0, err
	}
	var out Prepared
	err = t.Call(ctx, http.MethodPost, node, PathPrepare, bytes.NewReader(body), &out)
	return out.Revision, err
}

// Forward sends a client's request to a member's internal HTTP: an attempt (store.Attempt) over the connection that all
// of them share, with the whole answer, other requests over HTTP/2. Its errors have a method NotSent, which reports
// whether the member has certainly not received the request.
func (t *Transport) Forward(r *http.Request, nodeID uint64) (*http.Response, error) {
	r.URL.Scheme, r.URL.Host, r.Host = "https", HostOf(nodeID)+":1", HostOf(nodeID)
	// HTTP/2 refuses most headers of a client's connection. Those that Connection names stay: it must not name a member's.
	for name := range hopByHop {
		r.Header.Del(name)
	}
	r.Trailer = nil
	if t.service.Alternatives != nil && t.service.Alternatives(nodeID) {
		r = r.WithContext(context.WithValue(r.Context(), boundKey{}, t.DialBound))
	}
	if a := store.AttemptOf(r.Context()); a != nil {
		if resp, known, err := t.share(r, nodeID, a); known {
			return resp, err
		}
	}
	var sent atomic.Bool // on any of the connections that the client has tried
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { sent.Store(true) }}
	resp, err := t.client.RoundTrip(r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
	if err != nil {
		return nil, forwardError{err, sent.Load()}
	}
	return resp, nil
}

// forwardError is a failure to send a request or to receive its answer.
type forwardError struct {
	error
	sent bool
}

// NotSent reports whether the request was sent over no connection.
func (e forwardError) NotSent() bool { return !e.sent }

func (e forwardError) Unwrap() error { return e.error }
