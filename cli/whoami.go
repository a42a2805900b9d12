package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"muster/cli/console"
	"muster/client"
)

func newWhoAmICommand(env *environment) *cobra.Command {
	return staleFlag(&cobra.Command{
		Use:   "whoami",
		Short: "Show the token that commands use, and its scopes",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.reader(cmd.Context())
			if err != nil {
				return err
			}
			me, err := c.WhoAmI(cmd.Context())
			if err != nil {
				return err
			}
			if env.output == "json" {
				return env.json(me)
			}
			return env.table([]string{"NAME", console.Cell(me.Name)}, [][]any{
				{"KIND", me.Kind},
				{"ID", me.ID},
				{"SCOPES", strings.Join(me.Scopes, " ")},
				{"EXPIRES", me.ExpiresAt},
				{"MEMBER", me.NodeID},
			})
		},
	}, env)
}

// lacks explains a refusal for a missing scope: the required scope and the token's scopes. Empty for any other error.
func (e *environment) lacks(err error) string {
	var refusal *client.Error
	if !errors.As(err, &refusal) || refusal.Status != http.StatusForbidden || refusal.Scope == "" {
		return ""
	}
	text := fmt.Sprintf("\nIt takes the scope %s.", refusal.Scope)
	c, err := e.anybody()
	if err != nil {
		return text
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	me, err := c.WhoAmI(ctx)
	if err != nil {
		return text
	}
	has := "none"
	if len(me.Scopes) > 0 {
		has = strings.Join(me.Scopes, ", ")
	}
	return fmt.Sprintf("%s The token %q (%s) has %s.", text, me.Name, me.ID, has)
}
