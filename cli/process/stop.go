package process

import (
	"errors"
	"io"
	"runtime/pprof"
	"time"
)

// ErrNotStopped: something in the process did not end in time. Nothing that was answered is lost: the files are in the state
// in which a SIGKILL leaves them.
var ErrNotStopped = errors.New("the member did not stop in time and is ended as if killed; nothing that was answered is lost")

// Stop runs stop and returns its error. It blocks for the given time at most: when stop takes longer, it writes what every
// goroutine waits for to report, returns ErrNotStopped, and leaves stop running; the caller ends the process.
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
