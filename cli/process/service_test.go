package process

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestServiceWatchdog: the watchdog is kept quiet for as long as the member is alive and no longer, and a reload that
// fails is a reload all the same.
func TestServiceWatchdog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "60000")
	s := NewService(io.Discard)
	s.Logs(slog.New(slog.NewTextHandler(&bytes.Buffer{}, nil)))
	var alive atomic.Bool
	alive.Store(true)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Run(ctx, func() error { return errors.New("unreadable") }, func() string { return "is well" }, alive.Load)
	}()
	next := func(limit time.Duration) string {
		var b [1024]byte
		_ = conn.SetReadDeadline(time.Now().Add(limit))
		n, _ := conn.Read(b[:])
		return string(b[:n])
	}
	if got := next(20 * time.Second); got != "READY=1\nSTATUS=is well" {
		t.Fatalf("%q", got)
	}
	for range 3 {
		if got := next(20 * time.Second); got != "WATCHDOG=1" {
			t.Fatalf("%q", got)
		}
	}
	alive.Store(false)
	for i := 0; next(500*time.Millisecond) != ""; i++ { // what was under way
		if i > 20 {
			t.Fatal("the watchdog is still kept quiet")
		}
	}
	s.hangups <- syscall.SIGHUP
	if got := next(20 * time.Second); !strings.HasPrefix(got, "RELOADING=1\nMONOTONIC_USEC=") {
		t.Fatalf("%q", got)
	}
	if got := next(20 * time.Second); !strings.HasPrefix(got, "READY=1") {
		t.Fatalf("%q", got)
	}
	cancel()
	<-ended
	s.Close()
}
