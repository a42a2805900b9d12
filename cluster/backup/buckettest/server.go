// Package buckettest runs a real S3 server for tests: versitygw, from the module testdata/servers.
package buckettest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Server is a running S3 server on loopback. Its buckets are the directories below Dir; it has "vault".
type Server struct {
	URL, Dir             string
	AccessKey, SecretKey string
	CA                   string // file with the certificate's authority, where it speaks TLS

	t    testing.TB
	args []string
	cmd  *exec.Cmd
	log  *bytes.Buffer
}

// Bucket is one that every server has.
const Bucket = "vault"

var built = sync.OnceValues(func() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "testdata", "servers", "go.mod")); err == nil || dir == "/" {
			break
		}
	}
	path := filepath.Join(dir, ".deps", "bin", "versitygw")
	build := exec.Command("go", "build", "-o", path, "github.com/versity/versitygw/cmd/versitygw")
	build.Dir = filepath.Join(dir, "testdata", "servers")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return string(out), err
	}
	return path, nil
})

// Start runs a server whose buckets are below dir, with TLS or without; more are arguments of versitygw's.
func Start(t testing.TB, dir string, secure bool, more ...string) *Server {
	t.Helper()
	path, err := built()
	if err != nil {
		t.Skipf("there is no S3 server, versitygw does not build: %v\n%s", err, path)
	}
	if err := os.MkdirAll(filepath.Join(dir, Bucket), 0o700); err != nil {
		t.Fatal(err)
	}
	s := &Server{Dir: dir, AccessKey: "muster", SecretKey: "a/secret+of-its-own", t: t}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	s.URL = "http://" + address
	s.args = append([]string{path, "--quiet", "--access", s.AccessKey, "--secret", s.SecretKey, "--port", address},
		more...)
	if secure {
		s.URL = "https://" + address
		cert, key := certificate(t)
		s.CA = cert
		s.args = append(s.args, "--cert", cert, "--key", key)
	}
	s.args = append(s.args, "posix", dir)
	t.Cleanup(s.Stop)
	s.Run()
	return s
}

// Run starts it again after Stop, at the same address.
func (s *Server) Run() {
	s.t.Helper()
	s.log = &bytes.Buffer{}
	s.cmd = exec.Command(s.args[0], s.args[1:]...)
	s.cmd.Dir = s.Dir
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	address := s.URL[len("http://"):]
	if s.CA != "" {
		address = s.URL[len("https://"):]
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("the S3 server does not listen: %v", err)
		}
	}
}

// Stop kills it; what it has stored stays.
func (s *Server) Stop() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	s.cmd = nil
	if s.t.Failed() {
		s.t.Logf("the S3 server said:\n%s", s.log)
	}
}

// Pause has it say nothing any more until the function that it returns is called.
func (s *Server) Pause() (goOn func()) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		s.t.Fatal(err)
	}
	return func() { _ = s.cmd.Process.Signal(syscall.SIGCONT) }
}

func certificate(t testing.TB) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{
		cert: {Type: "CERTIFICATE", Bytes: der},
		key:  {Type: "PRIVATE KEY", Bytes: secret},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}
