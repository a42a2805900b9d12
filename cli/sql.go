package cli

import (
	"github.com/spf13/cobra"
)

func newSQLCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "sql 'SELECT …'",
		Short: "Run a read-only query on the contacted member's copy of the database",
		Args:  exactly("the query"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.anybody()
			if err != nil {
				return err
			}
			result, err := c.SQL(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if env.output == "json" {
				return env.json(result)
			}
			for _, row := range result.Rows {
				for i, value := range row {
					switch value {
					case nil:
						row[i] = "NULL"
					case "":
						row[i] = "''"
					}
				}
			}
			if len(result.Columns) > 0 {
				if err := env.table(result.Columns, result.Rows); err != nil {
					return err
				}
			}
			if result.Truncated {
				env.say("there are more than %d rows; use LIMIT and OFFSET for the rest", len(result.Rows))
			}
			return nil
		},
	}
}
