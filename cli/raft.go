package cli

import (
	"context"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"muster/cli/console"
	"muster/client"
)

func newRaftCommand(env *environment) *cobra.Command {
	group := newGroup("raft", "Show and change the Raft configuration")
	group.AddCommand(newRaftPeersCommand(env), newRaftTransferCommand(env), newRaftRemoveCommand(env),
		newRaftDiffCommand(env))
	return group
}

func newRaftPeersCommand(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "peers",
		Short: "List the servers that Raft knows",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.reader(cmd.Context())
			if err != nil {
				return err
			}
			configuration, err := c.RaftConfiguration(cmd.Context())
			if err != nil {
				return err
			}
			return list(env, configuration.Servers,
				[]string{"NODE", "ID", "ADDRESS", "VOTER", "LEADER", "PROTOCOL"},
				func(s client.RaftServer) []any {
					return []any{s.Node, s.ID, s.Address, s.Voter, s.Leader, s.RaftProtocol}
				})
		},
	}
	return staleFlag(cmd, env)
}

func newRaftDiffCommand(env *environment) *cobra.Command {
	return staleFlag(&cobra.Command{
		Use:   "diff",
		Short: "Show differences between Raft and the members table; the leader repairs them by itself",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.reader(cmd.Context())
			if err != nil {
				return err
			}
			diff, err := c.RaftDiff(cmd.Context())
			if err != nil {
				return err
			}
			if len(diff) == 0 {
				env.say("Raft and the members table agree")
			}
			return list(env, diff, []string{"ID", "WANT", "HAVE"},
				func(d client.Difference) []any { return []any{d.NodeID, d.Want, d.Have} })
		},
	}, env)
}

func newRaftTransferCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "transfer ID",
		Short: "Make a voter the leader; ID is its number, name, UUID, address or host name",
		Args:  exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd.Context())
			if err != nil {
				return err
			}
			uuid, err := raftID(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			move := func() error { return c.TransferLeadership(cmd.Context(), uuid) }
			if err := console.While(env.stderr, "leadership is being handed over", move); err != nil {
				return err
			}
			return env.done("leadership went to %s", args[0])
		},
	}
}

func newRaftRemoveCommand(env *environment) *cobra.Command {
	var yes bool
	return yesFlag(&cobra.Command{
		Use:   "remove ID",
		Short: "Remove a Raft server and its member; ID is its number, name, UUID, address or host name",
		Long: `Remove a Raft server together with its member, like "muster member remove", but without a drain. It is
refused when too few live voters would be left, and for the leader. A server without a member leaves the configuration
by itself; "muster raft diff" shows it until then.`,
		Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd.Context())
			if err != nil {
				return err
			}
			id := args[0]
			if _, err := strconv.ParseUint(id, 10, 64); err != nil { // a number the server takes as it is
				if id, err = raftID(cmd.Context(), c, id); err != nil {
					return err
				}
			}
			if err := env.confirm(yes, "remove %s and its member for good, without a drain?", args[0]); err != nil {
				return err
			}
			if err := c.RemoveRaftPeer(cmd.Context(), id); err != nil {
				return err
			}
			return env.done("%s is out of the Raft configuration", args[0])
		},
	}, &yes)
}

var uuidShape = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// raftID makes the UUID of what the person wrote; only a number or name needs a question to the server.
func raftID(ctx context.Context, c *client.Client, text string) (string, error) {
	if id := strings.ToLower(text); uuidShape.MatchString(id) {
		return id, nil
	}
	m, err := findMember(ctx, c, text)
	return m.ID, err
}
