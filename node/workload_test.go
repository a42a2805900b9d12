package node_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/federation"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"

	"muster/client"
	"muster/node"
	"muster/store"
)

// openDir is a directory that other users may look into.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "muster-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// source gets identities as this process.
func source(t *testing.T, ctx context.Context, socket string) *workloadapi.X509Source {
	t.Helper()
	s, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(workloadapi.WithAddr("unix://"+socket)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func clusterOf(t *testing.T, ctx context.Context, c *client.Client) string {
	t.Helper()
	s, err := c.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return s.Cluster.ClusterID
}

// TestMemberIdentity: the official client gets the member's own identity from the socket.
func TestMemberIdentity(t *testing.T) {
	dir := openDir(t)
	cfg := config(filepath.Join(dir, "1"))
	cfg.SpiffeSocket = filepath.Join(dir, "spiffe.sock")
	start(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), whole)
	defer cancel()
	svid, err := source(t, ctx, cfg.SpiffeSocket).GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	if want := "spiffe://" + clusterOf(t, ctx, dial(t, cfg.Data)) + "/node/1"; svid.ID.String() != want {
		t.Errorf("the member is %s, not %s", svid.ID, want)
	}
}

// Users of the test; nobody else has their numbers.
const serverUser, clientUser, strangerUser = 40001, 40002, 40003

// twoMembers starts a cluster of two with sockets, and returns their configurations.
func twoMembers(t *testing.T, ctx context.Context, dir string) (*client.Client, [2]node.Config) {
	t.Helper()
	cfgs := [2]node.Config{config(filepath.Join(dir, "1")), config(filepath.Join(dir, "2"))}
	for i := range cfgs {
		cfgs[i].Name = fmt.Sprintf("m%d", i+1)
		cfgs[i].SpiffeSocket = filepath.Join(dir, fmt.Sprintf("%d.sock", i+1))
	}
	start(t, cfgs[0])
	c := dial(t, cfgs[0].Data)
	token, err := c.CreateJoinToken(ctx, client.JoinTokenRequest{TTL: time.Hour, MaxUses: 1, Mode: store.ModeFull})
	if err != nil {
		t.Fatal(err)
	}
	cfgs[1].Join = token.Token
	start(t, cfgs[1])
	return c, cfgs
}

// TestWorkloads: two processes of two users on two members talk mutual TLS with what the sockets give them, also while
// the workload authority is replaced; a third user gets nothing, and one row of the audit says so.
func TestWorkloads(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it runs processes as other users, which takes root")
	}
	dir := openDir(t)
	binary := filepath.Join(dir, "helper")
	copyFile(t, os.Args[0], binary)
	ctx, cancel := context.WithTimeout(t.Context(), whole)
	defer cancel()
	c, cfgs := twoMembers(t, ctx, dir)
	for i, w := range []client.WorkloadRequest{
		{Path: "/server", NodeID: 1, User: fmt.Sprint(serverUser)},
		{Path: "/client", NodeID: 2, User: fmt.Sprint(clientUser), Group: fmt.Sprint(clientUser)},
	} {
		made, err := c.CreateWorkload(ctx, w)
		if err != nil {
			t.Fatal(i, err)
		}
		again, err := c.CreateWorkload(ctx, w)
		if err != nil || again.ID != made.ID {
			t.Errorf("the same registration again is %s, not %s: %v", again.ID, made.ID, err)
		}
	}
	domain := "spiffe://" + clusterOf(t, ctx, c)

	server := startHelper(t, binary, serverUser, "serve", cfgs[0].SpiffeSocket)
	address, id, _ := strings.Cut(server.line("serving"), " ")
	dialler := startHelper(t, binary, clientUser, "dial", cfgs[1].SpiffeSocket, address)
	if own := dialler.line("dialling"); id != domain+"/server" || own != domain+"/client" {
		t.Errorf("the server is %s, the client %s", id, own)
	}
	rotateWorkloadCA(t, ctx, c)
	dialler.stdin.Close()
	var good, bad, issuers int
	_, _ = fmt.Sscan(dialler.line("connections"), &good, &bad, &issuers)
	if good == 0 || bad > 0 || issuers != 2 {
		t.Errorf("%d connections, %d failed, %d authorities", good, bad, issuers)
	}

	known := startHelper(t, binary, clientUser, "fetch", cfgs[1].SpiffeSocket)
	if got := known.line("x509"); got != domain+"/client" {
		t.Errorf("the client is %s", got)
	}
	validateJWT(t, ctx, cfgs[0], spiffeid.RequireTrustDomainFromString(domain), known.line("jwt"))
	if got := known.line("valid"); got != domain+"/client" {
		t.Errorf("the socket validates %s", got)
	}
	for range 3 { // the wrong member, too: /client is registered for the other one
		for _, uid := range []uint32{strangerUser, clientUser} {
			h := startHelper(t, binary, uid, "fetch", cfgs[0].SpiffeSocket)
			for _, what := range []string{"x509", "jwt"} {
				if got := h.line(what); got != "PermissionDenied no identity issued" {
					t.Errorf("user %d: %s %s", uid, what, got)
				}
			}
		}
	}
	refusedRows(t, ctx, c)
	endsWithRegistration(t, ctx, c, binary, cfgs[1].SpiffeSocket)
}

// rotateWorkloadCA replaces the workload authority and waits until the old one is gone.
func rotateWorkloadCA(t *testing.T, ctx context.Context, c *client.Client) {
	t.Helper()
	if _, err := c.RotateCA(ctx, client.CARequest{Kind: "workload", Overlap: "1s"}); err != nil {
		t.Fatal(err)
	}
	await(t, "the old workload authority is dropped", func(ctx context.Context) bool {
		kinds, err := c.CA(ctx)
		i := slices.IndexFunc(kinds, func(k client.CAKind) bool { return k.Kind == "workload" })
		return err == nil && i >= 0 && kinds[i].Rotation == nil && len(kinds[i].Generations) == 2 &&
			kinds[i].Generations[0].State == "retired"
	})
}

// validateJWT: the bundle that the cluster publishes verifies a JWT-SVID, for its audience alone.
func validateJWT(t *testing.T, ctx context.Context, cfg node.Config, domain spiffeid.TrustDomain, token string) {
	t.Helper()
	b := publishedBundle(t, ctx, cfg, domain)
	svid, err := jwtsvid.ParseAndValidate(token, b, []string{"billing"})
	if err != nil || svid.ID.Path() != "/client" {
		t.Errorf("the JWT-SVID %s: %v", token, err)
	}
	if _, err := jwtsvid.ParseAndValidate(token, b, []string{"another"}); err == nil {
		t.Error("it is good for another audience")
	}
	if _, ok := b.SequenceNumber(); !ok {
		t.Error("the bundle has no sequence")
	}
	if hint, ok := b.RefreshHint(); !ok || hint <= 0 {
		t.Error("the bundle has no refresh hint")
	}
}

// publishedBundle fetches the trust bundle as a foreign SPIFFE system does.
func publishedBundle(t *testing.T, ctx context.Context, cfg node.Config,
	domain spiffeid.TrustDomain) *spiffebundle.Bundle {
	t.Helper()
	status, err := dial(t, cfg.Data).Members(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(cfg.Data, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	b, err := federation.FetchBundle(ctx, domain, status[0].APIAddress+"/.well-known/spiffe/bundle",
		federation.WithWebPKIRoots(roots))
	if err != nil {
		t.Fatal(err)
	}
	http.DefaultClient.CloseIdleConnections()
	return b
}

// refusedRows: however often they have asked, there is a row for each user.
func refusedRows(t *testing.T, ctx context.Context, c *client.Client) {
	t.Helper()
	await(t, "the refusals are in the audit", func(ctx context.Context) bool {
		return len(refusals(t, ctx, c)) >= 2
	})
	rows := refusals(t, ctx, c)
	for _, uid := range []int{strangerUser, clientUser} {
		n := 0
		for _, r := range rows {
			if strings.Contains(r.Detail, fmt.Sprintf("uid=%d ", uid)) && r.Outcome == "refused" && r.Object == "node/1" {
				n++
			}
		}
		if n != 1 {
			t.Errorf("user %d has %d rows of %v", uid, n, rows)
		}
	}
}

func refusals(t *testing.T, ctx context.Context, c *client.Client) []client.Event {
	t.Helper()
	page, err := c.Audit(ctx, client.AuditQuery{Action: "workload.refuse", Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	return page.Entries
}

// endsWithRegistration: a stream ends, and nothing is handed out any more, when the registration is deleted.
func endsWithRegistration(t *testing.T, ctx context.Context, c *client.Client, binary, socket string) {
	t.Helper()
	list, err := c.Workloads(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range list {
		if err := c.DeleteWorkload(ctx, w.ID); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "the client gets nothing any more", func(context.Context) bool {
		return startHelper(t, binary, clientUser, "fetch", socket).line("x509") == codes.PermissionDenied.String()+
			" no identity issued"
	})
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}
