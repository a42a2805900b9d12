package node_test

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

// BenchmarkIdentity is how long the socket takes for an identity: over a new connection each time, and for a JWT-SVID
// that was asked for before.
func BenchmarkIdentity(b *testing.B) {
	dir := b.TempDir()
	cfg := config(filepath.Join(dir, "1"))
	cfg.SpiffeSocket = filepath.Join(dir, "s")
	ctx, cancel := context.WithTimeout(context.Background(), whole)
	defer cancel()
	n := begin(b, ctx, cfg)
	defer n.Close()
	client := func() *workloadapi.Client {
		c, err := workloadapi.New(ctx, workloadapi.WithAddr("unix://"+cfg.SpiffeSocket))
		if err != nil {
			b.Fatal(err)
		}
		return c
	}
	kept := client()
	defer kept.Close()
	if _, err := kept.FetchX509SVID(ctx); err != nil {
		b.Fatal(err)
	}
	b.Run("x509", func(b *testing.B) {
		for range b.N {
			c := client()
			if _, err := c.FetchX509SVID(ctx); err != nil {
				b.Fatal(err)
			}
			c.Close()
		}
	})
	b.Run("jwt", func(b *testing.B) {
		for range b.N {
			if _, err := kept.FetchJWTSVID(ctx, jwtsvid.Params{Audience: "a"}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
