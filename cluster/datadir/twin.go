package datadir

import (
	"encoding/json"
	"errors"
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
	Refused bool      `json:"refused"` // the process of this directory was refused
	Address string    `json:"address"` // of the other process
}

// NoteTwin writes the record.
func (d *Dir) NoteTwin(refused bool, address string) error {
	data, err := json.Marshal(twinRecord{time.Now().UTC().Truncate(time.Second), refused, address})
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

// SettleTwin deletes a record that a successful start has outdated.
func (d *Dir) SettleTwin() {
	if r, ok := d.twin(); ok && (r.Refused || time.Since(r.At) > twinKept) {
		if err := os.Remove(d.file(twinFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return // doctor reports it once more, which does no harm
		}
	}
}
