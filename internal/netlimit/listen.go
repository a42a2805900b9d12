package netlimit

import (
	"context"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// silence is how long the kernel holds back a connection whose client sends nothing.
const silence = 5 * time.Second

// Listen opens a TCP listener for protocols in which the client sends first, such as TLS and HTTP. The kernel hands a
// connection over once its client has sent something, or after some seconds (TCP_DEFER_ACCEPT, tcp(7)): a connection
// that is reset at once, or stays silent, costs this process nothing.
func Listen(address string) (net.Listener, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { // an error only makes connections cost more
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, int(silence.Seconds()))
		})
	}}
	return config.Listen(context.Background(), "tcp", address)
}
