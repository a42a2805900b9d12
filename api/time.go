package api

import "time"

// Time returns a time in its wire form: UTC, whole seconds.
func Time(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

// TimeOf is Time for an optional time: nil becomes the zero time.
func TimeOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return Time(*t)
}

// TimePointer is Time for an optional time: nil stays nil.
func TimePointer(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	at := Time(*t)
	return &at
}
