// Package process connects a member's process to its machine: a log that never blocks, signals, and notifications for
// the service manager. It knows nothing of members.
package process

import (
	"context"
	"io"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	noticeQueue = 32
	noticeFlush = 300 * time.Millisecond
	statusEvery = 5 * time.Second
)

// Service handles a process's log descriptor, its signals, and its service manager, if any.
type Service struct {
	lines   *LogWriter
	hangups chan os.Signal
	pipes   chan os.Signal
	strays  chan os.Signal
	notices chan string
	sent    chan struct{} // closed when the last notification is sent
	log     *slog.Logger
}

// meaningless lists signals without a meaning for a member that would end it without a hand-over: logrotate and similar
// programs send them.
var meaningless = []os.Signal{syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGVTALRM, syscall.SIGPROF,
	syscall.SIGIO, syscall.SIGPWR, syscall.SIGSTKFLT, syscall.SIGXCPU}

// NewService catches the signals that would end the process. From then on a log line never blocks. SIGPIPE is caught,
// not ignored, so that hooks start with the default; so is SIGXFSZ, so that a write beyond the file size limit fails
// with an error.
func NewService(stderr io.Writer) *Service {
	s := &Service{
		lines:   NewLogWriter(stderr),
		hangups: make(chan os.Signal, 1),
		pipes:   make(chan os.Signal, 1),
		strays:  make(chan os.Signal, 1),
		notices: make(chan string, noticeQueue),
		sent:    make(chan struct{}),
		log:     slog.New(slog.DiscardHandler),
	}
	signal.Notify(s.hangups, syscall.SIGHUP)
	signal.Notify(s.pipes, syscall.SIGPIPE, syscall.SIGXFSZ)
	signal.Notify(s.strays, meaningless...)
	log.SetOutput(s.lines)
	if Managed() {
		// A crash, or the watchdog's SIGABRT, would end with status 2, and the unit does not restart after status 2.
		debug.SetTraceback("crash")
	}
	go s.send()
	return s
}

// Lines returns the log: a writer that never blocks. The caller closes it after the last line; Close does not.
func (s *Service) Lines() *LogWriter { return s.lines }

// Logs sets the logger that reports lost lines.
func (s *Service) Logs(l *slog.Logger) {
	s.log = l
	s.lines.tell(func(lost uint64) { l.Warn("log lines were lost: their reader was gone or too slow", "lines", lost) })
}

// Close sends the waiting notifications. The signals stay caught: the process is about to end, and its last log lines
// must not kill it.
func (s *Service) Close() {
	close(s.notices)
	select {
	case <-s.sent:
	case <-time.After(noticeFlush):
	}
}

// send delivers notifications. The socket may block, so no caller waits for it.
func (s *Service) send() {
	defer close(s.sent)
	for text := range s.notices {
		if _, err := daemon.SdNotify(false, text); err != nil {
			s.log.Debug("the service manager was not notified", "err", err)
		}
	}
}

// Notify queues a notification for the service manager; it never blocks.
func (s *Service) Notify(text string) {
	select {
	case s.notices <- text:
	default: // the manager does not read
	}
}

// Run reports readiness and status to the service manager, feeds its watchdog while alive returns true, and calls
// reload on SIGHUP. It blocks until ctx ends.
func (s *Service) Run(ctx context.Context, reload func() error, status func() string, alive func() bool) {
	last := status()
	s.Notify(daemon.SdNotifyReady + "\nSTATUS=" + last)
	var watchdog <-chan time.Time
	if limit, err := daemon.SdWatchdogEnabled(false); err == nil && limit > 0 {
		t := time.NewTicker(max(limit/3, time.Millisecond))
		defer t.Stop()
		watchdog = t.C
	}
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-watchdog:
			if alive() {
				s.Notify(daemon.SdNotifyWatchdog)
			}
		case <-tick.C:
			if now := status(); now != last {
				last = now
				s.Notify("STATUS=" + now)
			}
		case stray := <-s.strays:
			s.log.Warn("a signal that means nothing to a member was ignored", "signal", stray.String())
		case <-s.hangups:
			s.Notify(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
			if err := reload(); err != nil {
				s.log.Warn("SIGHUP: the certificates could not be read again; those in use stay", "err", err)
			} else {
				s.log.Info("SIGHUP: the certificates were read again")
			}
			s.Notify(daemon.SdNotifyReady + "\nSTATUS=" + last)
		}
	}
}

// KeepOwnFiles removes from the umask the bits that would deny the owner access to new files.
func KeepOwnFiles() {
	syscall.Umask(syscall.Umask(0o077) &^ 0o700)
}

// Managed reports whether a service manager started this process and expects notifications.
func Managed() bool { return os.Getenv("NOTIFY_SOCKET") != "" }

// Collector returns the counter of lost log lines.
func (s *Service) Collector() prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "muster_log_lines_lost_total",
		Help: "Log lines that could not be written, because their reader was gone or too slow."},
		func() float64 { return float64(s.lines.lost.Load()) })
}
