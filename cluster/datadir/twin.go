package datadir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

const (
	twinFile = "twin.json" // the last meeting of two processes with this identity
	twinKept = 7 * 24 * time.Hour
)

// twinRecord is the content of DIR/twin.json, for doctor.
type twinRecord struct {
	At      time.Time `json:"at"`
	Refused bool      `json:"refused"`         // the process of this directory was refused
	Older   bool      `json:"older,omitempty"` // it was refused as an older copy; there is no other process
	Address string    `json:"address"`         // of the other process

	// Stored is the number of the last test write with which an older copy began. It stays an older copy, although a
	// process that was refused late has written since.
	Stored uint64 `json:"stored,omitempty"`
}

// NoteTwin records that a second process, at address, was refused.
func (d *Dir) NoteTwin(address string) error { return d.noteTwin(twinRecord{Address: address}) }

// NoteRefused records that the process of this directory was refused: because of another one at address, or as an older
// copy, whose last test write at its start was stored.
func (d *Dir) NoteRefused(address string, older bool, stored uint64) error {
	r := twinRecord{Refused: true, Older: older, Address: address}
	if older {
		r.Stored = stored
	}
	return d.noteTwin(r)
}

// RefusedAsOlder returns the number of the last test write with which this directory was refused as an older copy; 0:
// it was not.
func (d *Dir) RefusedAsOlder() uint64 {
	if r, ok := d.twin(); ok && r.Older {
		return r.Stored
	}
	return 0
}

func (d *Dir) noteTwin(r twinRecord) error {
	r.At = time.Now().UTC().Truncate(time.Second)
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return d.write(twinFile, append(data, '\n'), 0o600)
}

func (d *Dir) twin() (r twinRecord, ok bool) {
	data, err := d.read(twinFile)
	if err != nil || json.Unmarshal(data, &r) != nil {
		return r, false
	}
	return r, true
}

// SettleTwin deletes a record that a successful start has outdated. An older copy stays one: perhaps nobody runs who
// knows.
func (d *Dir) SettleTwin() {
	if r, ok := d.twin(); ok && (r.Refused && !r.Older || time.Since(r.At) > twinKept) {
		if err := os.Remove(d.file(twinFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return // doctor reports it once more, which does no harm
		}
	}
}

// forgetTwin deletes the record: a recovery makes of the directory what it is to be.
func (d *Dir) forgetTwin() error {
	if err := os.Remove(d.file(twinFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return dirError(d.Path, err)
	}
	return nil
}

// twins reports a second process with this directory's identity.
func (x *doctor) twins() {
	r, ok := x.d.twin()
	switch {
	case !ok:
	case r.Older:
		x.say("copies", FindingFail, fmt.Sprintf("start the member with its newest directory; if that is lost, run \"muster "+
			"member remove %d --force\" on another member, and join with an empty one", x.node.NodeID),
			"the start of this directory was refused at %s: it is an older copy of that of node %d",
			r.At.Format(time.RFC3339), x.node.NodeID)
	case r.Refused:
		x.say("copies", FindingFail, "if this directory is a copy, delete it and join with an empty one; if it is the one "+
			"to keep, "+
			"stop the other process first", "the start of this directory was refused at %s: another process is node %d, and "+
			"runs at %s",
			r.At.Format(time.RFC3339), x.node.NodeID, r.Address)
	default:
		x.say("copies", FindingWarn, "find the copy of this directory and delete it; two processes with one identity "+
			"destroy a cluster",
			"a second process with the identity of node %d, at %s, was refused at %s", x.node.NodeID, r.Address,
			r.At.Format(time.RFC3339))
	}
}
