package process

import (
	"errors"
	"io"
	"runtime/pprof"
	"time"
)

// ErrNotStopped means that part of the process did not stop in time. No confirmed write is lost: the files are as after
// a SIGKILL.
var ErrNotStopped = errors.New(
	"the member did not stop in time and is ended as if killed; nothing that was answered is lost")

// Stop runs stop and returns its error. It blocks at most for the given time. If stop takes longer, Stop writes the
// stacks of all goroutines to report and returns ErrNotStopped while stop still runs; the caller must end the process.
func Stop(stop func() error, within time.Duration, report io.Writer) error {
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	select {
	case err := <-stopped:
		return err
	case <-time.After(within):
		_ = pprof.Lookup("goroutine").WriteTo(report, 1)
		return ErrNotStopped
	}
}
