package cli_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"muster/cli"
	"muster/client"
	"muster/internal/await"
)

// onFiles are the commands that ask no cluster, or work on the files of this machine first.
var onFiles = []string{"backup inspect", "backup restore", "completion", "config", "config check", "detach", "dev",
	"doctor", "help",
	"join-token key-hash", "leave", "recover adopt", "recover apply", "recover plan", "recover token", "serve", "version",
	"workload fetch", "workload jwt"}

// byAnyMember are the commands that every member answers by itself, whether there is a leader or not; watch goes on for
// ever.
var byAnyMember = []string{"sql", "status", "watch"}

// lines are the arguments of commands that do not take any word.
var lines = map[string]string{
	"api-token create": "--name x --scope cluster:read",
	"autopilot config": "maxVoters=3",
	"lease put":        "x --member 1",
	"settings get":     "",
	"settings set":     "limits.workloads=9",
	"sql":              "SELECT%201",
	"workload create":  "/x --user x",
	"peering token":    "x",
}

// leaderless is a cluster of three of which one member is left, and what a command line needs to ask it.
func leaderless(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	names := []string{"one", "two", "three"}
	var c *client.Client
	token := ""
	for i, name := range names {
		data := filepath.Join(dir, name)
		n := memberAt(t, data, name, token)
		if i > 0 {
			defer n.Close() // when all is set up
			continue
		}
		t.Cleanup(func() { n.Close() })
		cfg, err := client.FromData(data)
		if err != nil {
			t.Fatal(err)
		}
		if c, err = client.New(cfg); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		made, err := c.CreateJoinToken(t.Context(), client.JoinTokenRequest{TTL: time.Hour, MaxUses: 2, Mode: "full"})
		if err != nil {
			t.Fatal(err)
		}
		token = made.Token
		t.Setenv("MUSTER_ADDR", strings.Join(cfg.Addrs, ","))
		t.Setenv("MUSTER_TOKEN", cfg.Token)
		t.Setenv("MUSTER_CACERT", cfg.CACertFile)
	}
	await.True(t, "three vote", func() bool {
		state, err := c.Autopilot(t.Context())
		return err == nil && len(state.Voters) == 3
	})
}

// TestEveryCommandWithoutLeader walks all commands that ask a cluster. Without a leader one that reads answers from the
// member that is asked, and says so; one that writes ends with 3 and says that nothing has happened.
func TestEveryCommandWithoutLeader(t *testing.T) {
	leaderless(t)
	await.True(t, "nobody leads", func() bool {
		var out bytes.Buffer
		cli.Main(t.Context(), []string{"status", "-o", "json"}, strings.NewReader(""), &out, &out)
		return strings.Contains(out.String(), `"Candidate"`)
	})
	t.Chdir(t.TempDir())
	if err := os.WriteFile("value", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	wait.Go(func() { watchWithoutLeader(t, "watch") })
	wait.Go(func() { watchWithoutLeader(t, "watch", "--since", "1") })
	seen := 0
	walkCommands(cli.Command(), func(cmd *cobra.Command) {
		path := strings.TrimPrefix(cmd.CommandPath(), "muster ")
		if slices.Contains(onFiles, path) || slices.Contains(byAnyMember, path) {
			return
		}
		seen++
		reads := cmd.Flags().Lookup("stale") != nil && path != "autopilot config" && path != "backup save"
		wait.Go(func() { withoutLeader(t, path, argumentsOf(cmd, path), reads) })
	})
	wait.Wait()
	if seen < 50 {
		t.Errorf("only %d commands were tried", seen)
	}
}

// watchWithoutLeader: a command that goes on says that nobody leads, and ends well.
func watchWithoutLeader(t *testing.T, args ...string) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r, w := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- cli.Main(ctx, args, strings.NewReader(""), io.Discard, w)
		w.Close()
	}()
	stop := time.AfterFunc(within, cancel)
	defer stop.Stop()
	said := false
	for lines := bufio.NewScanner(r); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "there is no leader") {
			said = true
			cancel()
		}
	}
	if got := <-code; got != 0 || !said {
		t.Errorf("%q: exit %d; it says that nobody leads: %t", args, got, said)
	}
}

func withoutLeader(t *testing.T, path string, args []string, reads bool) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	var out, errs bytes.Buffer
	code := cli.Main(ctx, args, strings.NewReader("x"), &out, &errs)
	said := fmt.Sprintf("muster %s: exit %d, %q", strings.Join(args, " "), code, errs.String())
	switch {
	case ctx.Err() != nil:
		t.Errorf("%s: it does not end", said)
	case reads && code != 0 && code != 1: // 1: there is nothing of that name
		t.Error(said)
	case reads && !strings.Contains(errs.String(), "there is no leader") && path != "backup get":
		t.Errorf("%s: it does not say how old that is", said)
	case !reads && (code != 3 || !strings.Contains(errs.String(), "nothing has happened") &&
		!strings.Contains(errs.String(), "was not carried out")):
		t.Errorf("%s: it does not say that nothing has happened", said)
	}
}

// argumentsOf makes a command line that is understood.
func argumentsOf(cmd *cobra.Command, path string) []string {
	args := strings.Fields(path)
	if line, known := lines[path]; known {
		for _, word := range strings.Fields(line) {
			args = append(args, strings.ReplaceAll(word, "%20", " "))
		}
	} else {
		for range 4 {
			if cmd.Args == nil || cmd.Args(cmd, args[len(strings.Fields(path)):]) == nil {
				break
			}
			args = append(args, "x")
		}
	}
	if cmd.Flags().Lookup("yes") != nil {
		args = append(args, "--yes")
	}
	return args
}

func walkCommands(cmd *cobra.Command, f func(*cobra.Command)) {
	_, group := cmd.Annotations["group"]
	if cmd.Runnable() && cmd.HasParent() && !group {
		f(cmd)
	}
	for _, sub := range cmd.Commands() {
		walkCommands(sub, f)
	}
}
