package transport

import (
	"net"
	"runtime"
	"sync"
)

// outbox writes the frames of many goroutines to one connection. All waiting frames go in one write.
type outbox struct {
	conn net.Conn
	mu   sync.Mutex
	room sync.Cond // signals fewer than maxQueued waiting bytes, or the end
	wait []byte
	err  error
	wake chan struct{}
}

func newOutbox(conn net.Conn) *outbox {
	o := &outbox{conn: conn, wake: make(chan struct{}, 1)}
	o.room.L = &o.mu
	return o
}

// put queues the frames that add appends. patient: it blocks while too much waits.
func (o *outbox) put(patient bool, add func([]byte) []byte) error {
	o.mu.Lock()
	for patient && len(o.wait) > maxQueued && o.err == nil {
		o.room.Wait()
	}
	err := o.err
	if err == nil {
		o.wait = add(o.wait)
	}
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
	return err
}

// queued returns how many bytes wait.
func (o *outbox) queued() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.wait)
}

// run writes until the connection or the outbox ends.
func (o *outbox) run() {
	var spare []byte
	for range o.wake {
		runtime.Gosched() // other goroutines are about to queue frames
		o.mu.Lock()
		data, err := o.wait, o.err
		o.wait = spare[:0]
		o.room.Broadcast()
		o.mu.Unlock()
		if err != nil {
			return
		}
		if len(data) > 0 {
			if _, err := o.conn.Write(data); err != nil {
				o.close(err)
				return
			}
		}
		if spare = data; cap(spare) > 2*bodyPart {
			spare = nil
		}
	}
}

// close ends the outbox and the connection.
func (o *outbox) close(err error) {
	o.mu.Lock()
	if o.err == nil {
		o.err = err
	}
	o.room.Broadcast()
	o.mu.Unlock()
	o.conn.Close()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}
