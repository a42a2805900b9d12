// Package backup is how members save the state of the cluster by themselves. The leader decides when, on which member, and
// what is deleted again (Leader); the member writes the file, reads it back and restores it into a scratch database
// (Maker). The records are rows of the table backups, so that any leader goes on.
//
// It does not know what an archive holds: that is store's.
package backup

import (
	"log/slog"
	"time"

	"muster/cluster/transport"
	"muster/store"
)

// Config is what both sides need.
type Config struct {
	Store     *store.Store
	Transport *transport.Transport
	Version   string       // of this program
	Room      func() int64 // bytes that may be written beside the database
	Loopback  bool         // this member is itself on loopback, and so may buckets be
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

// order is what a leader wants of a member. What it does not need is left out.
type order struct {
	ID         string   `json:"id,omitempty"`
	Name       string   `json:"name,omitempty"`
	Target     string   `json:"target"`
	Recipients []string `json:"recipients,omitempty"`
	Revision   uint64   `json:"revision,omitempty"` // that the state has at least
	Size       int64    `json:"size,omitempty"`     // that the file must have
	SHA256     string   `json:"sha256,omitempty"`
	S3         *access  `json:"s3,omitempty"` // where the target is a bucket; nil: as this member knows it
}

// outcome is what came of an order.
type outcome struct {
	Size     int64  `json:"size,omitempty"`
	SHA256   string `json:"sha256,omitempty"`
	Revision uint64 `json:"revision,omitempty"`
	Reason   string `json:"reason,omitempty"` // why it failed, a clause; empty when it did not
	Unread   bool   `json:"unread,omitempty"` // nothing is known of the file: its target could not be asked
}

func failed(err error) outcome { return outcome{Reason: err.Error()} }

const (
	checkWithin = 5 * time.Second
	makeWithin  = time.Hour
	readWithin  = 9 * time.Minute
	// stallAfter is how long one operation of a target may take. abandonAfter is how long a member goes on when no leader
	// waits for it, and takeOverAfter how long a leader waits for a member that does not answer: it must be the longer one,
	// so that two members never write at the same time.
	stallAfter    = 30 * time.Second
	abandonAfter  = 20 * time.Second
	takeOverAfter = 30 * time.Second
)

const encryptedSuffix = ".tgz.age"
