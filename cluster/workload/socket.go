package workload

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc/credentials"
)

const (
	maxSocketPath = 107 // bytes of sun_path in unix(7), without the final zero
	socketMode    = 0o666
	liveWithin    = time.Second // for a live process to accept a connection
)

// Listener accepts connections on a Unix socket and identifies their callers.
type Listener struct {
	*net.UnixListener
	users *users
}

// Listen makes the socket. It replaces the socket of a process that has ended, and rejects anything else at that path.
// Errors are sentences for the operator.
func Listen(path string) (*Listener, error) {
	if err := checkSocketPath(path); err != nil {
		return nil, err
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("--spiffe-socket %s is in use by another process", path)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("--spiffe-socket %s: this process may not write to the directory", path)
	case err != nil:
		return nil, fmt.Errorf("--spiffe-socket %s cannot be listened on: %w", path, err)
	}
	// Every user may connect; the answer depends on the user.
	if err := os.Chmod(path, socketMode); err != nil {
		l.Close()
		return nil, fmt.Errorf("--spiffe-socket %s: %w", path, err)
	}
	return &Listener{UnixListener: l, users: newUsers()}, nil
}

// CheckSocketPath rejects a path at which no socket can be, wherever it is looked at.
func CheckSocketPath(path string) error {
	switch {
	case strings.HasPrefix(path, "unix:"):
		return fmt.Errorf("--spiffe-socket must be the path alone, without unix:, not %q", path)
	case !filepath.IsAbs(path) || strings.ContainsRune(path, 0):
		return fmt.Errorf("--spiffe-socket must be an absolute path, such as /run/muster/spiffe.sock, not %q", path)
	case len(path) > maxSocketPath:
		return fmt.Errorf("--spiffe-socket must be at most %d bytes long, the kernel's limit; %q has %d", maxSocketPath,
			path, len(path))
	}
	return nil
}

func checkSocketPath(path string) error {
	if err := CheckSocketPath(path); err != nil {
		return err
	}
	dir, err := os.Stat(filepath.Dir(path))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("--spiffe-socket %s: the directory %s does not exist; make it first", path, filepath.Dir(path))
	case err != nil:
		return fmt.Errorf("--spiffe-socket %s: %w", path, err)
	case !dir.IsDir():
		return fmt.Errorf("--spiffe-socket %s: %s is not a directory", path, filepath.Dir(path))
	}
	return nil
}

// removeStale removes the socket of a process that has ended, and nothing else.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("--spiffe-socket %s: %w", path, err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("--spiffe-socket %s exists and is not a socket; it was not changed", path)
	}
	conn, err := net.DialTimeout("unix", path, liveWithin)
	switch {
	case err == nil:
		conn.Close()
		return fmt.Errorf("--spiffe-socket %s is in use by another process", path)
	case !errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("--spiffe-socket %s exists, and it is not certain whether a process serves it: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("--spiffe-socket %s was left by another process and cannot be removed: %w", path, err)
	}
	return nil
}

// Accept returns the next connection of a user within its limit.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		c, err := callerOf(conn)
		if err != nil || !l.users.connect(c.uid) {
			conn.Close()
			continue
		}
		return &callerConn{UnixConn: conn, caller: c, users: l.users}, nil
	}
}

// callerConn is a connection with its caller.
type callerConn struct {
	*net.UnixConn
	caller caller
	users  *users
	once   sync.Once
}

func (c *callerConn) Close() error {
	c.once.Do(func() { c.users.disconnect(c.caller.uid) })
	return c.UnixConn.Close()
}

// peerCredentials gives gRPC the caller of a connection. There is no handshake: the kernel identifies the caller.
type peerCredentials struct{}

// authInfo is the caller in the context of each call.
type authInfo struct {
	credentials.CommonAuthInfo
	caller *caller
}

func (authInfo) AuthType() string { return "unix" }

var errNoCaller = errors.New("the connection has no caller")

func (peerCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, ok := conn.(*callerConn)
	if !ok {
		return nil, nil, errNoCaller
	}
	return conn, authInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, &c.caller}, nil
}

func (peerCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errNoCaller
}

func (peerCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "unix"}
}

func (peerCredentials) Clone() credentials.TransportCredentials { return peerCredentials{} }
func (peerCredentials) OverrideServerName(string) error         { return nil }
