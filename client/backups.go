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

// Wire types of the backups that members make by themselves.
type (
	Backup       = api.Backup
	BackupStatus = api.BackupStatus
	BackupCheck  = api.BackupCheck
)

// Backups lists the backups that members have made by themselves, the newest first.
func (c *Client) Backups(ctx context.Context) ([]Backup, error) {
	return enveloped[[]Backup](ctx, c, request{method: "GET", path: backups, repeat: always, stale: true})
}

// Backup reads one record.
func (c *Client) Backup(ctx context.Context, id string) (Backup, error) {
	return enveloped[Backup](ctx, c, request{method: "GET", path: backups + "/" + url.PathEscape(id), repeat: always,
		stale: true})
}

// BackupStatus sums up how it stands with the backups.
func (c *Client) BackupStatus(ctx context.Context) (BackupStatus, error) {
	return enveloped[BackupStatus](ctx, c, request{method: "GET", path: backups + "/status", repeat: always, stale: true})
}

// RunBackup has a member make a backup now and returns its record at once, or that of the one which is under way.
func (c *Client) RunBackup(ctx context.Context) (Backup, error) {
	return enveloped[Backup](ctx, c, request{method: "POST", path: backups, body: struct{}{}, repeat: alwaysKeyed})
}

// AwaitBackup blocks until a backup is over, or ctx ends. An error on the way is taken for a change of leader and borne
// for a while.
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

// VerifyBackup has the holder of a backup read its file again. It blocks for as long as that takes, without a deadline of
// ctx for 10 minutes.
func (c *Client) VerifyBackup(ctx context.Context, id string) (BackupCheck, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	return enveloped[BackupCheck](ctx, c, request{method: "POST", path: backups + "/" + url.PathEscape(id) + "/verify",
		body: struct{}{}, repeat: on503, slow: true})
}

// SaveBackup writes the file of a backup to w, from whichever member has it, and verifies the digest that came with it.
// Stale asks without a leader. On an error, what was written is worthless.
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

// receive copies an answer and verifies its digest.
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
