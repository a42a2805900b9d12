package process_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"muster/cli/process"
)

// A member that stops says how; one that does not is left behind, with what it waits for.
func TestStop(t *testing.T) {
	own := errors.New("the disk is full")
	for _, want := range []error{nil, own} {
		var report bytes.Buffer
		if err := process.Stop(func() error { return want }, time.Minute, &report); !errors.Is(err, want) ||
			report.Len() > 0 {
			t.Errorf("%v with a report of %d bytes, want %v", err, report.Len(), want)
		}
	}
	free := make(chan struct{})
	left := make(chan struct{})
	stop := func() error {
		defer close(left)
		<-free
		return nil
	}
	var report bytes.Buffer
	if err := process.Stop(stop, time.Millisecond, &report); !errors.Is(err, process.ErrNotStopped) {
		t.Errorf("a member that does not stop: %v", err)
	}
	if !strings.Contains(report.String(), "TestStop") {
		t.Errorf("the report must say where it waits:\n%s", report.String())
	}
	close(free)
	<-left
}
