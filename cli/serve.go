package cli

import (
	"errors"

	"github.com/spf13/cobra"
)

func newServeCommand(*environment) *cobra.Command {
	return &cobra.Command{Use: "serve", Short: "Run a member", RunE: func(*cobra.Command, []string) error { return errors.New("this build has no server") }}
}

func newDevCommand(*environment) *cobra.Command {
	return &cobra.Command{Use: "dev", Short: "Run a cluster on this machine", RunE: func(*cobra.Command, []string) error { return errors.New("this build has no server") }}
}
