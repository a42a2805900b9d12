package engine

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
)

// hold makes the writer busy with a request until release is called, so that what comes meanwhile shares a batch.
func hold(t *testing.T, e *Engine) (release func()) {
	t.Helper()
	entered, free, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- e.Write(bg, "hold", func(*Tx) error { close(entered); <-free; return nil })
	}()
	<-entered
	return func() {
		close(free)
		// it changes nothing, so a leader that is cut off cannot vouch for it
		if err := <-done; err != nil && !errors.Is(err, ErrNotLeader) {
			t.Error(err)
		}
	}
}

// queued waits until n requests wait for the writer.
func (c *testCluster) queued(e *Engine, n int) {
	c.T.Helper()
	c.eventually(fmt.Sprint(n, " requests in the queue"), func() error {
		if e.Waiting() < n {
			return errors.New("fewer")
		}
		return nil
	})
}

// (e) A caller that no longer waits gets nothing done.
func TestExpiredContext(t *testing.T) {
	c := newTestCluster(t, 1)
	l := c.leader()
	if _, err := write(bg, l); err != nil {
		t.Fatal(err)
	}
	rev := l.Revision()
	ctx, cancel := context.WithCancel(bg)
	cancel()
	var ran atomic.Int64
	for i := range 3000 {
		err := l.Write(ctx, "late", func(tx *Tx) error {
			ran.Add(1)
			return note(fmt.Sprint("late ", i))(tx)
		})
		if !errors.Is(err, ErrNoLeader) {
			t.Fatalf("write %d: %v", i, err)
		}
	}
	// The queue may still hold requests that nobody waits for: one that somebody waits for comes after them.
	if _, err := write(bg, l); err != nil {
		t.Fatal(err)
	}
	if n := ran.Load(); n != 0 || l.Revision() != rev+1 {
		t.Errorf("%d requests ran, revision %d after %d", n, l.Revision(), rev)
	}
	// One that gives up while it waits in the queue.
	release := hold(t, l)
	ctx, cancel = context.WithCancel(bg)
	gaveUp := make(chan error, 1)
	go func() {
		gaveUp <- l.Write(ctx, "impatient", func(*Tx) error { ran.Add(1); return nil })
	}()
	c.queued(l, 1)
	cancel()
	if err := <-gaveUp; !errors.Is(err, ErrNoLeader) {
		t.Errorf("the impatient one: %v", err)
	}
	release()
	if _, err := write(bg, l); err != nil {
		t.Fatal(err)
	}
	if n := ran.Load(); n != 0 {
		t.Errorf("%d requests ran although their callers were told that they had not", n)
	}
}
