package client

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"muster/api"
)

const backups = "/api/v1/backups"

// Wire types of scheduled and requested backups.
type (
	Backup       = api.Backup
	BackupStatus = api.BackupStatus
	BackupCheck  = api.BackupCheck
)

// Backups lists the scheduled and requested backups, the newest first.
func (c *Client) Backups(ctx context.Context) ([]Backup, error) {
	return enveloped[[]Backup](ctx, c, request{method: "GET", path: backups, repeat: always, stale: true})
}

// Backup reads one record.
func (c *Client) Backup(ctx context.Context, id string) (Backup, error) {
	return enveloped[Backup](ctx, c, request{method: "GET", path: backups + "/" + url.PathEscape(id), repeat: always,
		stale: true})
}

// BackupStatus summarises the backups of the cluster.
func (c *Client) BackupStatus(ctx context.Context) (BackupStatus, error) {
	return enveloped[BackupStatus](ctx, c, request{method: "GET", path: backups + "/status", repeat: always, stale: true})
}

// RunBackup requests a backup and returns its record at once. If a backup is already running, it returns that record.
func (c *Client) RunBackup(ctx context.Context) (Backup, error) {
	return enveloped[Backup](ctx, c, request{method: "POST", path: backups, body: struct{}{}, repeat: alwaysKeyed})
}

// AwaitBackup blocks until a backup has finished, or ctx ends. It retries after errors for a while, because leadership
// may change.
func (c *Client) AwaitBackup(ctx context.Context, id string) (Backup, error) {
	for failures := 0; ; {
		b, err := c.Backup(ctx, id)
		var refused *Error
		switch {
		case err == nil && b.FinishedAt != nil:
			return b, nil
		case err == nil:
			failures = 0
		case errors.As(err, &refused) && refused.Status < 500:
			return b, err
		default:
			if failures++; failures > 10 || ctx.Err() != nil {
				return b, err
			}
		}
		select {
		case <-ctx.Done():
			return b, ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// VerifyBackup makes the holder of a backup read its file again. It blocks until the result; without a deadline of ctx,
// at most 10 minutes.
func (c *Client) VerifyBackup(ctx context.Context, id string) (BackupCheck, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	return enveloped[BackupCheck](ctx, c, request{
		method: "POST",
		path:   backups + "/" + url.PathEscape(id) + "/verify",
		body:   struct{}{},
		repeat: on503,
		slow:   true,
	})
}

// SaveBackup writes the file of a backup to w, from the member that holds it, and verifies the digest. With Stale it
// works without a leader. After an error, discard the bytes written to w.
func (c *Client) SaveBackup(ctx context.Context, w io.Writer, id string, o SnapshotOptions) (size int64, err error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	query := url.Values{}
	if o.Stale {
		query.Set("stale", "")
	}
	resp, err := c.stream(ctx, http.MethodGet, backups+"/"+url.PathEscape(id)+"/file", query, nil, 0)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	return receive(w, resp, o.Progress)
}

// receive copies an answer to w and verifies its digest.
func receive(w io.Writer, resp *http.Response, progress func(done, total int64)) (size int64, err error) {
	digest, ok := strings.CutPrefix(resp.Header.Get("Digest"), "sha-256=")
	if !ok {
		return 0, errors.New("the answer has no SHA-256 digest: this is not a backup")
	}
	sum := sha256.New()
	size, err = io.Copy(io.MultiWriter(w, sum), counted(resp.Body, resp.ContentLength, progress))
	if err != nil {
		return size, fmt.Errorf("the backup did not arrive whole: %w", err)
	}
	if base64.StdEncoding.EncodeToString(sum.Sum(nil)) != digest {
		return size, errors.New("the backup did not arrive whole: its digest does not match")
	}
	return size, nil
}
