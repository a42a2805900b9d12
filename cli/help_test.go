package cli

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
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

// TestMeaning: a command that other tools have leads to the one that is meant.
func TestMeaning(t *testing.T) {
	outside(t)
	for args, want := range map[string]string{
		"raft list":             "did you mean peers?",
		"raft list-peers":       "did you mean peers?",
		"settings list":         "did you mean get?",
		"ca list":               "did you mean status?",
		"secret rm x":           "did you mean delete?",
		"secret create x":       "did you mean put?",
		"api-token delete x":    "did you mean revoke?",
		"lease revoke x":        "did you mean delete?",
		"join-token add":        "did you mean create?",
		"backup create":         "did you mean run or save?",
		"peering create x":      "did you mean establish or token?",
		"node list":             "did you mean member or members?",
		"events":                "did you mean watch?",
		"logs":                  "or audit?",
		"snapshot save x":       "did you mean backup?",
		"operator raft x":       "did you mean raft?",
		"token create":          "did you mean api-token or enroll-token or join-token?",
		"help certificates":     "did you mean ca or cert?",
		"frobnicate":            `unknown command "frobnicate" (see`,
		"settings frobnicate x": `unknown command "frobnicate" (see`,
	} {
		code, stdout, stderr := run(t, strings.Fields(args)...)
		if code != 2 || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit %d, %q, %q; want %q", args, code, stdout, stderr, want)
		}
	}
	for _, group := range synonyms { // no group without a command
		if !slices.ContainsFunc(group, isCommand) {
			t.Errorf("%v contains no command", group)
		}
	}
}

func isCommand(name string) (found bool) {
	walk(Command(), func(cmd *cobra.Command) { found = found || cmd.Name() == name })
	return found
}

// TestCommandsThatAsk: the document names every command that asks before it does something irreversible.
func TestCommandsThatAsk(t *testing.T) {
	page, err := os.ReadFile("../docs/commands.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## What asks first\n")
	section, _, _ = strings.Cut(section, "\n## ")
	walk(Command(), func(cmd *cobra.Command) {
		path := strings.TrimPrefix(cmd.CommandPath(), "muster ")
		if flag := cmd.Flags().Lookup("yes"); flag != nil && !strings.Contains(section, "`"+path) {
			t.Errorf("%q asks, and docs/commands.md does not say so", path)
		} else if flag != nil && flag.Usage != "do it without asking" {
			t.Errorf("%q describes --yes as %q", path, flag.Usage)
		}
	})
}

// TestDescriptions: commands are described in the imperative.
func TestDescriptions(t *testing.T) {
	walk(Command(), func(cmd *cobra.Command) {
		for _, text := range []string{cmd.Short, cmd.Long} {
			first, _, _ := strings.Cut(text, " ")
			if strings.HasSuffix(first, "s") && !strings.HasSuffix(first, "ss") {
				t.Errorf("%q is described by %q", cmd.CommandPath(), text)
			}
		}
	})
}

// TestCompletionsOfFiles: the shell offers files only for arguments and flags that are files.
func TestCompletionsOfFiles(t *testing.T) {
	t.Setenv("MUSTER_ADDR", "https://127.0.0.1:1")
	outside(t)
	offersFiles := func(args ...string) bool {
		_, stdout, _ := run(t, append([]string{"__complete"}, args...)...)
		return strings.HasSuffix(strings.TrimSpace(stdout), ":0")
	}
	walk(Command(), func(cmd *cobra.Command) {
		path := strings.TrimPrefix(cmd.CommandPath(), "muster ")
		args := strings.Fields(path)
		if got, want := offersFiles(append(args, "")...), slices.Contains(fileArguments, path); got && !want {
			t.Errorf("%s: files as an argument: %t, want %t", path, got, want)
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Value.Type() == "bool" {
				return
			}
			if got, want := offersFiles(append(args, "--"+f.Name, "")...), slices.Contains(fileFlags, f.Name); got != want {
				t.Errorf("%s --%s: files: %t, want %t", path, f.Name, got, want)
			}
		})
	})
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
