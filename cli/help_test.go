package cli

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestHelp: every command that does something stands in a group of the help and has an example, and each example is a
// command line that is understood.
func TestHelp(t *testing.T) {
	root := Command()
	seen := map[string]bool{}
	walk(root, func(cmd *cobra.Command) {
		path := strings.TrimPrefix(strings.TrimPrefix(cmd.CommandPath(), "muster"), " ")
		lines := examples[path]
		seen[path] = true
		if group := cmd.HasSubCommands() && len(lines) == 0; !group && cmd.Example == "" {
			t.Errorf("%q has no example", cmd.CommandPath())
		}
		if cmd.Parent() == root && cmd.GroupID == "" && cmd.Name() != "help" {
			t.Errorf("%q is in no group", cmd.CommandPath())
		}
		for _, line := range lines {
			checkExample(t, path, line)
		}
	})
	for path := range examples {
		if !seen[path] {
			t.Errorf("there are examples of %q, and no such command", path)
		}
	}
}

// checkExample finds the command in a line of shell and parses its flags.
func checkExample(t *testing.T, path, line string) {
	t.Helper()
	begin := strings.LastIndex(line[:strings.Index(line, path)+1], "muster ") + len("muster ")
	end := len(line)
	if i := strings.IndexAny(line[begin:], "|<>)"); i >= 0 {
		end = begin + i
	}
	args := strings.Fields(strings.NewReplacer(`"`, "", "'", "").Replace(line[begin:end]))
	if i := slices.Index(args, "&&"); i >= 0 {
		args = args[:i]
	}
	cmd, rest, err := Command().Find(args)
	if err != nil || cmd.HasSubCommands() && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
		t.Errorf("%s: no such command (%v)", line, err)
		return
	}
	if err := cmd.ParseFlags(rest); err != nil {
		t.Errorf("%s: %v", line, err)
	}
}

func walk(cmd *cobra.Command, do func(*cobra.Command)) {
	for _, sub := range cmd.Commands() {
		do(sub)
		walk(sub, do)
	}
}

// TestFlagErrors: a flag that does not exist is answered with the nearest one that does.
func TestFlagErrors(t *testing.T) {
	outside(t)
	for args, want := range map[string]string{
		"member remove 2 --forse":       "did you mean --force?",
		"join-token create --max-usess": "did you mean --max-uses?",
		"peering token x --addres y":    "did you mean --address?",
		"raft peers --stall":            "did you mean --stale?",
		"members --outpt json":          "did you mean --output?",
		"members --nonsense":            "unknown flag: --nonsense (see",
	} {
		code, stdout, stderr := run(t, strings.Fields(args)...)
		if code != 2 || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit %d, %q, %q; want %q", args, code, stdout, stderr, want)
		}
	}
}
