package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"muster/client"
)

func newWatchCommand(env *environment) *cobra.Command {
	var (
		types []string
		since string
	)
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Print what happens in the cluster, until Ctrl-C",
		Long: `Print a line for each change of the cluster's state, as it is committed. When the member that is watched goes away, the
next address is asked and nothing is left out.`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := strconv.ParseUint(since, 10, 53); since != "" && err != nil {
				return usagef(cmd, "--since %q is not a revision", since)
			}
			c, err := env.anybody()
			if err != nil {
				return err
			}
			return env.watch(cmd.Context(), c, client.WatchOptions{After: since, Types: types}, func(client.Event) bool { return true })
		},
	}
	cmd.Flags().StringSliceVar(&types, "type", nil, "only these types, comma-separated, such as member,token,leader")
	cmd.Flags().StringVar(&since, "since", "", "also what came after this revision")
	return cmd
}

// watch prints the events that want accepts, a line each, until it is interrupted.
func (e *environment) watch(ctx context.Context, c *client.Client, opt client.WatchOptions, want func(client.Event) bool) error {
	opt.Broken = func(err error) { e.say("%s; going on elsewhere", printable(err.Error())) }
	err := c.Watch(ctx, opt, func(x client.Event) error {
		if !want(x) {
			return nil
		}
		return e.event(x)
	})
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // that is how one stops watching
	}
	return err
}

// event prints one event as a line: for people, or as JSON.
func (e *environment) event(x client.Event) error {
	if e.output == "json" {
		return json.NewEncoder(e.stdout).Encode(x)
	}
	line := fmt.Sprintf("%s  %-8s  %s %s", x.At.UTC().Format(time.RFC3339), x.ID(), x.Action, x.Object)
	if x.Actor != "" {
		line += "  by " + x.Actor
	}
	if x.Remote != "" {
		line += "  from " + x.Remote
	}
	if x.Outcome != "ok" {
		line += "  " + x.Outcome
	}
	if x.Detail != "" {
		line += "  (" + x.Detail + ")"
	}
	_, err := fmt.Fprintln(e.stdout, printable(line))
	return err
}
