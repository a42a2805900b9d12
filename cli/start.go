package cli

import (
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"muster/cluster/datadir"
	"muster/internal/addr"
	"muster/node"
)

// peerFlag is the repeatable flag ID=HOST:PORT.
type peerFlag struct{ list []datadir.Place }

// Set adds one peer.
func (p *peerFlag) Set(s string) error {
	peer, err := datadir.ParsePlace(s)
	p.list = append(p.list, peer)
	return err
}

func (p *peerFlag) String() string { return "" }

// Type returns the placeholder of the value in the help.
func (p *peerFlag) Type() string { return "ID=HOST:PORT" }

// read completes the flags from the environment and the file, records the given ones, and checks them.
func (f *serveFlags) read(cmd *cobra.Command) error {
	if err := fromElsewhere(cmd, f.file); err != nil {
		return err
	}
	f.given = map[string]bool{}
	cmd.Flags().Visit(func(flag *pflag.Flag) { f.given[flag.Name] = true })
	if f.data == "" {
		return usagef(cmd, "--data is missing")
	}
	if f.EventWindow < 16 || f.EventWindow > 1_000_000 {
		return usagef(cmd, "--event-window must be between 16 and 1000000, not %d", f.EventWindow)
	}
	if err := checkLimits(&f.Config); err != nil {
		return usagef(cmd, "%s", err)
	}
	if (f.Founding.CACert == "") != (f.Founding.CAKey == "") {
		return usagef(cmd, "--http-ca-cert and --http-ca-key must be given together")
	}
	if f.Rejoin && f.Join == "" {
		return usagef(cmd, "--rejoin needs a join token: --join TOKEN")
	}
	var usage *usageError
	if f.Join, f.JoinErr = tokenText(f.Join); errors.As(f.JoinErr, &usage) {
		return usagef(cmd, "%s", usage.text)
	}
	return nil
}

// addresses checks the listeners' addresses and returns the advertised ones.
func (f *serveFlags) addresses() (api, raft string, err error) {
	if f.advertise != "" {
		if err := addr.CheckHost(f.advertise); err != nil {
			return "", "", fmt.Errorf("--advertise must be a host or an IP address, without a port, that others can dial: %w",
				err)
		}
	}
	if f.PlainHTTP != "" {
		if err := addr.CheckListen(f.PlainHTTP); err != nil {
			return "", "", fmt.Errorf("--plain-http must be HOST:PORT: %w", err)
		}
	}
	if api, err = f.advertised("api", f.API); err != nil {
		return "", "", err
	}
	raft, err = f.advertised("raft", f.Raft)
	return api, raft, err
}

// advertised returns the address at which others dial the listener.
func (f *serveFlags) advertised(flag, address string) (string, error) {
	if err := addr.CheckListen(address); err != nil {
		if _, port, e := net.SplitHostPort(address); e == nil {
			if n, e := strconv.Atoi(port); e == nil && n > 65535 {
				return "", fmt.Errorf("--%s has no valid port: %w", flag, err)
			}
		}
		return "", fmt.Errorf("--%s must be HOST:PORT: %w", flag, err)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	if f.advertise != "" {
		return addr.Canonical(net.JoinHostPort(f.advertise, port)), nil
	}
	if addr.Wildcard(host) {
		return "", fmt.Errorf("--%s %s listens everywhere: give the host for others with --advertise", flag,
			address)
	}
	if err := addr.Check(address); err != nil {
		return "", fmt.Errorf("--%s: %w: give the host for others with --advertise", flag, err)
	}
	return addr.Canonical(address), nil
}

// limitFlags returns the flags that limit the clients of a member.
func limitFlags(c *node.Config) []limitFlag {
	l, conns := &c.Limits, &c.Connections
	return []limitFlag{
		{"max-connections", &conns.All,
			"concurrent connections of clients, at most half of the process's open-files limit"},
		{"max-connections-per-address", &conns.PerAddress,
			"concurrent connections of one address (IPv6: /64) without a valid credential; the oldest is closed first"},
		{"max-bytes-per-address", &conns.Bytes,
			"cost in bytes a second of the connections of one address (IPv6: /64) without a valid credential"},
		{"max-requests", &l.Requests, "requests in work at once"},
		{"max-requests-per-address", &l.StrangersPerAddress,
			"concurrent requests of one address (IPv6: /64) without a valid credential"},
		{"max-streams", &l.Streams, "concurrent requests on one HTTP/2 connection"},
		{"max-blocking-queries", &l.Blocking, "blocking queries at once"},
		{"max-blocking-queries-per-identity", &l.BlockingPerIdentity, "concurrent blocking queries of one credential"},
		{"max-event-readers", &l.Readers, "concurrent readers of the event stream"},
		{"max-event-readers-per-identity", &l.ReadersPerIdentity, "concurrent readers with one credential"},
	}
}

type limitFlag struct {
	name  string
	into  *int // holds the default
	usage string
}

func registerLimits(flags *pflag.FlagSet, c *node.Config) {
	for _, f := range limitFlags(c) {
		flags.IntVar(f.into, f.name, *f.into, f.usage)
	}
}

const mostOfAnything = 1_000_000_000

func checkLimits(c *node.Config) error {
	for _, f := range limitFlags(c) {
		if *f.into < 1 || *f.into > mostOfAnything {
			return fmt.Errorf("--%s must be between 1 and %d, not %d", f.name, mostOfAnything, *f.into)
		}
	}
	return nil
}
