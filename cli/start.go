package cli

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"muster/addr"
	"muster/cluster/datadir"
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

// Type names the value in the help.
func (p *peerFlag) Type() string { return "ID=HOST:PORT" }

// fromEnv reads MUSTER_PEERS where the flag is not given.
func (p *peerFlag) fromEnv(cmd *cobra.Command) error {
	text := os.Getenv("MUSTER_PEERS")
	if len(p.list) > 0 || text == "" {
		return nil
	}
	for item := range strings.SplitSeq(text, ",") {
		if err := p.Set(item); err != nil {
			return usagef(cmd, "MUSTER_PEERS: %v", err)
		}
	}
	return nil
}

// read completes the flags with what the environment says, and notes which are given.
func (f *serveFlags) read(cmd *cobra.Command) error {
	f.given = map[string]bool{}
	cmd.Flags().Visit(func(flag *pflag.Flag) { f.given[flag.Name] = true })
	if f.Join == "" {
		f.Join = os.Getenv("MUSTER_JOIN_TOKEN")
	}
	return f.peers.fromEnv(cmd)
}

// addresses checks the listeners' addresses and returns what others are to use.
func (f *serveFlags) addresses() (api, raft string, err error) {
	if f.advertise != "" {
		if err := addr.CheckHost(f.advertise); err != nil {
			return "", "", fmt.Errorf("--advertise must be a host or an IP address, without a port, that others can dial: %w", err)
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

// advertised is what others use to dial the listener at address.
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
		return "", fmt.Errorf("--%s %s listens everywhere: say with --advertise how others reach this member", flag, address)
	}
	if err := addr.Check(address); err != nil {
		return "", fmt.Errorf("--%s: %w: say with --advertise how others reach this member", flag, err)
	}
	return addr.Canonical(address), nil
}
