package engine

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"github.com/canonical/go-dqlite/v3/client"
)

// replicationDial gives dqlite's C code a socket at once and connects it in the background. go-dqlite holds one lock
// for all outgoing connections, so a member that hangs in its handshake would hold up the others. broken is called with
// the node id when a connection ends.
func replicationDial(dial DialRaft, broken func(nodeID uint64)) client.DialFunc {
	return func(_ context.Context, address string) (net.Conn, error) {
		var id uint64
		if _, err := fmt.Sscanf(address, "node-%d", &id); err != nil {
			return nil, fmt.Errorf("engine: %q is not the name of a node", address)
		}
		ours, theirs, err := socketPair()
		if err != nil {
			return nil, err
		}
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
			defer cancel()
			remote, err := dial(ctx, id)
			if err != nil {
				ours.Close()
				return
			}
			Splice(ours, remote)
			broken(id)
		}()
		return theirs, nil
	}
}

func socketPair() (net.Conn, net.Conn, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("engine: socketpair: %w", err)
	}
	var conns [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "raft")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			if i == 0 {
				syscall.Close(fds[1])
			} else {
				conns[0].Close()
			}
			return nil, nil, fmt.Errorf("engine: socketpair: %w", err)
		}
		conns[i] = c
	}
	return Direct(conns[0]), conns[1], nil
}

// Splice copies between a and b in both directions until either side ends, then closes both. It blocks.
func Splice(a, b io.ReadWriteCloser) {
	done := make(chan struct{}, 2)
	pipe := func(dst, src io.ReadWriteCloser) {
		_, _ = io.Copy(dst, src)
		a.Close()
		b.Close()
		done <- struct{}{}
	}
	go pipe(a, b)
	go pipe(b, a)
	<-done
	<-done
}

// listened is the local end of a stream from another member's Raft server.
type listened struct {
	net.Conn
	heard func(bytes int)
}

func (l *listened) Write(p []byte) (int, error) {
	n, err := l.Conn.Write(p)
	l.heard(n)
	return n, err
}

// direct is a non-blocking socket that bypasses Go's scheduler in reads and writes. The scheduler would prepare for
// calls that block and wake its monitor thread.
type direct struct {
	net.Conn
	raw syscall.RawConn
}

// watched is true under the race detector, which learns the order of events from ordinary reads and writes.
var watched bool

// Direct returns a socket with cheaper reads and writes; it returns any other conn as it is.
func Direct(conn net.Conn) net.Conn {
	s, ok := conn.(syscall.Conn)
	if !ok || watched {
		return conn
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return conn
	}
	return &direct{conn, raw}
}

// NetConn returns the socket.
func (d *direct) NetConn() net.Conn { return d.Conn }

func (d *direct) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	var errno syscall.Errno
	err = d.raw.Read(func(fd uintptr) bool {
		n, errno = trySocket(syscall.SYS_READ, fd, p)
		return errno != syscall.EAGAIN
	})
	switch {
	case err != nil:
		return 0, err
	case errno != 0:
		return 0, d.failed("read", errno)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

func (d *direct) Write(p []byte) (n int, err error) {
	var errno syscall.Errno
	for n < len(p) && err == nil && errno == 0 {
		err = d.raw.Write(func(fd uintptr) bool {
			var some int
			some, errno = trySocket(syscall.SYS_WRITE, fd, p[n:])
			n += some
			return errno != syscall.EAGAIN
		})
	}
	if err == nil && errno != 0 {
		err = d.failed("write", errno)
	}
	return n, err
}

func (d *direct) failed(call string, errno syscall.Errno) error {
	return &net.OpError{Op: call, Net: d.LocalAddr().Network(), Addr: d.RemoteAddr(),
		Err: os.NewSyscallError(call, errno)}
}

// trySocket reads or writes once. When it returns an error, no bytes were moved.
func trySocket(call, fd uintptr, p []byte) (n int, errno syscall.Errno) {
	for {
		at := unsafe.Pointer(unsafe.SliceData(p))
		r, _, errno := syscall.RawSyscall(call, fd, uintptr(at), uintptr(len(p)))
		switch errno {
		case 0:
			return int(r), 0
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}
