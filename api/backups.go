package api

import "time"

// Backup is a scheduled or requested backup that a member has made or is making.
type Backup struct {
	ID         string     `json:"id"`
	State      string     `json:"state"` // waiting, running, good or failed
	Cause      string     `json:"cause"` // schedule or request
	NodeID     uint64     `json:"nodeId,omitempty"`
	Tried      []uint64   `json:"triedNodeIds,omitempty"` // members that failed or timed out
	File       string     `json:"file,omitempty"`         // its name
	Target     string     `json:"target,omitempty"`       // directory on that member
	Encrypted  bool       `json:"encrypted"`
	Present    bool       `json:"present"` // it is good, and its holder is a member
	StartedAt  time.Time  `json:"startedAt"`
	FinishedAt *time.Time `json:"finishedAt,omitempty"`
	Bytes      int64      `json:"bytes,omitempty"`
	SHA256     string     `json:"sha256,omitempty"`   // of the file, in hexadecimal digits
	Revision   uint64     `json:"revision,omitempty"` // of the state in it
	Reason     string     `json:"reason,omitempty"`   // why it failed, or why members failed before
}

// BackupStatus summarises the backups of the cluster.
type BackupStatus struct {
	Settings BackupSettings `json:"settings"`
	LastGood *Backup        `json:"lastGood,omitempty"`
	Last     *Backup        `json:"last,omitempty"`   // the last finished one, good or failed
	Active   *Backup        `json:"active,omitempty"` // the one that is running
	NextAt   *time.Time     `json:"nextAt,omitempty"` // next scheduled run
	Problems []string       `json:"problems"`         // what an operator should fix, a sentence each
}

// BackupSettings are the values of the settings backup.*.
type BackupSettings struct {
	IntervalSeconds int64    `json:"intervalSeconds"` // 0 is never
	Directory       string   `json:"directory"`       // or s3://BUCKET[/PREFIX]; empty: none is set
	Recipients      []string `json:"recipients"`
	Keep            int      `json:"keep"`
	KeepForSeconds  int64    `json:"keepForSeconds"` // 0: until there are too many
}

// BackupCheck is the result of verifying a backup.
type BackupCheck struct {
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitempty"`
	// Restored reports whether it was also restored into a scratch database. The holder cannot open an encrypted backup.
	Restored bool `json:"restored"`
}
