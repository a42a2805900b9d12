// Package await waits in tests for asynchronous changes. It polls, because the state of something real announces no
// change.
package await

import (
	"errors"
	"testing"
	"time"
)

// Limit is the deadline of every wait. It is far longer than any wait on an idle machine, so a test that passes never
// reaches it.
const Limit = time.Minute

const (
	between  = 15 * time.Millisecond
	rest     = 100 * time.Millisecond // between tries that cost much, at least
	restMost = time.Second
)

var errNot = errors.New("it does not hold")

// True returns when holds reports true. It ends the test when that takes longer than Limit.
func True(t testing.TB, what string, holds func() bool) {
	t.Helper()
	NoError(t, what, func() error {
		if holds() {
			return nil
		}
		return errNot
	})
}

// NoError returns when try returns nil. It ends the test, with the last error, when that takes longer than Limit.
func NoError(t testing.TB, what string, try func() error) {
	t.Helper()
	if err := Within(Limit, try); err != nil {
		t.Fatalf("%s: not within %v: %v", what, Limit, err)
	}
}

// Within repeats try until it returns nil, and returns its last error when limit has passed.
func Within(limit time.Duration, try func() error) error {
	return poll(limit, func() time.Duration { return between }, try)
}

// Slowly is Within for a try that costs much, such as a process: it rests longer in between, and three times as long as
// the try has taken, so that the processor is left to what it waits for.
func Slowly(limit time.Duration, try func() error) error {
	var pause time.Duration
	return poll(limit, func() time.Duration { return pause }, func() error {
		begin := time.Now()
		err := try()
		pause = min(max(rest, 3*time.Since(begin)), restMost)
		return err
	})
}

func poll(limit time.Duration, pause func() time.Duration, try func() error) error {
	for deadline := time.Now().Add(limit); ; time.Sleep(pause()) {
		err := try()
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}
