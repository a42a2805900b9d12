package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"muster/cli/console"
	"muster/client"
)

func newAPITokenCommand(env *environment) *cobra.Command {
	group := newGroup("api-token", "Make, list and revoke the tokens for calls to the API")
	group.AddCommand(newAPITokenCreateCommand(env), newAPITokenListCommand(env), newAPITokenRevokeCommand(env))
	return group
}

func newAPITokenCreateCommand(env *environment) *cobra.Command {
	var r client.APITokenRequest
	cmd := &cobra.Command{
		Use:   "create --name NAME --scope SCOPE[,SCOPE]",
		Short: "Make an API token; it alone is printed on stdout",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case r.Name == "":
				return usagef(cmd, "--name is missing")
			case len(r.Scopes) == 0:
				return usagef(cmd, "--scope is missing; there are %s", strings.Join(client.Scopes, ", "))
			case r.TTL < 0, r.TTL == 0 && cmd.Flags().Changed("ttl"):
				return usagef(cmd, "--ttl must be more than 0s")
			}
			for _, scope := range r.Scopes {
				if !slices.Contains(client.Scopes, scope) {
					return usagef(cmd, "--scope %q is none of %s", scope, strings.Join(client.Scopes, ", "))
				}
			}
			c, err := env.client(cmd.Context())
			if err != nil {
				return err
			}
			t, err := c.CreateAPIToken(cmd.Context(), r)
			if err != nil {
				return err
			}
			until := "does not expire"
			if !t.ExpiresAt.IsZero() {
				until = "expires at " + console.Cell(t.ExpiresAt)
			}
			return env.secret(t, t.Token, "API token %s (%s) for %s %s; it is not shown again", t.ID, t.Name,
				strings.Join(t.Scopes, ", "), until)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&r.Name, "name", "", "name of the token in lists and in the audit")
	flags.StringSliceVar(&r.Scopes, "scope", nil, "what it is for: "+strings.Join(client.Scopes, ", "))
	flags.DurationVar(&r.TTL, "ttl", 0, "lifetime (default: unlimited)")
	complete(cmd, "scope", client.Scopes...)
	return cmd
}

func newAPITokenListCommand(env *environment) *cobra.Command {
	return staleFlag(&cobra.Command{
		Use:   "list",
		Short: "List the API tokens, never their secrets",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.reader(cmd.Context())
			if err != nil {
				return err
			}
			tokens, err := c.APITokens(cmd.Context())
			if err != nil {
				return err
			}
			return list(env, tokens,
				[]string{"ID", "NAME", "SCOPES", "CREATED", "EXPIRES"},
				func(t client.APIToken) []any {
					return []any{t.ID, t.Name, strings.Join(t.Scopes, ","), t.CreatedAt, t.ExpiresAt}
				})
		},
	}, env)
}

func newAPITokenRevokeCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke ID",
		Short: "Make an API token useless at once",
		Args:  exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd.Context())
			if err != nil {
				return err
			}
			if err := c.RevokeAPIToken(cmd.Context(), args[0]); err != nil {
				return missing(err, "API token", args[0])
			}
			return env.done("API token %s is revoked", args[0])
		},
	}
}
