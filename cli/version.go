package cli

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

func newVersionCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Say which build this is",
		Args:  exactly(),
		RunE: func(*cobra.Command, []string) error {
			if env.output == "json" {
				return env.json(struct {
					Version string `json:"version"`
					Commit  string `json:"commit"`
					Go      string `json:"go"`
				}{Version, Commit, runtime.Version()})
			}
			_, err := fmt.Fprint(env.stdout, versionText())
			return err
		},
	}
}

// versionText is what "muster version" and "muster --version" print.
func versionText() string {
	return fmt.Sprintf("muster %s (commit %s, %s, %s/%s)\n", Version, Commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
