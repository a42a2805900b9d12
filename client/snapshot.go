package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

const (
	snapshotPath = "/v1/operator/snapshot"
	// snapshotTimeout bounds a transfer whose context has no deadline; servers give up a little earlier.
	snapshotTimeout = 10 * time.Minute
)

func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, snapshotTimeout)
}

// SnapshotOptions select the kind of archive.
type SnapshotOptions struct {
	// Stale saves the contacted member's own state; it needs neither a leader nor a quorum.
	Stale bool
	// Recipient is an age recipient ("age1…"): the archive then includes the data-encryption keys, wrapped for it alone.
	Recipient string
	// Progress, if not nil, is called with the bytes so far and the total (-1 if unknown).
	Progress func(done, total int64)
}

// SaveSnapshot writes an archive of the whole state, a gzip'ed tar, to w and verifies its digest. It blocks until the
// archive is complete or ctx ends; without a deadline of ctx, at most 10 minutes. Config.Timeout does not apply. After
// an error, discard the bytes written to w.
func (c *Client) SaveSnapshot(ctx context.Context, w io.Writer, o SnapshotOptions) (size int64, err error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	query := url.Values{}
	if o.Stale {
		query.Set("stale", "")
	}
	if o.Recipient != "" {
		query.Set("recipient", o.Recipient)
	}
	resp, err := c.stream(ctx, http.MethodGet, snapshotPath, query, nil, 0)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	return receive(w, resp, o.Progress)
}

// RestoreSnapshot sends an archive of size bytes and blocks until the cluster has restored or refused it. It returns a
// description of the changes. It sends the archive once: after a broken connection the error is ErrUnknownOutcome.
func (c *Client) RestoreSnapshot(ctx context.Context, r io.Reader, size int64,
	progress func(done, total int64)) (string, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	resp, err := c.stream(ctx, http.MethodPut, snapshotPath, nil, counted(r, size, progress), size)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
	return resp.Header.Get("X-Muster-Restored"), nil
}

// stream makes a request with a body or answer of any length. It moves on to the next address only while no server can
// have received the request, or the body is unread.
func (c *Client) stream(ctx context.Context, method, path string, query url.Values, body io.Reader,
	size int64) (*http.Response, error) {
	var tried []Attempt
	first := int(c.last.Load())
	for i := range c.addrs {
		n := (first + i) % len(c.addrs)
		target := c.addrs[n] + path
		if len(query) > 0 {
			target += "?" + query.Encode()
		}
		touched := false
		var sent io.Reader
		if body != nil {
			sent = &watched{Reader: body, touched: &touched}
		}
		req, err := http.NewRequestWithContext(ctx, method, target, sent)
		if err != nil {
			return nil, err
		}
		if body != nil {
			req.ContentLength = size
		}
		req.Header.Set("User-Agent", c.agent)
		req.Header.Set("Accept-Encoding", "identity")
		if c.token != "" {
			req.Header.Set("Authorization", "Bearer "+c.token)
		}
		resp, err := c.http.Do(req)
		switch {
		case err == nil && resp.StatusCode < 300:
			c.last.Store(int64(n))
			return resp, nil
		case err == nil:
			text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
			resp.Body.Close()
			return nil, answerError(resp, text)
		case touched && method != http.MethodGet && ctx.Err() != nil:
			return nil, fmt.Errorf("%s: %w: %w", c.addrs[n], ErrUnknownOutcome, ctx.Err())
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case touched:
			return nil, fmt.Errorf("%s: %w: %w", c.addrs[n], ErrUnknownOutcome, c.explain(err, 0))
		}
		tried = append(tried, Attempt{c.addrs[n], c.explain(err, 0)})
	}
	return nil, &NoServerError{Tried: tried}
}

// watched records whether a body was read. It hides the reader's other methods, so that net/http does not close it.
type watched struct {
	io.Reader
	touched *bool
}

func (w *watched) Read(p []byte) (int, error) {
	*w.touched = true
	return w.Reader.Read(p)
}

type counter struct {
	io.Reader
	done, total int64
	progress    func(done, total int64)
}

func counted(r io.Reader, total int64, progress func(done, total int64)) io.Reader {
	if progress == nil {
		return r
	}
	return &counter{r, 0, total, progress}
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if c.done += int64(n); n > 0 {
		c.progress(c.done, c.total)
	}
	return n, err
}
