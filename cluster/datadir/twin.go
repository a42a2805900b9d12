package datadir

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"time"
)

const (
	twinFile = "twin.json" // the last time that two processes had this directory's identity
	twinKept = 7 * 24 * time.Hour
)

// twinRecord is what DIR/twin.json holds, for doctor.
type twinRecord struct {
	At      time.Time `json:"at"`
	Refused bool      `json:"refused"` // it was this directory's process
	Address string    `json:"address"` // of the other one
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

// SettleTwin forgets a record that a start has outdated.
func (d *Dir) SettleTwin() {
	if r, ok := d.twin(); ok && (r.Refused || time.Since(r.At) > twinKept) {
		if err := os.Remove(d.file(twinFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return // it is said once more, no harm
		}
	}
}
