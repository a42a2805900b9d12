package cli

import (
	"github.com/spf13/cobra"

	"muster/client"
)

func newSchemaCommand(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "schema",
		Short: "Show the schema of the database and the members that a newer one waits for",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.reader(cmd.Context())
			if err != nil {
				return err
			}
			state, err := c.Schema(cmd.Context())
			if err != nil {
				return err
			}
			return showSchema(env, state)
		},
	}
	cmd.AddCommand(newSchemaMigrateCommand(env))
	return staleFlag(cmd, env)
}

func newSchemaMigrateCommand(env *environment) *cobra.Command {
	var exclude []string
	cmd := &cobra.Command{
		Use:   "migrate [--exclude ID]",
		Short: "Apply the newest schema now, without waiting for lost members",
		Long: `Apply the newest schema that the leader supports.

The leader does this by itself when every live member supports the schema. A member that does not answer delays it for
autopilot's deadAfter; --exclude continues without it. When an older muster comes back, it takes part in replication but
does not lead until it is replaced by a newer one.`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.client(cmd.Context())
			if err != nil {
				return err
			}
			ids := make([]uint64, len(exclude))
			for i, text := range exclude {
				if ids[i], err = memberID(cmd.Context(), c, text); err != nil {
					return err
				}
			}
			state, err := during(env, "the schema is being applied", func() (client.Schema, error) {
				return c.MigrateSchema(cmd.Context(), ids)
			})
			if err != nil {
				return err
			}
			return showSchema(env, state)
		},
	}
	cmd.Flags().StringSliceVar(&exclude, "exclude", nil,
		"lost member: its number, name, UUID, address or host name; several, comma-separated")
	return cmd
}

func showSchema(env *environment, state client.Schema) error {
	if env.output == "json" {
		return env.json(state)
	}
	switch {
	case state.Applied >= state.Latest:
		env.say("the database has schema %d, the newest that the leader supports", state.Applied)
		return nil
	case len(state.HeldBackBy) == 0:
		env.say("the database has schema %d; the leader is about to apply %d", state.Applied, state.Latest)
		return nil
	}
	env.say("the database has schema %d; %d waits for:", state.Applied, state.Latest)
	return list(env, state.HeldBackBy, []string{"ID", "NAME", "STATUS", "VERSION", "SCHEMA", "WHAT TO DO"},
		func(h client.SchemaHolder) []any {
			return []any{h.NodeID, h.Name, h.Status, h.BinaryVersion, h.MaxSchema, h.Reason}
		})
}
