package cli

import (
	"context"
	"log"
	"log/slog"
	"os"
	"os/signal"
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

// service is what a member owes the machine it runs on: its descriptors, its signals, and the service manager that has
// started it, if there is one.
type service struct {
	lines   *logWriter
	hangups chan os.Signal
	pipes   chan os.Signal
	notices chan string
	sent    chan struct{} // closed when the last notice is out
	log     *slog.Logger
}

// newService takes the signals over that end a process which does not want them. From here on a log line never blocks.
// SIGPIPE is caught, not ignored, so that hooks begin without our choice.
func newService(env *environment) *service {
	s := &service{
		lines:   newLogWriter(env.stderr),
		hangups: make(chan os.Signal, 1),
		pipes:   make(chan os.Signal, 1),
		notices: make(chan string, noticeQueue),
		sent:    make(chan struct{}),
		log:     slog.New(slog.DiscardHandler),
	}
	signal.Notify(s.hangups, syscall.SIGHUP)
	signal.Notify(s.pipes, syscall.SIGPIPE)
	env.stderr = s.lines // Main closes it when all is said
	log.SetOutput(s.lines)
	go s.send()
	return s
}

// logs makes a logger tell of lost lines.
func (s *service) logs(l *slog.Logger) {
	s.log = l
	s.lines.tell(func(lost uint64) { l.Warn("log lines were lost: their reader was gone or too slow", "lines", lost) })
}

// close sends what waits for the service manager. The signals stay caught: the process is about to end, and its last
// words must not be what kills it.
func (s *service) close() {
	close(s.notices)
	select {
	case <-s.sent:
	case <-time.After(noticeFlush):
	}
}

// send passes notices on. Its socket may block, so nobody waits for it.
func (s *service) send() {
	defer close(s.sent)
	for text := range s.notices {
		if _, err := daemon.SdNotify(false, text); err != nil {
			s.log.Debug("the service manager was not notified", "err", err)
		}
	}
}

func (s *service) notify(text string) {
	select {
	case s.notices <- text:
	default: // the manager does not read
	}
}

// run tells the service manager that the member is ready and how it is, keeps its watchdog quiet for as long as the
// member is alive, and reloads on SIGHUP. It returns when ctx ends.
func (s *service) run(ctx context.Context, reload func() error, status func() string, alive func() bool) {
	last := status()
	s.notify(daemon.SdNotifyReady + "\nSTATUS=" + last)
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
				s.notify(daemon.SdNotifyWatchdog)
			}
		case <-tick.C:
			if now := status(); now != last {
				last = now
				s.notify("STATUS=" + now)
			}
		case <-s.hangups:
			s.notify(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
			if err := reload(); err != nil {
				s.log.Warn("SIGHUP: the certificates could not be read again; those in use stay", "err", err)
			} else {
				s.log.Info("SIGHUP: the certificates were read again")
			}
			s.notify(daemon.SdNotifyReady + "\nSTATUS=" + last)
		}
	}
}

// managed reports whether a service manager has started this process and wants to be notified.
func managed() bool { return os.Getenv("NOTIFY_SOCKET") != "" }

// collector counts the log lines that nobody has read.
func (s *service) collector() prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "muster_log_lines_lost_total",
		Help: "Log lines that could not be written, because their reader was gone or too slow."},
		func() float64 { return float64(s.lines.lost.Load()) })
}
