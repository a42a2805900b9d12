package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"muster/cli/console"
	"muster/client"
)

func newEnrollTokenCommand(env *environment) *cobra.Command {
	group := newGroup("enroll-token",
		"Make, list and revoke tokens for enrolling other software (Elasticsearch's enrollment)")
	group.AddCommand(newEnrollTokenCreateCommand(env), newEnrollTokenListCommand(env), newEnrollTokenRevokeCommand(env))
	return group
}

func newEnrollTokenCreateCommand(env *environment) *cobra.Command {
	var r client.EnrollTokenRequest
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make an enrollment token; it alone is printed on stdout",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case r.TTL <= 0:
				return usagef(cmd, "--ttl must be more than 0s")
			case r.MaxUses < 1:
				return usagef(cmd, "--max-uses must be at least 1")
			case r.Scope != "node" && r.Scope != "kibana":
				return usagef(cmd, "--scope %q is neither node nor kibana", r.Scope)
			}
			c, err := env.client(cmd.Context())
			if err != nil {
				return err
			}
			t, err := c.CreateEnrollToken(cmd.Context(), r)
			if err != nil {
				return err
			}
			for _, w := range t.Warnings {
				env.say("%s", w)
			}
			uses := "once"
			if t.MaxUses > 1 {
				uses = fmt.Sprintf("%d times", t.MaxUses)
			}
			return env.secret(t, t.Token, "enrollment token %s for a %s can be used %s until %s; it is not shown again",
				t.ID, t.Scope, uses, console.Cell(t.ExpiresAt))
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&r.Name, "name", "", "name of the token in lists and in the audit")
	flags.StringVar(&r.Scope, "scope", "node", "node, or kibana")
	flags.DurationVar(&r.TTL, "ttl", 30*time.Minute, "how long the token can be used")
	flags.IntVar(&r.MaxUses, "max-uses", 1, "how often it can be used")
	complete(cmd, "scope", "node", "kibana")
	return cmd
}

func newEnrollTokenListCommand(env *environment) *cobra.Command {
	return staleFlag(&cobra.Command{
		Use:   "list",
		Short: "List the enrollment tokens, never their secrets",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.reader(cmd.Context())
			if err != nil {
				return err
			}
			tokens, err := c.EnrollTokens(cmd.Context())
			if err != nil {
				return err
			}
			return list(env, tokens,
				[]string{"ID", "NAME", "SCOPE", "STATE", "USES", "CREATED", "BY", "EXPIRES"},
				func(t client.EnrollToken) []any {
					return []any{t.ID, t.Name, t.Scope, t.State, fmt.Sprintf("%d of %d", t.Uses, t.MaxUses),
						t.CreatedAt, t.CreatedBy, t.ExpiresAt}
				})
		},
	}, env)
}

func newEnrollTokenRevokeCommand(env *environment) *cobra.Command {
	var keep bool
	cmd := &cobra.Command{
		Use:   "revoke ID",
		Short: "Revoke an enrollment token and its enrollments",
		Args:  exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd.Context())
			if err != nil {
				return err
			}
			n, err := c.RevokeEnrollToken(cmd.Context(), args[0], keep)
			if err != nil {
				return missing(err, "enrollment token", args[0])
			}
			return env.done("enrollment token %s is revoked, and %s with it", args[0], count(n, "enrollment"))
		},
	}
	cmd.Flags().BoolVar(&keep, "keep-enrollments", false, "keep its enrollments")
	return cmd
}

func newEnrollmentCommand(env *environment) *cobra.Command {
	group := newGroup("enrollment", "List and revoke the enrollments of other software")
	group.AddCommand(staleFlag(&cobra.Command{
		Use:   "list",
		Short: "List enrollments with the serial numbers of their certificates",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.reader(cmd.Context())
			if err != nil {
				return err
			}
			enrollments, err := c.Enrollments(cmd.Context())
			if err != nil {
				return err
			}
			return list(env, enrollments,
				[]string{"ID", "KIND", "STATE", "ENROLLED", "FROM", "BY", "EXPIRES", "CERTIFICATE", "HTTP CA"},
				func(e client.Enrollment) []any {
					return []any{e.ID, e.Kind, e.State, e.EnrolledAt, e.Remote, e.EnrolledBy, e.ExpiresAt,
						e.TransportSerial, e.HTTPCASerial}
				})
		},
	}, env), &cobra.Command{
		Use:   "revoke ID",
		Short: "Revoke the certificates of an enrollment and delete its service token",
		Args:  exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd.Context())
			if err != nil {
				return err
			}
			if err := c.RevokeEnrollment(cmd.Context(), args[0]); err != nil {
				return missing(err, "enrollment", args[0])
			}
			return env.done("enrollment %s is revoked", args[0])
		},
	})
	return group
}
