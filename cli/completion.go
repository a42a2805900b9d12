package cli

import (
	"github.com/spf13/cobra"
)

func newCompletionCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:       "completion bash|zsh|fish",
		Short:     "Print the completion script of a shell",
		Args:      exactly("the shell"),
		ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: func(cmd *cobra.Command, args []string) error {
			switch args[0] {
			case "bash":
				return cmd.Root().GenBashCompletionV2(env.stdout, true)
			case "zsh":
				return cmd.Root().GenZshCompletion(env.stdout)
			case "fish":
				return cmd.Root().GenFishCompletion(env.stdout, true)
			}
			return usagef(cmd, "the shell %q is none of bash, zsh, fish", args[0])
		},
	}
}
