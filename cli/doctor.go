package cli

import (
	"errors"
	"fmt"

	"muster/cluster/datadir"

	"github.com/spf13/cobra"
)

func newDoctorCommand(env *environment) *cobra.Command {
	var keep string
	cmd := &cobra.Command{
		Use:   "doctor --data DIR",
		Short: "Examine the data directory of a member, running or not; fails when something is broken",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if env.data == "" {
				return usagef(cmd, "--data is missing")
			}
			reserve := datadir.DefaultReserve
			if keep != "" {
				var err error
				if reserve, err = datadir.ParseReserve(keep); err != nil {
					return usagef(cmd, "--disk-reserve: %v", err)
				}
			}
			findings := datadir.Examine(cmd.Context(), env.data, reserve)
			if err := list(env, findings, []string{"CHECK", "STATE", "DETAIL"}, func(f datadir.Finding) []any {
				return []any{f.Check, f.State, f.Detail}
			}); err != nil {
				return err
			}
			failed := 0
			for _, f := range findings {
				if f.State == datadir.FindingFail {
					failed++
				}
				if f.Next != "" && f.State != datadir.FindingOK && env.output == "table" {
					env.say("%s: %s", f.Check, f.Next)
				}
			}
			if failed > 0 {
				return errors.New(count(failed, "check") + " failed")
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&keep, "disk-reserve", "", "as given to serve")
	return cmd
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
