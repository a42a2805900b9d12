package cli

import (
	"time"

	"github.com/spf13/cobra"

	"muster/cli/console"
	"muster/client"
)

func newLeaseCommand(env *environment) *cobra.Command {
	group := newGroup("lease", "Record work on a member; a drain waits for it")
	group.AddCommand(newLeaseListCommand(env), newLeasePutCommand(env), newLeaseDeleteCommand(env))
	return group
}

func newLeaseListCommand(env *environment) *cobra.Command {
	var member string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the leases",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.reader(cmd.Context())
			if err != nil {
				return err
			}
			var id uint64
			if member != "" {
				if id, err = memberID(cmd.Context(), c, member); err != nil {
					return err
				}
			}
			leases, err := c.Leases(cmd.Context(), id)
			if err != nil {
				return err
			}
			return list(env, leases,
				[]string{"ID", "MEMBER", "KIND", "CREATED", "EXPIRES"},
				func(l client.Lease) []any { return []any{l.ID, l.NodeID, l.Kind, l.CreatedAt, l.ExpiresAt} })
		},
	}
	cmd.Flags().StringVar(&member, "member", "",
		"leases of this member: its number, name, UUID, address or host name")
	return staleFlag(cmd, env)
}

func newLeasePutCommand(env *environment) *cobra.Command {
	var (
		member, kind string
		ttl          time.Duration
	)
	cmd := &cobra.Command{
		Use:   "put ID --member MEMBER",
		Short: "Grant a lease on a member, or renew it",
		Args:  exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case member == "":
				return usagef(cmd, "--member is missing")
			case ttl <= 0 || ttl > 24*time.Hour:
				return usagef(cmd, "--ttl %s is not more than 0s and at most 24h", ttl)
			}
			c, err := env.client(cmd.Context())
			if err != nil {
				return err
			}
			id, err := memberID(cmd.Context(), c, member)
			if err != nil {
				return err
			}
			l, err := c.PutLease(cmd.Context(), args[0], id, kind, ttl)
			if err != nil {
				return missing(err, "member", member)
			}
			if env.output == "json" {
				return env.json(l)
			}
			env.say("lease %s on member %d holds until %s", l.ID, l.NodeID, console.Cell(l.ExpiresAt))
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&member, "member", "", "the member: its number, name, UUID, address or host name")
	flags.StringVar(&kind, "kind", "", "what it stands for, such as session")
	flags.DurationVar(&ttl, "ttl", time.Minute, "lifetime without renewal, at most 24h")
	return cmd
}

func newLeaseDeleteCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "delete ID",
		Short: "Release a lease before it expires",
		Args:  exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd.Context())
			if err != nil {
				return err
			}
			if err := c.DeleteLease(cmd.Context(), args[0]); err != nil {
				return missing(err, "lease", args[0])
			}
			return env.done("lease %s is released", args[0])
		},
	}
}
