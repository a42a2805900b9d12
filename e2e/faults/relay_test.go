package faults

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// link is the way from one member to another. What does not get through waits, as with TCP it does.
type link struct {
	cut, refuse bool
	delay       time.Duration
	changed     chan struct{} // closed at the next change
}

// network is the links between the places of a cluster. A relay stands before each place: who dials is known by the
// process that owns the other end of a connection.
type network struct {
	places int
	owner  func(pid int) (place int, ok bool)
	pids   func() []int

	mu    sync.Mutex
	links map[[2]int]*link
	open  map[net.Conn][2]int
	lost  int // connections whose owner was not found
}

func newNetwork(places int) *network {
	n := &network{places: places, links: map[[2]int]*link{}, open: map[net.Conn][2]int{}}
	for from := range places {
		for to := range places {
			n.links[[2]int{from, to}] = &link{changed: make(chan struct{})}
		}
	}
	return n
}

// set changes the way from one place to another; what a member sends to itself always arrives.
func (n *network) set(from, to int, change func(*link)) {
	if from == to {
		return
	}
	n.mu.Lock()
	l := n.links[[2]int{from, to}]
	change(l)
	close(l.changed)
	l.changed = make(chan struct{})
	var drop []net.Conn
	if l.refuse {
		for c, ends := range n.open {
			if ends == [2]int{from, to} || ends == [2]int{to, from} {
				drop = append(drop, c)
			}
		}
	}
	n.mu.Unlock()
	for _, c := range drop {
		c.Close()
	}
}

// heal makes all ways as good as new.
func (n *network) heal() {
	for from := range n.places {
		for to := range n.places {
			n.set(from, to, func(l *link) { l.cut, l.refuse, l.delay = false, false, 0 })
		}
	}
}

func (n *network) state(from, to int) (l link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return *n.links[[2]int{from, to}]
}

// pass waits until the way is free, or until the connection has ended.
func (n *network) pass(from, to int, ended <-chan struct{}) bool {
	for {
		l := n.state(from, to)
		if !l.cut {
			return true
		}
		select {
		case <-l.changed:
		case <-ended:
			return false
		}
	}
}

// relay serves a place: what comes to the address is passed on to the member there.
func (n *network) relay(place int, from, to string) (stop func(), err error) {
	l, err := net.Listen("tcp", from)
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go n.serve(place, in, to)
		}
	}()
	return func() { l.Close() }, nil
}

func (n *network) serve(place int, in net.Conn, to string) {
	defer in.Close()
	dialer, err := n.dialer(in)
	if err != nil {
		n.mu.Lock()
		n.lost++
		n.mu.Unlock()
		return
	}
	if n.state(dialer, place).refuse || n.state(place, dialer).refuse {
		return
	}
	ended := make(chan struct{})
	stop := sync.OnceFunc(func() { close(ended) })
	defer stop()
	if !n.pass(dialer, place, ended) {
		return
	}
	out, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer out.Close()
	n.mu.Lock()
	n.open[in] = [2]int{dialer, place}
	n.mu.Unlock()
	defer func() { n.mu.Lock(); delete(n.open, in); n.mu.Unlock() }()
	var wait sync.WaitGroup
	wait.Go(func() { n.carry(dialer, place, out, in, ended, stop) })
	wait.Go(func() { n.carry(place, dialer, in, out, ended, stop) })
	wait.Wait()
}

// carry copies from one end to the other as the way allows. An end of the stream takes the same way as what comes
// before it: a machine behind a cut does not learn that the other one has died.
func (n *network) carry(from, to int, w, r net.Conn, ended <-chan struct{}, stop func()) {
	type piece struct {
		data []byte
		due  time.Time
	}
	pieces := make(chan piece, 64)
	go func() {
		defer close(pieces)
		for {
			buffer := make([]byte, 32<<10)
			k, err := r.Read(buffer)
			if k > 0 {
				select {
				case pieces <- piece{buffer[:k], time.Now().Add(n.state(from, to).delay)}:
				case <-ended:
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	broken := func() { stop(); w.Close(); r.Close() }
	for p := range pieces {
		time.Sleep(time.Until(p.due))
		if !n.pass(from, to, ended) {
			broken()
			return
		}
		if _, err := w.Write(p.data); err != nil {
			broken()
			return
		}
	}
	if n.pass(from, to, ended) {
		_ = w.(*net.TCPConn).CloseWrite()
	}
}

// dialer finds the place whose process has opened a connection.
func (n *network) dialer(c net.Conn) (int, error) {
	inode, err := inodeOf(c.RemoteAddr().String(), c.LocalAddr().String())
	if err != nil {
		return 0, err
	}
	want := "socket:[" + inode + "]"
	for _, pid := range n.pids() {
		dir := fmt.Sprintf("/proc/%d/fd", pid)
		files, _ := os.ReadDir(dir)
		for _, f := range files {
			if target, err := os.Readlink(dir + "/" + f.Name()); err == nil && target == want {
				if place, ok := n.owner(pid); ok {
					return place, nil
				}
			}
		}
	}
	return 0, errors.New("nobody has this connection")
}

// inodeOf finds the socket of a local connection, as proc_pid_net(5) lists it.
func inodeOf(local, remote string) (string, error) {
	f, err := os.Open("/proc/net/tcp")
	if err != nil {
		return "", err
	}
	defer f.Close()
	a, b := hexAddr(local), hexAddr(remote)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if x := strings.Fields(lines.Text()); len(x) > 9 && x[1] == a && x[2] == b {
			return x[9], nil
		}
	}
	return "", errors.New("no such connection")
}

// hexAddr writes an IPv4 address as /proc/net/tcp does on a little-endian machine.
func hexAddr(s string) string {
	p, err := netip.ParseAddrPort(s)
	if err != nil {
		return ""
	}
	x := p.Addr().Unmap().As4()
	return fmt.Sprintf("%02X%02X%02X%02X:%s", x[3], x[2], x[1], x[0],
		strings.ToUpper(leftPad(strconv.FormatUint(uint64(p.Port()), 16))))
}

func leftPad(s string) string { return strings.Repeat("0", 4-len(s)) + s }

// forward passes on connections to the API, which joiners open to members.
func forward(from, to string) (stop func(), err error) {
	l, err := net.Listen("tcp", from)
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer in.Close()
				out, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				defer out.Close()
				go func() { _, _ = io.Copy(out, in); out.Close() }()
				_, _ = io.Copy(in, out)
			}()
		}
	}()
	return func() { l.Close() }, nil
}
