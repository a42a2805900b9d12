package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// relayed returns a system whose members reach each other through relays, which can hold back what one sends to
// another.
func relayed(s system) system {
	switch s := s.(type) {
	case *musterSystem:
		t := *s
		t.relayed = true
		return &t
	case etcdSystem:
		s.relayed = true
		return s
	}
	return s
}

// links are the ways between the members of a cluster behind relays; nil: nothing is ever held back. What is held back
// arrives once the way is open again, as with TCP it does.
type links struct {
	mu      sync.Mutex
	cut     map[[2]int]bool // from, to
	changed chan struct{}   // closed at the next change
	procs   []*process      // of the members, as far as they were started
}

// started tells of the process of the next member.
func (l *links) started(p *process) {
	if l != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.procs = append(l.procs, p)
	}
}

func newLinks() *links { return &links{cut: map[[2]int]bool{}, changed: make(chan struct{})} }

// set cuts or opens the ways from a member to all others, and those from all others to it.
func (l *links) set(member int, from, to bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for other := range members {
		l.cut[[2]int{member, other}], l.cut[[2]int{other, member}] = from, to
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// wait blocks while the way from one member to another is cut.
func (l *links) wait(ctx context.Context, from, to int) {
	for l != nil {
		l.mu.Lock()
		cut, changed := l.cut[[2]int{from, to}], l.changed
		l.mu.Unlock()
		if !cut {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// holding returns what a relay before a member does with a connection: it holds back what is cut, by who dialled.
func (l *links) holding(ctx context.Context, member int) func(net.Conn) (to, back func(), err error) {
	return func(c net.Conn) (to, back func(), err error) {
		l.mu.Lock()
		procs := slices.Clone(l.procs)
		l.mu.Unlock()
		from, err := dialer(c, procs)
		if err != nil {
			return nil, nil, err
		}
		return func() { l.wait(ctx, from, member) }, func() { l.wait(ctx, member, from) }, nil
	}
}

// dialer returns the member whose process has opened a connection to this one.
func dialer(c net.Conn, procs []*process) (int, error) {
	at := c.RemoteAddr().(*net.TCPAddr)
	inode, err := inodeOf(at)
	if err != nil {
		return 0, err
	}
	for i, p := range procs {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.cmd.Process.Pid))
		for _, f := range files {
			if to, err := os.Readlink(f); err == nil && to == "socket:["+inode+"]" {
				return i, nil
			}
		}
	}
	return 0, fmt.Errorf("nobody is known at %v", at)
}

// inodeOf finds a socket by its own address in /proc/net/tcp: addresses are hexadecimal there, the bytes of IPv4 from
// the last to the first.
func inodeOf(at *net.TCPAddr) (string, error) {
	ip := at.IP.To4()
	if ip == nil {
		return "", fmt.Errorf("%v is not IPv4", at)
	}
	local := fmt.Sprintf("%02X%02X%02X%02X:%04X", ip[3], ip[2], ip[1], ip[0], at.Port)
	f, err := os.Open("/proc/net/tcp")
	if err != nil {
		return "", err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 9 && fields[1] == local {
			return fields[9], nil
		}
	}
	return "", fmt.Errorf("no socket has the address %v", at)
}
