// Package backup makes scheduled and requested backups of the cluster's state. The leader decides when, on which
// member, and which backups are deleted (Leader); the member writes the file, reads it back and restores it into a
// scratch database (Maker). The records are rows of the table backups, so that any leader can continue.
//
// It does not know the content of an archive: package store does.
package backup

import (
	"log/slog"
	"time"

	"muster/cluster/transport"
	"muster/store"
)

// Config is the configuration of both sides.
type Config struct {
	Store     *store.Store
	Transport *transport.Transport
	Version   string       // version of this binary
	Room      func() int64 // free bytes for files beside the database
	Loopback  bool         // this member is on loopback, so buckets may be, too
	Logger    *slog.Logger
}

// Paths of internal requests.
const (
	pathCheck  = "/internal/backups/check"
	pathMake   = "/internal/backups/make"
	pathRemove = "/internal/backups/remove"
	pathVerify = "/internal/backups/verify"
	pathFile   = "/internal/backups/file"
)

// order is a request of the leader to a member. Unused fields are omitted.
type order struct {
	ID         string   `json:"id,omitempty"`
	Name       string   `json:"name,omitempty"`
	Target     string   `json:"target"`
	Recipients []string `json:"recipients,omitempty"`
	Revision   uint64   `json:"revision,omitempty"` // the least revision of the state
	Size       int64    `json:"size,omitempty"`     // expected size of the file
	SHA256     string   `json:"sha256,omitempty"`
	S3         *access  `json:"s3,omitempty"` // for a bucket; nil: as this member knows it
}

// outcome is the result of an order.
type outcome struct {
	Size     int64  `json:"size,omitempty"`
	SHA256   string `json:"sha256,omitempty"`
	Revision uint64 `json:"revision,omitempty"`
	Reason   string `json:"reason,omitempty"` // why it failed, a clause; empty on success
	Unread   bool   `json:"unread,omitempty"` // the target did not answer, so the state of the file is unknown
}

func failed(err error) outcome { return outcome{Reason: err.Error()} }

const (
	checkWithin = 5 * time.Second
	makeWithin  = time.Hour
	readWithin  = 9 * time.Minute
	// stallAfter is how long one operation of a target may take. abandonAfter is how long a member continues without a
	// waiting leader, and takeOverAfter how long a leader waits for a member that does not answer: it must be longer, so
	// that two members never write at the same time.
	stallAfter    = 30 * time.Second
	abandonAfter  = 20 * time.Second
	takeOverAfter = 30 * time.Second
)

const encryptedSuffix = ".tgz.age"
