package cli

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"muster/internal/await"
	"muster/node"
)

// TestWorkloadFiles: curl talks mutual TLS to a server with nothing but the files that muster workload fetch --write
// makes of what the socket says, as docs/identity.md shows it.
func TestWorkloadFiles(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("there is no curl")
	}
	outside(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "muster-") // a short path, for the socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	cfg := node.Default()
	cfg.Data, cfg.API, cfg.Raft, cfg.SpiffeSocket = filepath.Join(dir,
		"1"), "127.0.0.1:0", "127.0.0.1:0", filepath.Join(dir, "s")
	cfg.Logger, cfg.Version = slog.New(slog.DiscardHandler), "test"
	n, err := node.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	files := filepath.Join(dir, "svid")
	if err := os.Mkdir(files, 0o700); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := run(t, "workload", "create", "/web", "--user", fmt.Sprint(os.Geteuid()), "--host", "localhost",
		"--data", cfg.Data); code != 0 {
		t.Fatal(stderr)
	}
	await.NoError(t, "the files are written", func() error {
		code, _, stderr := run(t, "workload", "fetch", "--socket", cfg.SpiffeSocket, "--write", files)
		if !strings.HasSuffix(identityIn(files), "/web") {
			return fmt.Errorf("%d %s", code, stderr)
		}
		return nil
	})
	pair, err := tls.LoadX509KeyPair(filepath.Join(files, "svid.pem"), filepath.Join(files, "svid_key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := os.ReadFile(filepath.Join(files, "bundle.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: roots,
		ClientAuth: tls.RequireAndVerifyClientCert})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "hello ", r.TLS.PeerCertificates[0].URIs[0].Path)
		})}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	ask := func(args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, curl, append([]string{"-sS", "--resolve", "localhost:" + port + ":127.0.0.1",
			"--cacert", filepath.Join(files, "bundle.pem"), "https://localhost:" + port + "/"}, args...)...).CombinedOutput()
		return string(bytes.TrimSpace(out)), err
	}
	if out, err := ask("--cert", filepath.Join(files, "svid.pem"), "--key",
		filepath.Join(files, "svid_key.pem")); err != nil || out != "hello /web" {
		t.Errorf("curl: %v: %s", err, out)
	}
	if out, err := ask(); err == nil {
		t.Errorf("without a certificate: %s", out)
	}
}

func identityIn(dir string) string {
	s, err := x509svid.Load(filepath.Join(dir, "svid.pem"), filepath.Join(dir, "svid_key.pem"))
	if err != nil {
		return ""
	}
	return s.ID.String()
}
