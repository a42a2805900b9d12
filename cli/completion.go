package cli

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"muster/cli/console"
	"muster/client"
)

func newCompletionCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:       "completion bash|zsh|fish",
		Short:     "Print the completion script of a shell",
		Args:      exactly("the shell"),
		ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: func(cmd *cobra.Command, args []string) error {
			switch args[0] {
			case "bash":
				return cmd.Root().GenBashCompletionV2(env.stdout, true)
			case "zsh":
				return cmd.Root().GenZshCompletion(env.stdout)
			case "fish":
				return cmd.Root().GenFishCompletion(env.stdout, true)
			}
			return usagef(cmd, "the shell %q is none of bash, zsh, fish", args[0])
		},
	}
}

// completeWithin bounds how long a shell waits for names; typing them takes no longer.
const completeWithin = time.Second

// namer lists candidates, each with a description after a tab.
type namer func(ctx context.Context, c *client.Client) ([]string, error)

// argumentNames has, by command path, the namer of the first argument.
var argumentNames = map[string]namer{
	"member show":         memberNames,
	"member drain":        memberNames,
	"member resume":       memberNames,
	"member promote":      memberNames,
	"member remove":       memberNames,
	"raft transfer":       memberNames,
	"raft remove":         memberNames,
	"peering show":        peeringNames,
	"peering members":     peeringNames,
	"peering delete":      peeringNames,
	"secret get":          secretNames,
	"secret put":          secretNames,
	"secret delete":       secretNames,
	"lease delete":        leaseNames,
	"workload show":       workloadNames,
	"workload delete":     workloadNames,
	"join-token revoke":   joinTokenNames,
	"api-token revoke":    apiTokenNames,
	"enroll-token revoke": enrollTokenNames,
	"enrollment revoke":   enrollmentNames,
	"backup get":          backupNames,
	"backup verify":       backupNames,
	"settings get":        settingNames,
	"settings set":        settingNames,
	"autopilot config":    autopilotSettings,
}

// fileArguments are the commands with a file as an argument.
var fileArguments = []string{"backup get", "backup inspect", "backup restore", "backup save", "backup verify",
	"config check", "recover adopt"}

// fileFlags are the flags whose value is a file or a directory.
var fileFlags = []string{"bundle", "cacert", "cert", "config", "data", "file", "http-ca-cert", "http-ca-key",
	"identity", "join", "key", "mark", "plan", "socket", "spiffe-socket", "token-file", "write"}

// memberFlags are the flags that name a member.
var memberFlags = []string{"member", "node", "exclude"}

// addCompletions lets the shell complete names from the cluster that the command line addresses, and files only where
// a file is expected.
func addCompletions(env *environment, cmd *cobra.Command) {
	path := strings.TrimPrefix(cmd.CommandPath(), "muster ")
	if names := argumentNames[path]; names != nil {
		cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) (list []string,
			directive cobra.ShellCompDirective) {
			several := strings.HasSuffix(cmd.Use, "…") || strings.HasSuffix(cmd.Use, "…]")
			switch {
			case len(args) > 0 && slices.Contains(fileArguments, path):
				return nil, cobra.ShellCompDirectiveDefault
			case len(args) > 0 && !several:
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			list, directive = env.names(cmd.Context(), names)
			if several { // NAME=VALUE
				for i := range list {
					list[i] += "="
				}
				directive |= cobra.ShellCompDirectiveNoSpace
			}
			return list, directive
		}
	} else if cmd.ValidArgs == nil && !cmd.HasSubCommands() && !slices.Contains(fileArguments, path) {
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
	for _, flag := range memberFlags {
		if cmd.LocalNonPersistentFlags().Lookup(flag) == nil {
			continue
		}
		of := func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return env.names(cmd.Context(), memberNames)
		}
		if err := cmd.RegisterFlagCompletionFunc(flag, of); err != nil {
			panic(err) // registered twice: a bug in this package
		}
	}
	noFiles(cmd)
	for _, sub := range cmd.Commands() {
		addCompletions(env, sub)
	}
}

// noFiles keeps the shell from offering files as values of flags that take none.
func noFiles(cmd *cobra.Command) {
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if _, known := cmd.GetFlagCompletionFunc(f.Name); known || slices.Contains(fileFlags, f.Name) {
			return
		}
		if err := cmd.RegisterFlagCompletionFunc(f.Name, cobra.NoFileCompletions); err != nil {
			panic(err) // registered twice: a bug in this package
		}
	})
}

// names asks the cluster for candidates. It reports no error: without an answer there is nothing to complete.
func (e *environment) names(ctx context.Context, names namer) ([]string, cobra.ShellCompDirective) {
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completeWithin)
	defer cancel()
	c, err := e.anybody()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	list, err := names(ctx, c.Stale(nil))
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return list, cobra.ShellCompDirectiveNoFileComp
}

// described formats a list for the shell.
func described[T any](list []T, err error, of func(T) (name, about string)) ([]string, error) {
	lines := make([]string, 0, len(list))
	for _, x := range list {
		name, about := of(x)
		lines = append(lines, cobra.CompletionWithDesc(console.Printable(name), console.Printable(about)))
	}
	return lines, err
}

func memberNames(ctx context.Context, c *client.Client) ([]string, error) {
	list, err := c.Members(ctx)
	return described(list, err, func(m client.Member) (string, string) {
		return m.Name, "member " + console.Cell(m.NodeID) + ", " + role(m) + ", " + m.Status
	})
}

func peeringNames(ctx context.Context, c *client.Client) ([]string, error) {
	list, err := c.Peerings(ctx)
	return described(list, err, func(p client.Peering) (string, string) { return p.Name, p.State })
}

func secretNames(ctx context.Context, c *client.Client) ([]string, error) {
	list, err := c.Secrets(ctx)
	return described(list, err, func(s client.SecretInfo) (string, string) {
		return s.Name,
			"version " + console.Cell(s.Version)
	})
}

func workloadNames(ctx context.Context, c *client.Client) ([]string, error) {
	list, err := c.Workloads(ctx)
	return described(list, err, func(w client.Workload) (string, string) { return w.ID, w.Path })
}

func backupNames(ctx context.Context, c *client.Client) ([]string, error) {
	list, err := c.Backups(ctx)
	return described(list, err, func(b client.Backup) (string, string) {
		return b.ID, b.State + ", " + console.Cell(b.StartedAt)
	})
}

func leaseNames(ctx context.Context, c *client.Client) ([]string, error) {
	list, err := c.Leases(ctx, 0)
	return described(list, err, func(l client.Lease) (string, string) {
		return l.ID, "on member " + console.Cell(l.NodeID)
	})
}

func joinTokenNames(ctx context.Context, c *client.Client) ([]string, error) {
	list, err := c.JoinTokens(ctx)
	return described(list, err, func(t client.JoinToken) (string, string) { return t.ID, t.State })
}

func apiTokenNames(ctx context.Context, c *client.Client) ([]string, error) {
	list, err := c.APITokens(ctx)
	return described(list, err, func(t client.APIToken) (string, string) { return t.ID, t.Name })
}

func enrollTokenNames(ctx context.Context, c *client.Client) ([]string, error) {
	list, err := c.EnrollTokens(ctx)
	return described(list, err, func(t client.EnrollToken) (string, string) { return t.ID, t.State })
}

func enrollmentNames(ctx context.Context, c *client.Client) ([]string, error) {
	list, err := c.Enrollments(ctx)
	return described(list, err, func(e client.Enrollment) (string, string) { return e.ID, e.Kind + ", " + e.State })
}

func settingNames(ctx context.Context, c *client.Client) ([]string, error) {
	all, err := c.Settings(ctx)
	return slices.Sorted(maps.Keys(all)), err
}

func autopilotSettings(context.Context, *client.Client) ([]string, error) {
	var fields map[string]any
	text, err := json.Marshal(client.AutopilotConfig{})
	if err == nil {
		err = json.Unmarshal(text, &fields)
	}
	return slices.Sorted(maps.Keys(fields)), err
}
