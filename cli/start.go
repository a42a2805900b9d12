package cli

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"muster/addr"
	"muster/cluster"
	"muster/store"
)

// peerFlag is the repeatable flag ID=HOST:PORT.
type peerFlag struct{ list []cluster.Peer }

// Set adds one peer.
func (p *peerFlag) Set(s string) error {
	peer, err := cluster.ParsePeer(s)
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
	if f.join == "" {
		f.join = os.Getenv("MUSTER_JOIN_TOKEN")
	}
	return f.peers.fromEnv(cmd)
}

// differing is what the command line says of the member and its row may not: the leader is told, and audits it.
func (f *serveFlags) differing() (g cluster.Given) {
	if f.given["name"] {
		g.Name = f.name
	}
	if f.given["mode"] {
		g.Mode = f.mode
	}
	return g
}

// addresses checks the listeners' addresses and returns what others are to use.
func (f *serveFlags) addresses() (api, raft string, err error) {
	if f.advertise != "" {
		if err := addr.CheckHost(f.advertise); err != nil {
			return "", "", fmt.Errorf("--advertise must be a host or an IP address, without a port, that others can dial: %w", err)
		}
	}
	if f.plainHTTP != "" {
		if err := addr.CheckListen(f.plainHTTP); err != nil {
			return "", "", fmt.Errorf("--plain-http must be HOST:PORT: %w", err)
		}
	}
	if api, err = f.advertised("api", f.api); err != nil {
		return "", "", err
	}
	raft, err = f.advertised("raft", f.raft)
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

// checkFixed compares what was fixed when the cluster was founded with the flags that say it, as far as this member's
// mirror knows.
func (f *serveFlags) checkFixed(dir *cluster.Dir) error {
	is, err := store.MirrorFounding(filepath.Join(dir.Path, "muster.db"))
	if err != nil { // there is no mirror yet, or a damaged one: looked at again when there is
		return nil
	}
	for _, x := range []struct{ flag, given, is string }{
		{"datacenter", f.datacenter, is.Datacenter},
		{"overlay-cidr", f.overlayCIDR, is.OverlayCIDR},
		{"overlay-slice", fmt.Sprint(f.overlaySlice), is.OverlaySlice},
	} {
		if f.given[x.flag] && x.given != x.is && x.is != "" {
			return fmt.Errorf("--%s %s is not what this cluster has, %s, which is fixed when it is founded: leave the flag out", x.flag, x.given, x.is)
		}
	}
	return nil
}

// warnCA says so when the operator's CA of the command line is not the cluster's any more. It is no reason not to start: the
// cluster may have rotated it since it was founded.
func (f *serveFlags) warnCA(env *environment, dir *cluster.Dir) {
	if !f.given["http-ca-cert"] {
		return
	}
	own, _, err := f.ownCA()
	if same, e := dir.HasCA(own); err != nil || e != nil || !same {
		env.say("warning: --http-ca-cert is for the founding only and is not what this cluster uses now; \"muster ca rotate --cert FILE --key " +
			"FILE\" brings another CA, and the flag can be left out")
	}
}

// fixed checks the same as soon as a member that has only just joined knows it.
func (f *serveFlags) fixed(ctx context.Context, st *store.Store, dir *cluster.Dir) <-chan error {
	result := make(chan error, 1)
	go func() {
		for ctx.Err() == nil {
			changed := st.MirrorChanged()
			if st.ReplicaRevision() > 0 {
				if err := f.checkFixed(dir); err != nil {
					result <- err
				}
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	}()
	return result
}
