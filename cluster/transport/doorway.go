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

	"muster/internal/netlimit"
)

const (
	strangersPerAddress = 512
	strangersAtOnce     = 1024 // a handshake takes about 30 kB
	strangersBytes      = 1_000_000
)

var errTooManyFailures = errors.New("too many failed attempts from this address")

// DefaultLimits returns the limits of the cluster listener: half of the file descriptors of this process. Members that
// have presented their certificate count against the total alone, however many share one address.
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

// ListenerLimits returns the given limits, with the defaults for zero values.
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

// turnedAway reports whether a connection is closed before anything is read.
func (t *Transport) turnedAway(raw net.Conn) bool {
	if c := netlimit.Of(raw); c != nil && c.Overfull() {
		return true
	}
	return t.strangers.hangUp(raw.RemoteAddr(), time.Now())
}

// serverTLS returns the TLS settings of the credentials. Before anything is signed it rejects other clusters at
// addresses that fail too often.
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

// proven records that a member has authenticated on a connection.
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

// Collect sends the metrics of the cluster listener, on every member.
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

// dialWithin returns how long a connection may take: a whole handshake, or, for a request that can go to another
// member, the most that a healthy member needs.
func dialWithin(ctx context.Context) time.Duration {
	if d, _ := ctx.Value(boundKey{}).(time.Duration); d > 0 {
		return min(d, handshakeTimeout)
	}
	return handshakeTimeout
}
