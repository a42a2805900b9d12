package node_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"path/filepath"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"

	"muster/client"
)

// TestWorkloadsOfPeers: software of two clusters that have a peering talks mutual TLS, each known by its own cluster's
// bundle, also after one of them has replaced its authority; when the peering is deleted, it is over.
func TestWorkloadsOfPeers(t *testing.T) {
	dir := openDir(t)
	ctx, cancel := context.WithTimeout(t.Context(), whole)
	defer cancel()
	var clients [2]*client.Client
	var sockets, domains [2]string
	for i, name := range []string{"berlin", "paris"} {
		cfg := config(filepath.Join(dir, name))
		cfg.Founding.Datacenter, cfg.SpiffeSocket = name, filepath.Join(dir, name+".sock")
		start(t, cfg)
		clients[i], sockets[i] = dial(t, cfg.Data), cfg.SpiffeSocket
		domains[i] = clusterOf(t, ctx, clients[i])
	}
	token, err := clients[0].PeeringToken(ctx, client.PeeringTokenRequest{PeerName: "paris"})
	if err != nil {
		t.Fatal(err)
	}
	if err := clients[1].EstablishPeering(ctx, "berlin", token.PeeringToken, nil); err != nil {
		t.Fatal(err)
	}
	server, dialler := source(t, ctx, sockets[0]), source(t, ctx, sockets[1])
	other := [2]spiffeid.TrustDomain{spiffeid.RequireTrustDomainFromString(domains[0]),
		spiffeid.RequireTrustDomainFromString(domains[1])}
	knows := func(context.Context) bool {
		_, one := server.GetX509BundleForTrustDomain(other[1])
		_, two := dialler.GetX509BundleForTrustDomain(other[0])
		return one == nil && two == nil
	}
	await(t, "each knows the bundle of the other", knows)

	l, err := tls.Listen("tcp", "127.0.0.1:0",
		tlsconfig.MTLSServerConfig(server, server, tlsconfig.AuthorizeMemberOf(other[1])))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer conn.Close(); _, _ = io.Copy(conn, conn) }()
		}
	}()
	talk := func() error {
		_, err := once(l.Addr().String(), tlsconfig.MTLSClientConfig(dialler, dialler, tlsconfig.AuthorizeMemberOf(other[0])))
		return err
	}
	if err := talk(); err != nil {
		t.Fatal("two clusters:", err)
	}
	rotateWorkloadCA(t, ctx, clients[0])
	await(t, "the other cluster has the new authority alone", func(context.Context) bool {
		b, err := dialler.GetX509BundleForTrustDomain(other[0])
		return err == nil && len(b.X509Authorities()) == 1 && b.X509Authorities()[0].Subject.CommonName != "" && talk() == nil
	})
	if err := clients[1].DeletePeering(ctx, "berlin"); err != nil {
		t.Fatal(err)
	}
	await(t, "the bundles go with the peering", func(context.Context) bool {
		_, one := server.GetX509BundleForTrustDomain(other[1])
		_, two := dialler.GetX509BundleForTrustDomain(other[0])
		return one != nil && two != nil
	})
	if err := talk(); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Error("they still talk:", err)
	}
}
