package cli

import (
	"fmt"
	"time"

	"github.com/musterhq/muster/client"
	"github.com/spf13/cobra"
)

func newJoinTokenCommand(env *environment) *cobra.Command {
	group := newGroup("join-token", "Make, list and revoke the tokens with which machines join")
	group.AddCommand(newJoinTokenCreateCommand(env), newJoinTokenListCommand(env), newJoinTokenRevokeCommand(env))
	return group
}

func newJoinTokenCreateCommand(env *environment) *cobra.Command {
	var r client.JoinTokenRequest
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make a join token; it alone is printed on stdout",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case cmd.Flags().Changed("node-id") && r.NodeID == 0:
				return usagef(cmd, "--node-id must be at least 1")
			case r.TTL <= 0:
				return usagef(cmd, "--ttl must be more than 0s")
			case r.MaxUses < 1:
				return usagef(cmd, "--max-uses must be at least 1")
			case r.Mode != "full" && r.Mode != "replicate":
				return usagef(cmd, "--mode %q is neither full nor replicate", r.Mode)
			}
			c, err := env.client()
			if err != nil {
				return err
			}
			t, err := c.CreateJoinToken(cmd.Context(), r)
			if err != nil {
				return err
			}
			bound := ""
			if t.NodeID != 0 {
				bound = fmt.Sprintf(" as member %d", t.NodeID)
			}
			uses := "once"
			if t.MaxUses > 1 {
				uses = fmt.Sprintf("%d times", t.MaxUses)
			}
			return env.secret(t, t.Token, "join token %s can be used %s%s until %s, on the new machine: muster serve --data DIR --join TOKEN",
				t.ID, uses, bound, cell(t.ExpiresAt))
		},
	}
	flags := cmd.Flags()
	flags.Uint64Var(&r.NodeID, "node-id", 0, "number that the new member gets (default the next free one)")
	flags.DurationVar(&r.TTL, "ttl", 30*time.Minute, "how long the token can be used")
	flags.IntVar(&r.MaxUses, "max-uses", 1, "how many machines can use it")
	flags.StringVar(&r.Mode, "mode", "full", "full, or replicate for members that never vote")
	complete(cmd, "mode", "full", "replicate")
	return cmd
}

func newJoinTokenListCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the join tokens, never their secrets",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.client()
			if err != nil {
				return err
			}
			tokens, err := c.JoinTokens(cmd.Context())
			if err != nil {
				return err
			}
			return list(env, tokens,
				[]string{"ID", "STATE", "MEMBER", "MODE", "USES", "CREATED", "BY", "EXPIRES"},
				func(t client.JoinToken) []any {
					uses := fmt.Sprintf("%d of %d", t.Uses, t.MaxUses)
					return []any{t.ID, t.State, t.NodeID, t.Mode, uses, t.CreatedAt, t.CreatedBy, t.ExpiresAt}
				})
		},
	}
}

func newJoinTokenRevokeCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke ID",
		Short: "Make a join token useless; members that came with it stay",
		Args:  exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client()
			if err != nil {
				return err
			}
			if err := c.RevokeJoinToken(cmd.Context(), args[0]); err != nil {
				return err
			}
			return env.done("join token %s is revoked", args[0])
		},
	}
}
