package node_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster/client"
	"muster/cluster/datadir"
	"muster/node"
	"muster/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	within = 60 * time.Second // bounds what takes a moment on an idle machine
	whole  = 10 * within      // bounds all that a test asks of a member
)

// config is a member on free ports of the loopback.
func config(dir string) node.Config {
	cfg := node.Default()
	cfg.Data, cfg.API, cfg.Raft = dir, "127.0.0.1:0", "127.0.0.1:0"
	cfg.NetworkLatency = 5 * time.Millisecond
	cfg.Logger, cfg.Version = slog.New(slog.DiscardHandler), "test"
	return cfg
}

func begin(t testing.TB, ctx context.Context, cfg node.Config) *node.Node {
	t.Helper()
	n, err := node.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func start(t *testing.T, cfg node.Config) *node.Node {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), whole)
	defer cancel()
	n := begin(t, ctx, cfg)
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error("close:", err)
		}
	})
	return n
}

func dial(t *testing.T, dir string) *client.Client {
	t.Helper()
	cfg, err := client.FromData(dir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// await polls until what holds.
func await(t *testing.T, what string, holds func(context.Context) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), whole)
	defer cancel()
	for !holds(ctx) {
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %v", what, within)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Two members live in one process: one founds, the other joins and votes, and is told when it is removed. A member that
// is started again is the one that it was.
func TestMembers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	one, two := config(filepath.Join(dir, "1")), config(filepath.Join(dir, "2"))
	one.Name, two.Name = "one", "two"
	first := start(t, one)
	c := dial(t, one.Data)
	ctx, cancel := context.WithTimeout(t.Context(), whole)
	defer cancel()
	token, err := c.CreateJoinToken(ctx, client.JoinTokenRequest{TTL: time.Hour, MaxUses: 1, Mode: store.ModeFull})
	if err != nil {
		t.Fatal(err)
	}
	two.Join = token.Token
	second := start(t, two)
	await(t, "the second member votes or stands by", func(ctx context.Context) bool {
		members, err := c.Members(ctx)
		return err == nil && len(members) == 2 && members[1].Name == "two" && members[1].Suffrage != "none"
	})
	waited, stop := context.WithCancel(t.Context())
	stop()
	if err := first.Wait(waited); err != nil {
		t.Errorf("the first must end: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	await(t, "the first leads alone", func(ctx context.Context) bool {
		s, err := c.Status(ctx)
		return err == nil && s.Ready
	})
	again := start(t, two)
	await(t, "the second is alive", func(context.Context) bool { return again.Lively() })
	if text := again.Sentence(); !strings.HasPrefix(text, "node 2 ") {
		t.Errorf("it says %q", text)
	}
	await(t, "the second is removed", func(ctx context.Context) bool {
		_, err := c.RemoveMember(ctx, 2, true)
		return err == nil
	})
	if err := again.Wait(ctx); !errors.Is(err, datadir.ErrRemoved) {
		t.Errorf("the removed member ends with %v", err)
	}
}

// A member whose process is ended in order has left, whether it led or not, and is alive once it is back. One that ends
// because of a fault has not said goodbye: it is down.
func TestGoodbye(t *testing.T) {
	g := startGroup(t, 3)
	for _, x := range []struct {
		what, want string
		leads, bad bool
	}{
		{what: "the leader", leads: true, want: "left"},
		{what: "another one", want: "left"},
		{what: "one that ends because of a fault", bad: true, want: "down"},
	} {
		gone := int(g.leader(t))
		if !x.leads {
			gone = gone%3 + 1
		}
		c := clientAt(t, g.dirs[0], g.dirs[gone%3])
		g.c = c
		await(t, "all are alive", func(ctx context.Context) bool {
			members, err := c.Members(ctx)
			return err == nil && len(members) == 3 && members[0].Status+members[1].Status+members[2].Status == "alivealivealive"
		})
		if x.bad {
			g.nodes[gone-1].Fail(errors.New("a fault"))
		}
		if err := g.nodes[gone-1].Close(); err != nil {
			t.Fatal(err)
		}
		await(t, x.what+" is "+x.want, func(ctx context.Context) bool {
			members, err := c.Members(ctx)
			if err != nil {
				return false
			}
			m := members[gone-1]
			return m.Status == x.want && m.LeftAt.IsZero() == x.bad && m.DownSince.IsZero() != x.bad
		})
		state, err := c.Autopilot(t.Context())
		if s := state.Servers[gone-1]; err != nil || s.NodeStatus != x.want || s.Healthy || s.LeftAt.IsZero() != x.bad {
			t.Errorf("%s: autopilot says %+v, %v", x.what, s, err)
		}
		g.nodes[gone-1] = start(t, again(t, g.dirs[gone-1]))
		await(t, x.what+" is back", func(ctx context.Context) bool {
			m, err := c.Member(ctx, uint64(gone))
			return err == nil && m.Status == "alive" && m.LeftAt.IsZero() && m.DownSince.IsZero()
		})
	}
}

// What can be refused without a trace is: every listener is opened before the directory holds anything.
func TestRefusals(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	taken := busy.Addr().String()
	for name, test := range map[string]struct {
		change func(*node.Config)
		text   string
	}{
		"api":                     {func(c *node.Config) { c.API = taken }, "--api " + taken + " is in use"},
		"raft":                    {func(c *node.Config) { c.Raft = taken }, "--raft " + taken + " is in use"},
		"plain":                   {func(c *node.Config) { c.PlainHTTP = taken }, "--plain-http " + taken + " is in use"},
		"mode":                    {func(c *node.Config) { c.Mode = "half" }, "--mode must be"},
		"datacenter":              {func(c *node.Config) { c.Founding.Datacenter = "A B" }, "--datacenter must be"},
		"snapshots":               {func(c *node.Config) { c.SnapshotTrailing = 1 }, "--snapshot-threshold must be"},
		"limits":                  {func(c *node.Config) { c.ClusterConnections.All = -1 }, "must not be negative"},
		"a name that is a number": {func(c *node.Config) { c.Name = "2" }, "--name: the name must not be a whole number"},
		"white space around a name": {func(c *node.Config) { c.Name = " x" },
			"--name: the name must be 1 to 64 bytes"},
		"token": {func(c *node.Config) { c.Join = "nonsense" }, "the join token cannot be read"},
		"members": {func(c *node.Config) { c.Members = []datadir.Place{{NodeID: 2, RaftAddress: "127.0.0.1:1"}} },
			"is not the data directory of a member"},
		"CA": {func(c *node.Config) { c.Founding.CACert, c.Founding.CAKey = "/nowhere", "/nowhere" },
			"--http-ca-cert cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			cfg := config(dir)
			test.change(&cfg)
			n, err := node.Start(t.Context(), cfg)
			if err == nil {
				n.Close()
				t.Fatal("it starts")
			}
			if !strings.Contains(err.Error(), test.text) {
				t.Errorf("it says %q", err)
			}
			if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the directory is there: %v", err)
			}
		})
	}
}

// What is fixed when a cluster is founded cannot be said otherwise later; what was not said does not matter.
func TestFoundingIsFixed(t *testing.T) {
	t.Parallel()
	cfg := config(filepath.Join(t.TempDir(), "data"))
	cfg.Founding = node.Founding{Datacenter: "here", OverlaySlice: 26}
	if err := start(t, cfg).Close(); err != nil {
		t.Fatal(err)
	}
	for said, fixed := range map[node.Founding]bool{
		{}:                                false,
		{Datacenter: "here"}:              false,
		{OverlaySlice: 26}:                false,
		{Datacenter: "there"}:             true,
		{OverlayCIDR: "10.201.0.0/16"}:    true,
		{OverlaySlice: 28}:                true,
		{CACert: "/gone", CAKey: "/gone"}: false,
	} {
		cfg.Founding = said
		ctx, cancel := context.WithTimeout(t.Context(), whole)
		n, err := node.Start(ctx, cfg)
		cancel()
		if err == nil {
			err = n.Close()
		}
		if refused := err != nil && strings.Contains(err.Error(), "fixed when it is founded"); refused != fixed || !fixed &&
			err != nil {
			t.Errorf("%+v: %v", said, err)
		}
	}
}

// A start that fails half way gives up all that it has taken: the same directory and the same ports can be used again.
func TestFailedStart(t *testing.T) {
	t.Parallel()
	cfg := config(filepath.Join(t.TempDir(), "data"))
	n := start(t, cfg)
	cfg.API, cfg.Raft = ports(t, cfg.Data)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tls/transport.key", "tls/transport.crt", "node.key", "raft/metadata1"} {
		path := filepath.Join(cfg.Data, name)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("damaged"), 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), whole)
		broken, err := node.Start(ctx, cfg)
		cancel()
		if err == nil {
			broken.Close()
			t.Errorf("it starts with a damaged %s", name)
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	start(t, cfg)
}

// TestLostLog: a voter whose Raft log is gone does not start and forget what it has confirmed; put back, it does.
func TestLostLog(t *testing.T) {
	t.Parallel()
	cfg := config(filepath.Join(t.TempDir(), "data"))
	n := start(t, cfg)
	cfg.API, cfg.Raft = ports(t, cfg.Data)
	c := dial(t, cfg.Data)
	await(t, "the mirror has the member as a voter", func(context.Context) bool {
		role, err := store.MirrorRole(filepath.Join(cfg.Data, "muster.db"), 1)
		return err == nil && role == store.RoleVoter
	})
	c.Close()
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	raft := filepath.Join(cfg.Data, "raft")
	kept := filepath.Join(t.TempDir(), "kept")
	if err := os.CopyFS(kept, os.DirFS(raft)); err != nil {
		t.Fatal(err)
	}
	remove, empty := os.RemoveAll, func(file string) error { return os.Truncate(file, 0) }
	for what, x := range map[string]struct {
		pattern, want string
		harm          func(string) error
	}{
		"the directory":  {"", "the Raft log of this member is gone: there is no ", remove},
		"all of it":      {"*", "the Raft log of this member is gone: nothing is in ", remove},
		"the votes":      {"metadata*", "the term and the vote of this member are gone: ", remove},
		"what they hold": {"metadata*", "the term and the vote of this member are gone: ", empty},
	} {
		files, err := filepath.Glob(filepath.Join(raft, x.pattern))
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		for _, f := range files {
			if err := x.harm(f); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), whole)
		broken, err := node.Start(ctx, cfg)
		cancel()
		if err == nil {
			broken.Close()
		}
		if err == nil || !strings.Contains(err.Error(), x.want) ||
			!strings.Contains(err.Error(), "muster member remove 1 --force") {
			t.Errorf("without %s: %v", what, err)
		}
		if err := os.RemoveAll(raft); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(raft, os.DirFS(kept)); err != nil {
			t.Fatal(err)
		}
	}
	start(t, cfg)
}

// ports reads from node.json which ones a member has had.
func ports(t *testing.T, dir string) (api, raft string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "node.json"))
	if err != nil {
		t.Fatal(err)
	}
	var known datadir.Node
	if err := json.Unmarshal(data, &known); err != nil {
		t.Fatal(err)
	}
	return known.APIAddress, known.RaftAddress
}

// A member whose cluster does not answer yet may be started again and again: its error is none that a service manager
// is told to give up at.
func TestJoinWithoutAnswer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	one, two := config(filepath.Join(dir, "1")), config(filepath.Join(dir, "2"))
	first := start(t, one)
	ctx, cancel := context.WithTimeout(t.Context(), whole)
	defer cancel()
	request := client.JoinTokenRequest{TTL: time.Hour, MaxUses: 1, Mode: store.ModeReplicate}
	token, err := dial(t, one.Data).CreateJoinToken(ctx, request)
	if err != nil {
		t.Fatal(err)
	}
	one.API, one.Raft = ports(t, one.Data)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	two.Join, two.Mode = token.Token, store.ModeReplicate
	_, err = node.Start(ctx, two)
	for _, final := range []error{client.ErrNoServer, client.ErrNoLeader, client.ErrUnknownOutcome, datadir.ErrRemoved} {
		if errors.Is(err, final) {
			t.Errorf("the error counts as %v", final)
		}
	}
	if err == nil || !strings.Contains(err.Error(), "the cluster could not be joined: ") {
		t.Fatalf("nobody answers: %v", err)
	}
	start(t, one)
	start(t, two)
}
