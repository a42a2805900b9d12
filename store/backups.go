package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"muster/store/sizes"
)

// Backup is the record of a backup, running or finished.
type Backup struct {
	ID         string
	Cause      string // BackupBySchedule or BackupByRequest
	State      string
	NodeID     uint64   // that writes or holds the file; 0: none yet
	Tried      []uint64 // members that failed
	Name       string   // of the file
	Target     string   // a directory on the member, or a bucket
	Recipients int      // number of recipients of the encrypted file
	StartedAt  time.Time
	FinishedAt time.Time // zero until it is finished
	Size       int64     // bytes
	SHA256     string    // of the file, in hexadecimal digits
	Revision   uint64    // of the state in it
	Reason     string    // why it failed, or why members failed before
	CreatedRev uint64
}

// Causes and states of backups.
const (
	BackupBySchedule = "schedule"
	BackupByRequest  = "request"

	BackupWaiting = "waiting"
	BackupRunning = "running"
	BackupGood    = "good"
	BackupFailed  = "failed"
)

// Active reports whether the backup is not finished.
func (b *Backup) Active() bool { return b.State == BackupWaiting || b.State == BackupRunning }

// Present reports whether the backup is good, and in a bucket or on a present member.
func (b *Backup) Present(members map[uint64]bool) bool {
	return b.State == BackupGood && (InBucket(b.Target) || members[b.NodeID])
}

const selectBackups = "SELECT id, cause, state, raft_node_id, tried, name, target, recipients, started_at, " +
	"coalesce(finished_at, ''), size, sha256, state_revision, reason, created_rev FROM backups"

func scanBackup(rows *sql.Rows) (b Backup, err error) {
	var tried, started, finished string
	if err = rows.Scan(&b.ID, &b.Cause, &b.State, &b.NodeID, &tried, &b.Name, &b.Target, &b.Recipients, &started,
		&finished, &b.Size, &b.SHA256, &b.Revision, &b.Reason, &b.CreatedRev); err != nil {
		return b, err
	}
	b.StartedAt, b.FinishedAt = parseTime(started), parseTime(finished)
	return b, json.Unmarshal([]byte(tried), &b.Tried)
}

func (v *View) backups() ([]Backup, error) {
	return collect(v, scanBackup, selectBackups+" ORDER BY created_rev DESC")
}

// List lists the records, the newest first. Callers must not modify them.
func (bk Backups) List(ctx context.Context, c Consistency) ([]Backup, error) {
	return recall(ctx, bk.s, c, "backups", []string{"backups"}, (*View).backups)
}

// Get returns a record, or nil.
func (bk Backups) Get(ctx context.Context, c Consistency, id string) (*Backup, error) {
	list, err := bk.List(ctx, c)
	if i := slices.IndexFunc(list, func(b Backup) bool { return b.ID == id }); i >= 0 {
		return &list[i], err
	}
	return nil, err
}

func (v *View) backup(id string) (*Backup, error) {
	list, err := collect(v, scanBackup, selectBackups+" WHERE id = ?", id)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return &list[0], nil
}

func (v *View) activeBackup() (*Backup, error) {
	list, err := collect(v, scanBackup, selectBackups+" WHERE state IN ('waiting', 'running')")
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return &list[0], nil
}

// Open creates the record of a backup that waits for a member. When a backup is already active, it returns that record
// instead.
func (bk Backups) Open(ctx context.Context, actor Actor, cause string) (Backup, error) {
	return makeOnce(ctx, bk.s, actor, func(tx *Tx) (Backup, error) {
		o, err := tx.backupSettings()
		if err != nil {
			return Backup{}, err
		}
		if o.Directory == "" {
			return Backup{}, refuse(Conflict, "no directory for backups is set: set %s", SettingBackupDirectory)
		}
		active, err := tx.activeBackup()
		if err != nil {
			return Backup{}, err
		}
		if active != nil {
			return *active, nil
		}
		b := Backup{
			ID:         NewID(),
			Cause:      cause,
			State:      BackupWaiting,
			StartedAt:  tx.Now,
			CreatedRev: tx.Rev,
		}
		if err := tx.exec("INSERT INTO backups (id, cause, state, started_at, created_rev, modified_rev) "+
			"VALUES (?, ?, ?, ?, ?, ?)", b.ID, b.Cause, b.State, b.StartedAt, tx.Rev, tx.Rev); err != nil {
			return b, err
		}
		return b, tx.audit("backup.open", "backup/"+b.ID, cause)
	})
}

// Assign assigns an active backup to member b.NodeID, which will write the file b.Name; b.Reason is why other members
// failed. It returns ErrUnderWay when the backup is finished.
func (bk Backups) Assign(ctx context.Context, actor Actor, b Backup) error {
	return bk.s.Write(ctx, actor, func(tx *Tx) error {
		now, err := tx.backup(b.ID)
		if err != nil {
			return err
		}
		if now == nil || !now.Active() {
			return ErrUnderWay
		}
		tried := append([]uint64{}, now.Tried...)
		if now.NodeID != 0 && now.NodeID != b.NodeID && !slices.Contains(tried, now.NodeID) {
			tried = append(tried, now.NodeID)
		}
		text, err := json.Marshal(tried)
		if err != nil {
			return err
		}
		if err := tx.exec("UPDATE backups SET state = ?, raft_node_id = ?, tried = ?, name = ?, target = ?, "+
			"recipients = ?, reason = ?, modified_rev = ? WHERE id = ?", BackupRunning, b.NodeID, string(text), b.Name,
			b.Target, b.Recipients, sizes.Cut("backups", "reason", b.Reason), tx.Rev, b.ID); err != nil {
			return err
		}
		return tx.audit("backup.start", "backup/"+b.ID, fmt.Sprintf("%s: %s", nodeObject(b.NodeID), b.Path()))
	})
}

// Path returns the path of the file, for display.
func (b *Backup) Path() string {
	if b.Name == "" {
		return ""
	}
	return strings.TrimSuffix(b.Target, "/") + "/" + b.Name
}

// Finish records the result of a backup: b.State is BackupGood or BackupFailed. It does nothing when the backup is
// already finished or has been assigned to another member.
func (bk Backups) Finish(ctx context.Context, actor Actor, b Backup) error {
	return bk.s.Write(ctx, actor, func(tx *Tx) error {
		now, err := tx.backup(b.ID)
		if err != nil || now == nil || !now.Active() || now.NodeID != b.NodeID {
			return err
		}
		if err := tx.exec("UPDATE backups SET state = ?, finished_at = ?, size = ?, sha256 = ?, state_revision = ?, "+
			"reason = ?, modified_rev = ? WHERE id = ?", b.State, tx.Now, b.Size, b.SHA256, b.Revision,
			sizes.Cut("backups", "reason", b.Reason), tx.Rev, b.ID); err != nil {
			return err
		}
		if b.State == BackupFailed {
			return tx.audit("backup.fail", "backup/"+b.ID, b.Reason)
		}
		return tx.audit("backup.finish", "backup/"+b.ID,
			fmt.Sprintf("%s: %s, %d bytes, revision %d", nodeObject(b.NodeID), now.Path(), b.Size, b.Revision))
	})
}

// Spoil marks a good backup as failed because its file has changed.
func (bk Backups) Spoil(ctx context.Context, actor Actor, id, reason string) error {
	return bk.s.Write(ctx, actor, func(tx *Tx) error {
		b, err := tx.backup(id)
		if err != nil || b == nil || b.State != BackupGood {
			return err
		}
		if err := tx.exec("UPDATE backups SET state = ?, reason = ?, modified_rev = ? WHERE id = ?", BackupFailed,
			sizes.Cut("backups", "reason", reason), tx.Rev, id); err != nil {
			return err
		}
		return tx.audit("backup.spoil", "backup/"+id, reason)
	})
}

// Forget deletes the record of a backup whose file is gone; why goes into the audit.
func (bk Backups) Forget(ctx context.Context, actor Actor, id, why string) error {
	return bk.s.Write(ctx, actor, func(tx *Tx) error {
		b, err := tx.backup(id)
		if err != nil || b == nil || b.Active() {
			return err
		}
		if err := tx.exec("DELETE FROM backups WHERE id = ?", id); err != nil {
			return err
		}
		return tx.audit("backup.delete", "backup/"+id, fmt.Sprintf("%s: %s: %s", nodeObject(b.NodeID), b.Path(), why))
	})
}
