package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// etcdPassword is the password of the user root.
const etcdPassword = "bench"

// secure has the flags and client settings of etcd with TLS everywhere and authentication.
type secure struct {
	flags []string
	tls   *tls.Config
}

// newSecure makes one self-signed certificate in dir; all processes use and trust it.
func newSecure(dir string) (*secure, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "bench"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if err := os.WriteFile(certFile, cert, 0o600); err != nil {
		return nil, err
	}
	if err := os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}),
		0o600); err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cert)
	return &secure{
		flags: []string{"--cert-file", certFile, "--key-file", keyFile,
			"--peer-cert-file", certFile, "--peer-key-file", keyFile, "--peer-trusted-ca-file", certFile,
			"--peer-client-cert-auth"},
		tls: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	}, nil
}

// authenticate switches authentication on.
func (c *etcdCluster) authenticate(ctx context.Context) error {
	admin := c.admin[0]
	if _, err := admin.UserAdd(ctx, "root", etcdPassword); err != nil {
		return err
	}
	if _, err := admin.UserGrantRole(ctx, "root", "root"); err != nil {
		return err
	}
	if _, err := admin.AuthEnable(ctx); err != nil {
		return err
	}
	c.user = "root"
	for i := range c.admin {
		client, err := c.client(i)
		if err != nil {
			return err
		}
		c.admin[i].Close()
		c.admin[i] = client
	}
	return nil
}
