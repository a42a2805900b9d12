package main

import (
	"context"
	"time"
)

// tryLimit is how long a writer waits for one answer before it asks another member.
const tryLimit = time.Second

// writer is a plain client: one write after the other; a failed one is repeated at the next member with the same key.
type writer struct{ conns []conn }

func newWriter(c cluster, on ...int) (*writer, error) {
	w := &writer{}
	for _, member := range on {
		connection, err := c.dial(member, false)
		if err != nil {
			w.close()
			return nil, err
		}
		w.conns = append(w.conns, connection)
	}
	return w, nil
}

// run writes until ctx ends, reports the time of each answer, and closes the writer.
func (w *writer) run(ctx context.Context, answered func(time.Time)) {
	defer w.close()
	for at, key := 0, newKey(); ctx.Err() == nil; {
		once, cancel := context.WithTimeout(ctx, tryLimit)
		err := w.conns[at%len(w.conns)].write(once, key)
		cancel()
		if err == nil {
			answered(time.Now())
			key = newKey()
			continue
		}
		at++
		pause(ctx, 5*time.Millisecond)
	}
}

func (w *writer) close() {
	for _, c := range w.conns {
		c.close()
	}
}
