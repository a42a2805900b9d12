package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"muster/netlimit"
)

const (
	strangersPerAddress = 512
	strangersAtOnce     = 1024 // a handshake in the making takes about 30 kB
	strangersBytes      = 1_000_000
)

var errTooManyFailures = errors.New("too many failed attempts from this address")

// DefaultLimits are the limits of the cluster listener: half of the descriptors that this process may have. Members
// that have shown their certificate count against that alone, however many come from one address.
func DefaultLimits() netlimit.Limits {
	n, err := netlimit.Descriptors()
	if err != nil {
		n = 1024
	}
	return netlimit.Limits{
		All:        max(n/2, 128),
		PerAddress: strangersPerAddress,
		Strangers:  strangersAtOnce,
		Bytes:      strangersBytes,
	}
}

// ListenerLimits are the limits of the cluster listener with the defaults for what is 0.
func ListenerLimits(given netlimit.Limits) netlimit.Limits {
	l := DefaultLimits()
	if given.All > 0 {
		l.All = given.All
	}
	if given.PerAddress > 0 {
		l.PerAddress = given.PerAddress
	}
	if given.Strangers > 0 {
		l.Strangers = given.Strangers
	}
	if given.Bytes > 0 {
		l.Bytes = given.Bytes
	}
	return l
}

// turnedAway reports whether a connection is closed before anything is read from it.
func (t *Transport) turnedAway(raw net.Conn) bool {
	if c := netlimit.Of(raw); c != nil && c.Overfull() {
		return true
	}
	return t.strangers.hangUp(raw.RemoteAddr(), time.Now())
}

// serverTLS is that of the credentials, and refuses other clusters from addresses that fail too often before anything
// is signed for them.
func (t *Transport) serverTLS() *tls.Config {
	cfg := t.creds.server()
	choose := cfg.GetConfigForClient
	cfg.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if slices.Contains(hello.SupportedProtos, ProtoPeer) && t.strangers.refusePeer(hello.Conn.RemoteAddr(), time.Now()) {
			return nil, errTooManyFailures
		}
		return choose(hello)
	}
	return cfg
}

// proven notes that a member has shown who it is on a connection.
func (t *Transport) proven(raw net.Conn) {
	t.strangers.Member(raw.RemoteAddr(), time.Now())
	if c := netlimit.Of(raw); c != nil {
		c.Proven("member")
	}
}

// silentFor bounds how long sent data may stay unacknowledged.
func silentFor(raw net.Conn, limit time.Duration) {
	if c, ok := raw.(syscall.Conn); ok {
		if rc, err := c.SyscallConn(); err == nil {
			_ = LimitSilence(rc, limit)
		}
	}
}

func gauge(name, help string) *prometheus.Desc { return prometheus.NewDesc(name, help, nil, nil) }

var (
	descConnections = gauge("muster_cluster_connections", "Open connections to the cluster listener.")
	descTurnedAway  = gauge("muster_cluster_connections_refused_total",
		"Connections to the cluster listener that were closed unread: there was no room, or their address fails too often.")
	descEvicted = gauge("muster_cluster_connections_evicted_total",
		"Connections to the cluster listener that showed no credential and gave way to others.")
	descPaced = gauge("muster_cluster_connections_paced_total",
		"Waits of connections to the cluster listener that showed no credential and have cost too much.")
	descFailures = gauge("muster_cluster_failures_total", "Failed handshakes and wrong secrets of peerings on the "+
		"cluster listener.")
)

// Collect shows the connections to the cluster listener, on every member.
func (t *Transport) Collect(out chan<- prometheus.Metric) {
	if t.limiter == nil {
		return
	}
	count := func(d *prometheus.Desc, n uint64) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n))
	}
	out <- prometheus.MustNewConstMetric(descConnections, prometheus.GaugeValue, float64(t.limiter.Open()))
	count(descTurnedAway, t.limiter.Refused()+t.strangers.refused.Load())
	count(descEvicted, t.limiter.Evicted())
	count(descPaced, t.limiter.Paced())
	count(descFailures, t.strangers.failures.Load())
}

// LimitSilence bounds how long data sent on a socket may stay unacknowledged.
func LimitSilence(c syscall.RawConn, limit time.Duration) error {
	var err error
	if e := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(limit.Milliseconds()))
	}); e != nil {
		return e
	}
	return err
}

// DefaultDialBound is how long a forwarded request waits for a connection when it can go elsewhere.
const DefaultDialBound = 300 * time.Millisecond

type boundKey struct{}

// dialWithin is how long a connection may take: the whole handshake, or, for a request that can go to another member,
// what a healthy member needs at most.
func dialWithin(ctx context.Context) time.Duration {
	if d, _ := ctx.Value(boundKey{}).(time.Duration); d > 0 {
		return min(d, handshakeTimeout)
	}
	return handshakeTimeout
}
