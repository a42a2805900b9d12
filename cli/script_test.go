package cli_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"muster/cli"
	"muster/client"
	"muster/internal/await"
	"muster/node"
	"muster/store"
)

var update = flag.Bool("update", false, "write what the commands print into testdata/script")

// within bounds what a script waits for.
const within = 60 * time.Second

// TestMain makes the command line two programs for the scripts: muster writes WORDS for what differs from run to run,
// and raw writes what it writes.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"muster": func() {
			var out, errs bytes.Buffer
			code := cli.Main(context.Background(), os.Args[1:], os.Stdin, &out, &errs)
			fmt.Fprint(os.Stdout, settled(out.String()))
			fmt.Fprint(os.Stderr, settled(errs.String()))
			os.Exit(code)
		},
		"raw": func() { os.Exit(cli.Main(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// volatile is what differs from run to run, and the word that stands for it.
var volatile = []struct {
	text *regexp.Regexp
	word string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "UUID"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), "TIME"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "ADDR"},
	{regexp.MustCompile(`\b[0-9a-f]{16,}\b`), "HEX"},
	{regexp.MustCompile(`[A-Za-z0-9_=+/.-]{40,}`), "TEXT"},
	{regexp.MustCompile(`\bCA [0-9a-f]{8}\b`), "CA ID"},
	{regexp.MustCompile(`\b36[45]\d\b`), "DAYS"},
	{regexp.MustCompile(`\brevision \d+`), "revision N"},
	{regexp.MustCompile(`\b\d+ (B|KiB|MiB)\b`), "SIZE"},
	{regexp.MustCompile(` {2,}`), "  "},
}

func settled(text string) string {
	text = strings.ReplaceAll(text, os.Getenv("WORK"), "WORK")
	for _, v := range volatile {
		text = v.text.ReplaceAllString(text, v.word)
	}
	return text
}

// TestScripts runs the command line against members in this process: each file of testdata/script is a scenario. After
// a change of what is printed, -update writes the files again.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Values["members"] = map[string]*node.Node{}
			// The race detector would have each command sleep for a second before it ends.
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"found": found,
			"join":  join,
			"end":   end,
			"exits": exits,
			"until": until,
		},
	})
}

func running(ts *testscript.TestScript) map[string]*node.Node {
	return ts.Value("members").(map[string]*node.Node)
}

func memberConfig(data, name, token string) node.Config {
	cfg := node.Default()
	cfg.Name, cfg.Data, cfg.API, cfg.Raft = name, data, "127.0.0.1:0", "127.0.0.1:0"
	cfg.NetworkLatency, cfg.Join = 5*time.Millisecond, token
	cfg.Logger, cfg.Version = slog.New(slog.DiscardHandler), "test"
	return cfg
}

// memberAt starts a member for a test.
func memberAt(t *testing.T, data, name, token string) *node.Node {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	n, err := node.Start(ctx, memberConfig(data, name, token))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// start begins a member in the directory of its name and ends it with the script.
func start(ts *testscript.TestScript, name, token string) {
	cfg := memberConfig(ts.MkAbs("data-"+name), name, token)
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	member, err := node.Start(ctx, cfg)
	ts.Check(err)
	running(ts)[name] = member
	ts.Defer(func() {
		if running(ts)[name] == member {
			_ = member.Close()
		}
	})
}

// found NAME founds a cluster; the commands that follow find it.
func found(ts *testscript.TestScript, _ bool, args []string) {
	start(ts, args[0], "")
	cfg, err := client.FromData(ts.MkAbs("data-" + args[0]))
	ts.Check(err)
	ts.Setenv("MUSTER_ADDR", strings.Join(cfg.Addrs, ","))
	ts.Setenv("MUSTER_TOKEN", cfg.Token)
	ts.Setenv("MUSTER_CACERT", cfg.CACertFile)
}

// join NAME starts another member of the cluster that a script has founded, and waits until it is a Raft server.
func join(ts *testscript.TestScript, _ bool, args []string) {
	c, err := client.New(client.Config{Addrs: strings.Split(ts.Getenv("MUSTER_ADDR"), ","),
		Token: ts.Getenv("MUSTER_TOKEN"), CACertFile: ts.Getenv("MUSTER_CACERT")})
	ts.Check(err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	token, err := c.CreateJoinToken(ctx, client.JoinTokenRequest{TTL: time.Hour, MaxUses: 1, Mode: store.ModeFull})
	ts.Check(err)
	start(ts, args[0], token.Token)
}

// end NAME ends a member in order.
func end(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(running(ts)[args[0]].Close())
	delete(running(ts), args[0])
}

// exits CODE COMMAND … fails when the command ends with another exit status.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if ended := (*exec.ExitError)(nil); errors.As(err, &ended) {
		code = ended.ExitCode()
	} else {
		ts.Check(err)
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("the exit status is %d, not %s", code, args[0])
	}
}

// until PATTERN COMMAND … repeats the command until what it prints on stdout matches.
func until(ts *testscript.TestScript, _ bool, args []string) {
	pattern := regexp.MustCompile("(?m)" + args[0])
	if err := await.Slowly(within, func() error {
		cmd := exec.Command(args[1], args[2:]...)
		cmd.Dir, cmd.Env = ts.MkAbs("."), os.Environ()
		for _, name := range []string{"MUSTER_ADDR", "MUSTER_TOKEN", "MUSTER_CACERT"} {
			cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
		}
		out, err := cmd.Output()
		if pattern.Match(out) {
			return nil
		}
		return fmt.Errorf("%w\n%s", err, out)
	}); err != nil {
		ts.Fatalf("not within %v: %v", within, err)
	}
}
