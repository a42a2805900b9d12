package cli

import (
	"github.com/spf13/cobra"
	"muster/client"
)

// newMembersCommand makes "members" and, under its other name, "member list".
func newMembersCommand(env *environment, use string) *cobra.Command {
	return staleFlag(&cobra.Command{
		Use:   use,
		Short: "List the members of the cluster",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.reader(cmd.Context())
			if err != nil {
				return err
			}
			members, err := c.Members(cmd.Context())
			if err != nil {
				return err
			}
			return printMembers(env, members)
		},
	}, env)
}

func printMembers(env *environment, members []client.Member) error {
	return list(env, members,
		[]string{"ID", "NAME", "STATUS", "ROLE", "LEADER", "DRAIN", "MODE", "API ADDRESS", "RAFT ADDRESS", "VERSION"},
		func(m client.Member) []any {
			return []any{m.NodeID, m.Name, status(m), role(m), m.IsLeader, m.DrainState, m.Mode, m.APIAddress, m.RaftAddress, m.BinaryVersion}
		})
}

// status says how a member is: alive, down since it last answered, left when it said goodbye, or unknown.
func status(m client.Member) string {
	if m.Status == "left" && !m.DownSince.IsZero() {
		return "down since " + m.DownSince.UTC().Format("15:04:05Z")
	}
	return m.Status
}

// role is the member's place in Raft, in the words of servers that have three and of those that have two.
func role(m client.Member) string {
	if m.Role != "" {
		return m.Role
	}
	return m.Suffrage
}
