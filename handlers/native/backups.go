package native

import (
	"encoding/base64"
	"encoding/hex"
	"io"
	"net/http"
	"strconv"

	"muster/api"
	"muster/handlers"
	"muster/store"
)

// showBackup converts a record to its wire form; members are the node ids of the cluster.
func showBackup(b *store.Backup, members map[uint64]bool) api.Backup {
	out := api.Backup{
		ID:        b.ID,
		State:     b.State,
		Cause:     b.Cause,
		NodeID:    b.NodeID,
		Tried:     b.Tried,
		File:      b.Name,
		Target:    b.Target,
		Encrypted: b.Recipients > 0,
		Present:   b.Present(members),
		StartedAt: api.Time(b.StartedAt),
		Bytes:     b.Size,
		SHA256:    b.SHA256,
		Revision:  b.Revision,
		Reason:    b.Reason,
	}
	if !b.FinishedAt.IsZero() {
		out.FinishedAt = api.TimePointer(&b.FinishedAt)
	}
	return out
}

func (s *service) memberIDs(q *handlers.Request) (map[uint64]bool, error) {
	list, err := s.Members.List(q.Context(), q.Consistency())
	ids := make(map[uint64]bool, len(list))
	for i := range list {
		ids[list[i].NodeID] = true
	}
	return ids, err
}

// listBackups lists the records, the newest first.
func (s *service) listBackups(q *handlers.Request) error {
	list, err := s.Backups.List(q.Context(), q.Consistency())
	if err != nil {
		return err
	}
	members, err := s.memberIDs(q)
	if err != nil {
		return err
	}
	out := make([]api.Backup, len(list))
	for i := range list {
		out[i] = showBackup(&list[i], members)
	}
	return q.Result(http.StatusOK, out)
}

// backupStatus summarises the backups.
func (s *service) backupStatus(q *handlers.Request) error {
	found, err := s.Cluster.BackupState(q.Context(), q.Consistency())
	if err != nil {
		return err
	}
	members, err := s.memberIDs(q)
	if err != nil {
		return err
	}
	show := func(b *store.Backup) *api.Backup {
		if b == nil {
			return nil
		}
		shown := showBackup(b, members)
		return &shown
	}
	o := found.Settings
	out := api.BackupStatus{
		Settings: api.BackupSettings{
			IntervalSeconds: int64(o.Interval.Seconds()),
			Directory:       o.Directory,
			Recipients:      append([]string{}, o.Recipients...),
			Keep:            o.Keep,
			KeepForSeconds:  int64(o.KeepFor.Seconds()),
		},
		LastGood: show(found.LastGood),
		Last:     show(found.Last),
		Active:   show(found.Active),
		NextAt:   api.TimePointer(found.Next),
		Problems: append([]string{}, found.Problems...),
	}
	return q.Result(http.StatusOK, out)
}

// runBackup starts a backup and answers with its record. If one is already running, it answers with that.
func (s *service) runBackup(q *handlers.Request) error {
	b, err := s.Backups.Open(q.Context(), q.Actor, store.BackupByRequest)
	if err != nil {
		return err
	}
	return q.Result(http.StatusAccepted, showBackup(&b, nil))
}

func (s *service) findBackup(q *handlers.Request) (*store.Backup, error) {
	b, err := s.Backups.Get(q.Context(), q.Consistency(), q.Vars()["id"])
	if err == nil && b == nil {
		err = handlers.Fail(http.StatusNotFound, "backup not found")
	}
	return b, err
}

func (s *service) getBackup(q *handlers.Request) error {
	b, err := s.findBackup(q)
	if err != nil {
		return err
	}
	members, err := s.memberIDs(q)
	if err != nil {
		return err
	}
	return q.Result(http.StatusOK, showBackup(b, members))
}

// heldBackup finds a backup whose holder is a member.
func (s *service) heldBackup(q *handlers.Request) (*store.Backup, error) {
	b, err := s.findBackup(q)
	if err != nil {
		return nil, err
	}
	members, err := s.memberIDs(q)
	switch {
	case err != nil:
		return nil, err
	case b.State != store.BackupGood:
		return nil, handlers.Fail(http.StatusConflict, "the backup is "+b.State+": it has no file")
	case !b.Present(members):
		return nil, handlers.Fail(http.StatusConflict,
			"node "+strconv.FormatUint(b.NodeID, 10)+", which had the file, is no longer a member")
	}
	return b, nil
}

// verifyBackup asks the holder to verify the file. A backup whose file has changed counts as failed from then on.
func (s *service) verifyBackup(q *handlers.Request) error {
	b, err := s.heldBackup(q)
	if err != nil {
		return err
	}
	reason, damaged := s.Cluster.VerifyBackup(q.Context(), b)
	if damaged {
		if err := s.Backups.Spoil(q.Context(), q.Actor, b.ID, reason); err != nil {
			return err
		}
	}
	return q.Result(http.StatusOK, api.BackupCheck{OK: reason == "", Reason: reason,
		Restored: reason == "" && b.Recipients == 0})
}

// backupFile sends the file, from whichever member holds it.
func (s *service) backupFile(q *handlers.Request) error {
	b, err := s.heldBackup(q)
	if err != nil {
		return err
	}
	f, size, err := s.Cluster.OpenBackup(q.Context(), b)
	if err != nil {
		return err
	}
	defer f.Close()
	h := q.W.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Length", strconv.FormatInt(size, 10))
	h.Set("Content-Disposition", `attachment; filename="`+b.Name+`"`)
	if sum, err := hex.DecodeString(b.SHA256); err == nil {
		h.Set("Digest", "sha-256="+base64.StdEncoding.EncodeToString(sum))
	}
	q.W.WriteHeader(http.StatusOK)
	_, _ = io.Copy(q.W, f)
	return nil
}
