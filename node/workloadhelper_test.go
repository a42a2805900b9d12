package node_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// helper runs a part of this test as another user; what it says comes line by line.
type helper struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines *bufio.Scanner
	t     *testing.T
}

func startHelper(t *testing.T, binary string, uid uint32, args ...string) *helper {
	t.Helper()
	cmd := exec.Command(binary, "-test.run", "^TestHelperProcess$")
	cmd.Env = append(os.Environ(), "MUSTER_TEST_HELPER="+strings.Join(args, " "), "HOME=/")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, NoSetGroups: false}}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return &helper{cmd, in, bufio.NewScanner(out), t}
}

// line returns the next line that begins with a word, without it.
func (h *helper) line(word string) string {
	h.t.Helper()
	for h.lines.Scan() {
		if rest, ok := strings.CutPrefix(h.lines.Text(), word+" "); ok {
			return rest
		}
	}
	h.t.Fatalf("the helper has ended without %q", word)
	return ""
}

// TestHelperProcess is what other users do in TestWorkloads.
func TestHelperProcess(t *testing.T) {
	args := strings.Fields(os.Getenv("MUSTER_TEST_HELPER"))
	if len(args) == 0 {
		t.Skip("it is run by TestWorkloads")
	}
	ctx, cancel := context.WithTimeout(t.Context(), whole)
	defer cancel()
	switch what, socket := args[0], args[1]; what {
	case "serve":
		helperServe(t, ctx, source(t, ctx, socket))
	case "dial":
		helperDial(t, ctx, source(t, ctx, socket), args[2])
	case "fetch":
		helperFetch(ctx, socket)
	case "fetch-when-told":
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		helperFetch(ctx, socket)
	}
}

// helperServe echoes lines to whoever is of the same trust domain.
func helperServe(t *testing.T, ctx context.Context, s *workloadapi.X509Source) {
	own, err := s.GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0",
		tlsconfig.MTLSServerConfig(s, s, tlsconfig.AuthorizeMemberOf(own.ID.TrustDomain())))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fmt.Println("serving", l.Addr(), own.ID)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer conn.Close(); _, _ = io.Copy(conn, conn) }()
		}
	}()
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// helperDial connects anew all the time, until it is told to end, and says how often that worked.
func helperDial(t *testing.T, ctx context.Context, s *workloadapi.X509Source, address string) {
	own, err := s.GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("dialling", own.ID)
	cfg := tlsconfig.MTLSClientConfig(s, s, tlsconfig.AuthorizeMemberOf(own.ID.TrustDomain()))
	end := make(chan struct{})
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); close(end) }()
	good, bad, issuers := 0, 0, map[string]bool{}
	for {
		select {
		case <-end:
			fmt.Println("connections", good, bad, len(issuers))
			return
		case <-ctx.Done():
			return
		default:
		}
		if by, err := once(address, cfg); err != nil {
			bad++
			fmt.Println("failed", err)
		} else {
			good++
			issuers[by] = true
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// once makes a connection, says a word on it, and returns who has certified the other side.
func once(address string, cfg *tls.Config) (string, error) {
	conn, err := tls.Dial("tcp", address, cfg)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "hello\n"); err != nil {
		return "", err
	}
	_, err = bufio.NewReader(conn).ReadString('\n')
	return conn.ConnectionState().PeerCertificates[0].Issuer.String(), err
}

// helperFetch asks for everything once.
func helperFetch(ctx context.Context, socket string) {
	c, err := workloadapi.New(ctx, workloadapi.WithAddr("unix://"+socket))
	if err != nil {
		fmt.Println("x509", err)
		return
	}
	defer c.Close()
	x, err := onceReady(ctx, c.FetchX509Context)
	if err != nil {
		fmt.Println("x509", status.Code(err), status.Convert(err).Message())
	} else {
		fmt.Println("x509", x.DefaultSVID().ID)
	}
	j, err := onceReady(ctx, func(ctx context.Context) (*jwtsvid.SVID, error) {
		return c.FetchJWTSVID(ctx, jwtsvid.Params{Audience: "billing"})
	})
	if err != nil {
		fmt.Println("jwt", status.Code(err), status.Convert(err).Message())
		return
	}
	fmt.Println("jwt", j.Marshal())
	if v, err := c.ValidateJWTSVID(ctx, j.Marshal(), "billing"); err != nil {
		fmt.Println("valid", err)
	} else {
		fmt.Println("valid", v.ID)
	}
}

// onceReady asks again for as long as the answer is that the identity is not ready yet: on a busy machine its
// certificate may take longer than a request waits.
func onceReady[T any](ctx context.Context, fetch func(context.Context) (T, error)) (T, error) {
	for ; ; time.Sleep(10 * time.Millisecond) {
		out, err := fetch(ctx)
		if status.Code(err) != codes.Unavailable || ctx.Err() != nil {
			return out, err
		}
	}
}
