package cli

import (
	"cmp"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

func newVersionCommand(env *environment) *cobra.Command {
	var licenses bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Show this build's version, and the licences of its parts",
		Args:  exactly(),
		RunE: func(*cobra.Command, []string) error {
			if licenses {
				_, err := fmt.Fprint(env.stdout, cmp.Or(Notice, "this build has no notices\n"))
				return err
			}
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
	cmd.Flags().BoolVar(&licenses, "licenses", false,
		"print the licences of all software linked into this program")
	return cmd
}

// versionText returns the output of "muster version" and "muster --version".
func versionText() string {
	return fmt.Sprintf("muster %s (commit %s, %s, %s/%s)\n", Version, Commit, runtime.Version(), runtime.GOOS,
		runtime.GOARCH)
}
