package cli

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// everyCommand calls f for each command that can be run.
func everyCommand(cmd *cobra.Command, f func(*cobra.Command)) {
	if cmd.Runnable() && !cmd.HasSubCommands() && cmd.Name() != "help" {
		f(cmd)
	}
	for _, c := range cmd.Commands() {
		everyCommand(c, f)
	}
}

// arguments are as many as a command takes.
func arguments(cmd *cobra.Command) (list []string) {
	for range 4 {
		if cmd.Args == nil || cmd.Args(cmd, list) == nil {
			return list
		}
		list = append(list, "x")
	}
	return nil
}

func refusedAsUsage(t *testing.T, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // nothing of this may get as far as to wait
	var errs strings.Builder
	code := Main(ctx, args, strings.NewReader(""), io.Discard, &errs)
	if code != 2 || !strings.Contains(errs.String(), name) {
		t.Errorf("muster %q: exit %d: %s", args, code, errs.String())
	}
}

// blanks are ways to say nothing.
var blanks = []string{"", " ", "\t", "\n"}

// TestEmptyFlags walks every flag of every command: given but empty is a usage error. What is common to all commands is
// refused in one place: each command gets another of its blanks.
func TestEmptyFlags(t *testing.T) {
	outside(t)
	flags := 0
	everyCommand(Command(), func(cmd *cobra.Command) {
		words := append(strings.Fields(cmd.CommandPath())[1:], arguments(cmd)...)
		refuses := func(f *pflag.Flag, value string) {
			refusedAsUsage(t, f.Name, append(append([]string{}, words...), "--"+f.Name+"="+value)...)
		}
		try := func(f *pflag.Flag) {
			if f.Name == "help" {
				return
			}
			flags++
			for _, empty := range blanks[:3] {
				refuses(f, empty)
			}
			if _, list := f.Value.(pflag.SliceValue); list {
				refusedAsUsage(t, f.Name, append(append([]string{}, words...), "--"+f.Name+"=a", "--"+f.Name+"=")...)
			}
			if f.Value.Type() == "stringSlice" {
				refuses(f, "a,,b")
			}
		}
		cmd.LocalFlags().VisitAll(try)
		cmd.InheritedFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" {
				flags++
				refuses(f, blanks[flags%3])
			}
		})
	})
	if flags < 100 {
		t.Errorf("only %d flags were tried", flags)
	}
}

// TestEmptyVariables: every command refuses a variable that is set but empty.
func TestEmptyVariables(t *testing.T) {
	for _, name := range []string{"MUSTER_ADDR", "MUSTER_TOKEN", "MUSTER_CACERT", "MUSTER_JOIN_TOKEN", "MUSTER_PEERS"} {
		t.Run(name, func(t *testing.T) {
			outside(t)
			commands := 0
			everyCommand(Command(), func(cmd *cobra.Command) {
				t.Setenv(name, blanks[commands%len(blanks)])
				commands++
				refusedAsUsage(t, name, append(strings.Fields(cmd.CommandPath())[1:], arguments(cmd)...)...)
			})
		})
	}
}

// TestEmptyFiles: so are a file and an argument that hold nothing.
func TestEmptyFiles(t *testing.T) {
	outside(t)
	empty := write(t, filepath.Join(t.TempDir(), "empty"), " \n")
	for _, name := range []string{"@" + empty, "@", "@ "} {
		dir := t.TempDir()
		serve := []string{"serve", "--data", dir, "--api", "127.0.0.1:1", "--raft", "127.0.0.1:2"}
		refusedAsUsage(t, "--join", append(serve, "--join", name)...)
		t.Setenv("MUSTER_JOIN_TOKEN", name)
		refusedAsUsage(t, "MUSTER_JOIN_TOKEN", serve...)
		os.Unsetenv("MUSTER_JOIN_TOKEN")
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("the refusal leaves %v, %v", left, err)
		}
	}
	refusedAsUsage(t, "token file", "members", "--token-file", empty)
	refusedAsUsage(t, "ID", "member", "show", "")
	refusedAsUsage(t, "ID", "member", "remove", " ")
}
