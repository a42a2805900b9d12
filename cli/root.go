// Package cli is muster's command line: one file per command. serve describes a member to package node, and dev runs
// several serves; doctor, recover and the founding by backup restore work on a data directory; all others ask a cluster
// through package client.
//
// Rules of all commands: a secret is printed alone on stdout, lists are tables, -o json prints the API's objects (a
// list is an array), and all messages go to stderr. The exit status is 0 for success, 1 for a refusal or failure, 2 for
// an invalid command line, and 3 when no member answers, there is no leader, or the outcome is unknown.
package cli

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"muster/cli/console"
	"muster/cli/process"
	"muster/client"
	"muster/cluster/datadir"
)

// exitUnanswered is the exit status without a definite answer: no member answered, there is no leader, or the outcome
// is unknown.
const exitUnanswered = 3

// exitRemoved is the exit status of a removed member under a service manager.
const exitRemoved = 3

// Version and Commit describe this build; the linker sets them (-ldflags "-X …/cli.Version=…").
var (
	Version = "dev"
	Commit  = "dev"
)

// Notice has the licences of all linked software; package main sets it.
var Notice string

// environment holds the streams and the global flags of a command.
type environment struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	addrs     []string // --addr
	tokenFile string   // --token-file
	caCert    string   // --cacert
	data      string   // --data
	output    string   // -o: "table", "json" or, of a list, "name"
	nameIn    string   // with -o name: the column to print, empty for the first
	stale     bool     // --stale
	made      *client.Client

	tokenless bool // no token was found; a refusal mentions it
}

// Main runs one command and returns the exit status. args excludes the program's name. It blocks until the command is
// done; cancelling ctx interrupts it.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	process.KeepOwnFiles()
	env := &environment{stdin: stdin, stdout: stdout, stderr: stderr}
	defer env.flush()
	root := newRootCommand(env)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var usage *usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage):
		env.complain(err.Error())
		return 2
	case errors.Is(err, client.ErrConfig): // a flag or variable, or the file that it names
		env.complain(err.Error())
		return 2
	case errors.Is(err, client.ErrUnknownOutcome):
		env.complain(err.Error() + "\n" + mayHaveHappened)
		return exitUnanswered
	case errors.Is(err, client.ErrNoServer), errors.Is(err, client.ErrNoLeader):
		env.complain(err.Error() + env.hint(err))
		return exitUnanswered
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		env.complain("interrupted")
	default:
		env.complain(err.Error() + env.hint(err))
	}
	if errors.Is(err, datadir.ErrRemoved) && process.Managed() {
		return exitRemoved // the unit does not restart after it
	}
	return 1
}

const mayHaveHappened = "It is unknown whether it has happened: check before you repeat it."

// flush waits briefly for the waiting lines of a member's log.
func (e *environment) flush() {
	if w, ok := e.stderr.(*process.LogWriter); ok {
		w.Close()
	}
}

// complain writes an error to stderr. Its text may come from a server, so control characters are escaped.
func (e *environment) complain(text string) {
	lines := strings.Split(inWords(text), "\n")
	for i := range lines {
		lines[i] = console.Printable(lines[i])
	}
	e.say("muster: %s", strings.Join(lines, "\n"))
}

// Command returns the tree of all commands, for programs that document it. To run commands, use Main.
func Command() *cobra.Command {
	return newRootCommand(&environment{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard})
}

func newRootCommand(env *environment) *cobra.Command {
	root := newGroup("muster", "The control plane of a cluster: members, joins, removals, keys, certificates, peerings")
	root.Long = root.Short + `.

Commands find the cluster by --addr, --cacert and --token-file, then by --data DIR (the data directory of a member on
this machine), then by MUSTER_ADDR, MUSTER_CACERT and MUSTER_TOKEN, then by the cluster of "muster dev" in ./data.

The exit status is 0 for success, 1 for a refusal or failure, 2 for an invalid command line, and 3 when no member
answers, there is no leader, or the outcome is unknown. Only with status 3 may something have happened; the last line
then says so.`
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetIn(env.stdin)
	root.SetOut(env.stdout)
	root.SetErr(env.stderr)
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(flagError)
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkGiven(cmd); err != nil {
			return err
		}
		switch {
		case env.output == "name" && !listing(cmd):
			return usagef(cmd, "-o name is for commands that print a list")
		case env.output == "name":
			env.nameIn = nameColumns[cmd.CommandPath()]
		case env.output != "table" && env.output != "json":
			return usagef(cmd, "-o %q is none of table, json, name", env.output)
		}
		return nil
	}
	flags := root.PersistentFlags()
	flags.StringSliceVar(&env.addrs, "addr", nil,
		"API address of a member; several, comma-separated, are tried in turn (default "+client.DefaultAddr+")")
	flags.StringVar(&env.tokenFile, "token-file", "", "file with the API token, - for stdin")
	flags.StringVar(&env.caCert, "cacert", "", "file with the cluster's CA certificate (PEM)")
	flags.StringVar(&env.data, "data", "", "data directory of a member on this machine: finds address, token and CA")
	flags.StringVarP(&env.output, "output", "o", "table",
		"table, json (the API's answer; schemas are in /api/v1/openapi.yaml) or, for a list, name")
	complete(root, "output", "table", "json", "name")

	for _, g := range groups(env) {
		root.AddGroup(&cobra.Group{ID: g.title, Title: g.title + ":"})
		for _, cmd := range g.commands {
			cmd.GroupID = g.title
			root.AddCommand(cmd)
		}
	}
	root.SetHelpCommand(newHelpCommand())
	root.SetHelpCommandGroupID("This program")
	root.Version = Version
	root.SetVersionTemplate(versionText())
	addExamples(root)
	addCompletions(env, root)
	addWatch(env, root)
	noEmptyElements(root)
	return root
}

// commandGroup is a section of the command list in the help.
type commandGroup struct {
	title    string
	commands []*cobra.Command
}

func groups(env *environment) []commandGroup {
	return []commandGroup{
		{"Run a member", []*cobra.Command{newServeCommand(env), newDevCommand(env)}},
		{"Members", []*cobra.Command{
			newMembersCommand(env, "members"), newMemberCommand(env), newJoinTokenCommand(env), newJoinKeysCommand(env),
			newLeaseCommand(env), newAutopilotCommand(env), newRaftCommand(env), newLeaveCommand(env), newDetachCommand(env),
		}},
		{"Keys, certificates and access", []*cobra.Command{
			newAPITokenCommand(env), newKeyCommand(env), newSecretCommand(env), newCACommand(env), newCertCommand(env),
		}},
		{"Other clusters and other software", []*cobra.Command{
			newPeeringCommand(env), newWorkloadCommand(env), newEnrollTokenCommand(env), newEnrollmentCommand(env),
		}},
		{"Look after a cluster", []*cobra.Command{
			newStatusCommand(env), newDoctorCommand(env), newWatchCommand(env), newAuditCommand(env), newSQLCommand(env),
			newSettingsCommand(env), newSchemaCommand(env), newUpgradeCommand(env), newBackupCommand(env),
			newRecoverCommand(env),
		}},
		{"This program", []*cobra.Command{newLoginCommand(env), newLogoutCommand(env), newWhoAmICommand(env),
			newConfigCommand(env), newVersionCommand(env),
			newCompletionCommand(env)}},
	}
}

// newGroup makes a command that only groups others.
func newGroup(use, short string) *cobra.Command {
	return &cobra.Command{
		Use:         use,
		Short:       short,
		Annotations: map[string]string{"group": "true"},
		Args:        cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				cmd.PrintErrln(cmd.UsageString())
				return usagef(cmd, "a command is missing")
			}
			return unknownCommand(cmd, args[0])
		},
	}
}

func newHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Say what a command does",
		RunE: func(cmd *cobra.Command, args []string) error {
			target, rest, err := cmd.Root().Find(args)
			switch {
			case len(rest) > 0:
				return unknownCommand(target, rest[0])
			case err != nil:
				return unknownCommand(target, strings.Join(args, " "))
			}
			return target.Help()
		},
	}
}

// complete sets the values that the shell offers for a flag.
func complete(cmd *cobra.Command, flag string, values ...string) {
	if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values,
		cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // no such flag: a bug in this package
	}
}
