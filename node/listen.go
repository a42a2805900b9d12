package node

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"muster/cluster/workload"
	"muster/netlimit"
)

// listeners are all that a member listens on. They are opened before anything is written, so that an address which
// somebody else has costs a start nothing.
type listeners struct {
	api, raft net.Listener
	plain     net.Listener // nil: there is none
	spiffe    *workload.Listener
}

// openListeners opens them and completes what others dial.
func openListeners(c *Config) (l listeners, err error) {
	for _, x := range []struct {
		flag, address string
		into          *net.Listener
	}{{"api", c.API, &l.api}, {"raft", c.Raft, &l.raft}, {"plain-http", c.PlainHTTP, &l.plain}} {
		if x.address == "" && x.flag == "plain-http" {
			continue
		}
		if *x.into, err = listen(x.flag, x.address); err != nil {
			return listeners{}, errors.Join(err, l.close())
		}
	}
	if c.SpiffeSocket != "" {
		if l.spiffe, err = workload.Listen(c.SpiffeSocket); err != nil {
			return listeners{}, errors.Join(err, l.close())
		}
	}
	if c.APIAddress == "" {
		c.APIAddress = l.api.Addr().String()
	}
	if c.RaftAddress == "" {
		c.RaftAddress = l.raft.Addr().String()
	}
	return l, nil
}

// close closes what is open still: whoever serves a listener closes it, too.
func (l listeners) close() error {
	var failed error
	open := []net.Listener{l.api, l.raft, l.plain}
	if l.spiffe != nil {
		open = append(open, l.spiffe)
	}
	for _, one := range open {
		if one == nil {
			continue
		}
		if err := one.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// listen opens a listener and says in one sentence why it cannot.
func listen(flag, addr string) (net.Listener, error) {
	l, err := netlimit.Listen(addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("--%s %s is in use by another process", flag, addr)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("--%s %s is not an address of this machine", flag, addr)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("--%s %s needs more rights than this process has", flag, addr)
	case err != nil:
		return nil, fmt.Errorf("--%s %s cannot be listened on: %w", flag, addr, err)
	}
	return l, nil
}
