package node_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster/client"
	"muster/node"
	"muster/store"
)

// TestPlaces: members at addresses of IPv6 alone, at a host name, and in directories behind symbolic links form a
// cluster, write through each other and are the same after a restart.
func TestPlaces(t *testing.T) {
	for what, host := range map[string]string{"IPv6": "[::1]", "a host name": "localhost"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", host+":0")
			if err != nil {
				t.Skip(err)
			}
			l.Close()
			dir := t.TempDir()
			two := [2]node.Config{config(filepath.Join(dir, "1")), config(filepath.Join(dir, "2"))}
			for i := range two {
				cfg := &two[i]
				cfg.API, cfg.Raft = host+":0", host+":0"
				real := cfg.Data + ".real"
				if err := os.Mkdir(real, 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(real, cfg.Data); err != nil {
					t.Fatal(err)
				}
			}
			nodes := make([]*node.Node, 2)
			nodes[0] = start(t, two[0])
			c := dial(t, two[0].Data)
			ctx, cancel := context.WithTimeout(t.Context(), whole)
			defer cancel()
			token, err := c.CreateJoinToken(ctx, client.JoinTokenRequest{TTL: time.Hour, MaxUses: 1, Mode: store.ModeFull})
			if err != nil {
				t.Fatal(err)
			}
			two[1].Join = token.Token
			nodes[1] = start(t, two[1])
			await(t, "both are Raft servers", func(ctx context.Context) bool {
				members, err := c.Members(ctx)
				return err == nil && len(members) == 2 && members[1].Suffrage != "none"
			})
			aliased := two[1]
			aliased.Data += ".real"
			if _, err := node.Start(ctx, aliased); err == nil ||
				!strings.Contains(err.Error(), "is in use by a running muster") {
				t.Errorf("the same directory by another name: %v", err)
			}
			for i := range two {
				cfg := &two[i]
				cfg.API, cfg.Raft = ports(t, cfg.Data)
				if what == "a host name" { // they move from the addresses behind it to the name
					cfg.APIAddress, cfg.RaftAddress = named(t, host, cfg.API), named(t, host, cfg.Raft)
				}
				if err := nodes[i].Close(); err != nil {
					t.Fatal(err)
				}
			}
			for i := range two {
				nodes[i] = start(t, two[i])
			}
			through := clientAt(t, two[0].Data, two[1].Data)
			await(t, "they write again", func(ctx context.Context) bool {
				_, err := through.PutSecret(ctx, "s", []byte("x"))
				return err == nil
			})
			await(t, "each is known at its place", func(ctx context.Context) bool {
				members, err := through.Members(ctx)
				return err == nil && len(members) == 2 && strings.HasPrefix(members[0].RaftAddress, host+":") &&
					strings.HasPrefix(members[1].RaftAddress, host+":")
			})
		})
	}
}

// named returns an address with another host.
func named(t *testing.T, host, address string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort(host, port)
}
