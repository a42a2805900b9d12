package cli

import "github.com/spf13/cobra"

func newDevCommand(env *environment) *cobra.Command {
	return &cobra.Command{Use: "dev"}
}
