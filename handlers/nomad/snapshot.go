package nomad

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"muster/handlers"
	"muster/store"
)

// restoreLimit is the maximum size of a compressed archive in bytes.
const restoreLimit = 4 << 30

// headerRestored is the header that describes what a restore changed; the documented answer has no body.
const headerRestored = "X-Muster-Restored"

// saveSnapshot serves an archive of the state (reference nomad_raft, section 4). It writes it to a file first, because
// the digest is in a header. With `recipient`, an age recipient, the archive also has the data-encryption keys,
// encrypted for that recipient.
func (s *service) saveSnapshot(q *handlers.Request) error {
	var recipients []string
	if query := q.URL.Query(); query.Has("recipient") { // without one the archive lacks the keys
		recipient := query.Get("recipient")
		if strings.TrimSpace(recipient) == "" {
			return handlers.Fail(http.StatusBadRequest, "recipient must not be blank: leave it out for an archive without keys")
		}
		recipients = append(recipients, recipient)
	}
	f, err := s.snapshot(q.Context(), q.Consistency(), recipients)
	if err != nil {
		return err
	}
	defer f.Close()
	h := q.W.Header()
	h.Set("Content-Type", "application/x-gzip")
	h.Set("Content-Length", strconv.FormatInt(f.Size, 10))
	h.Set("Digest", "sha-256="+base64.StdEncoding.EncodeToString(f.SHA256))
	h.Set("X-Nomad-Index", strconv.FormatUint(f.Meta.Index, 10))
	q.W.WriteHeader(http.StatusOK)
	_, _ = io.Copy(q.W, f)
	return nil
}

// snapshot makes the file of an archive. It does not wait for a disk that does not answer: nobody can end what waits
// for that, which keeps its place until the disk answers.
func (s *service) snapshot(ctx context.Context, c store.Consistency, recipients []string) (*store.SnapshotFile, error) {
	select { // each one needs room for a copy of the database
	case s.snapshots <- struct{}{}:
	case <-ctx.Done():
		return nil, handlers.Later("too many snapshots at once; try again")
	}
	type result struct {
		file *store.SnapshotFile
		err  error
	}
	made, left := make(chan result), make(chan struct{})
	defer close(left)
	go func() {
		defer func() { <-s.snapshots }()
		f, err := s.Archives.SnapshotFile(ctx, c, recipients, s.Version)
		select {
		case made <- result{f, err}:
		case <-left:
			if err == nil {
				f.Close()
			}
		}
	}()
	look := time.NewTicker(storageLook)
	defer look.Stop()
	for {
		select {
		case r := <-made:
			return r.file, r.err
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-look.C:
			if s.Cluster.DiskStuck() {
				return nil, handlers.Later("this member's disk does not answer; ask another one")
			}
		}
	}
}

// storageLook is how often a request that waits for the disk looks whether that answers.
const storageLook = 500 * time.Millisecond

// restoreSnapshot checks an archive completely and restores the cluster's contents from it in one transaction, see
// docs/backup.md. The answer is empty, as documented.
func (s *service) restoreSnapshot(q *handlers.Request) error {
	refused := func(err error) error {
		var refusal *store.Refusal
		if errors.As(err, &refusal) {
			return handlers.Fail(http.StatusInternalServerError, "failed to restore from snapshot: "+refusal.Message)
		}
		return err
	}
	if err := s.Replica.Confirm(q.Context()); err != nil {
		return err
	}
	select { // each one needs room for two copies of the state
	case s.restores <- struct{}{}:
		defer func() { <-s.restores }()
	default:
		return handlers.Later("another restore is under way; try again")
	}
	limits := store.ArchiveLimits{State: s.RestoreLimit, Room: s.Cluster.DiskRoom}
	archive, err := s.Archives.Read(q.Context(), http.MaxBytesReader(q.W, q.Request.Body, restoreLimit), limits)
	if err != nil {
		return refused(err)
	}
	defer func() {
		if err := archive.Close(); err != nil {
			s.Logger.Warn("the files of a restore were not removed", "err", err)
		}
	}()
	done, err := s.Archives.Restore(q.Context(), q.Actor, archive)
	if err != nil {
		if errors.Is(err, store.ErrKeyMoved) {
			return handlers.Later("the data-encryption key was rotated in the meantime; try again")
		}
		return refused(err)
	}
	s.Logger.Info("restored", "revision", done.Revision, "changes", done.String())
	s.Cluster.Wake()
	q.W.Header().Set(headerRestored, done.String())
	q.W.WriteHeader(http.StatusOK)
	return nil
}
