// Command identity is an example of software with an identity: a server and a client that talk to each other with
// nothing but the address of the Workload API's socket, which SPIFFE_ENDPOINT_SOCKET has.
//
//	identity serve 127.0.0.1:8443
//	identity dial 127.0.0.1:8443
//
// Each takes the other for what it is when both are of the same trust domain.
package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "identity:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 || args[0] != "serve" && args[0] != "dial" {
		return fmt.Errorf("usage: identity serve|dial HOST:PORT")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second) // for the first certificate
	defer cancel()
	source, err := workloadapi.NewX509Source(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	own, err := source.GetX509SVID()
	if err != nil {
		return err
	}
	same := tlsconfig.AuthorizeMemberOf(own.ID.TrustDomain())
	if args[0] == "serve" {
		return serve(args[1], own, tlsconfig.MTLSServerConfig(source, source, same))
	}
	conn, err := tls.Dial("tcp", args[1], tlsconfig.MTLSClientConfig(source, source, same))
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = io.Copy(os.Stdout, conn)
	return err
}

// serve greets everybody by name.
func serve(address string, own *x509svid.SVID, config *tls.Config) error {
	l, err := tls.Listen("tcp", address, config)
	if err != nil {
		return err
	}
	fmt.Println(own.ID, "listens at", l.Addr())
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			c := conn.(*tls.Conn)
			if err := c.Handshake(); err != nil {
				fmt.Fprintln(os.Stderr, "refused:", err)
				return
			}
			id, err := x509svid.IDFromCert(c.ConnectionState().PeerCertificates[0])
			if err == nil {
				fmt.Fprintf(c, "hello %s, this is %s\n", id, own.ID)
			}
		}()
	}
}
