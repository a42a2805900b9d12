package api

import "time"

// Time returns a time as the wire has it: in UTC and in whole seconds.
func Time(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

// TimeOf is Time for one that may be absent: nil becomes the zero time.
func TimeOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return Time(*t)
}

// TimePointer is Time for one that may be absent and stays so.
func TimePointer(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	at := Time(*t)
	return &at
}
