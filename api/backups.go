package api

import "time"

// Backup is one that a member has made by itself, or is making.
type Backup struct {
	ID         string     `json:"id"`
	State      string     `json:"state"` // waiting, running, good or failed
	Cause      string     `json:"cause"` // schedule or request
	NodeID     uint64     `json:"nodeId,omitempty"`
	Tried      []uint64   `json:"triedNodeIds,omitempty"` // members that were given up
	File       string     `json:"file,omitempty"`         // its name
	Target     string     `json:"target,omitempty"`       // where it is on that member
	Encrypted  bool       `json:"encrypted"`
	Present    bool       `json:"present"` // it is good, and its holder is a member
	StartedAt  time.Time  `json:"startedAt"`
	FinishedAt *time.Time `json:"finishedAt,omitempty"`
	Bytes      int64      `json:"bytes,omitempty"`
	SHA256     string     `json:"sha256,omitempty"`   // of the file, in hexadecimal digits
	Revision   uint64     `json:"revision,omitempty"` // that the state in it has
	Reason     string     `json:"reason,omitempty"`   // why it failed, or why members were given up
}

// BackupStatus is how it stands with the backups.
type BackupStatus struct {
	Settings BackupSettings `json:"settings"`
	LastGood *Backup        `json:"lastGood,omitempty"`
	Last     *Backup        `json:"last,omitempty"`   // that is over, good or not
	Active   *Backup        `json:"active,omitempty"` // that is being made
	NextAt   *time.Time     `json:"nextAt,omitempty"` // by the schedule
	Problems []string       `json:"problems"`         // what an operator should mend, a sentence each
}

// BackupSettings are the values of the settings backup.*.
type BackupSettings struct {
	IntervalSeconds int64    `json:"intervalSeconds"` // 0 is never
	Directory       string   `json:"directory"`       // or s3://BUCKET[/PREFIX]; empty: none is set
	Recipients      []string `json:"recipients"`
	Keep            int      `json:"keep"`
	KeepForSeconds  int64    `json:"keepForSeconds"` // 0 is as long as there are not too many
}

// BackupCheck is what came of reading a backup again.
type BackupCheck struct {
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitempty"`
	// Restored tells whether it was restored into a scratch database, too: its holder cannot open one that is encrypted.
	Restored bool `json:"restored"`
}
