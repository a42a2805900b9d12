package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"muster/client"
)

const (
	watchQuiet = 200 * time.Millisecond // changes that come together are shown together
	clearAll   = "\x1b[H\x1b[2J\x1b[3J" // of a terminal: home, screen, what was scrolled away (ECMA-48, xterm)
)

// listing reports whether a command prints a list: it knows -o name and --watch.
func listing(cmd *cobra.Command) bool {
	return slices.Contains([]string{"list", "members", "peers"}, cmd.Name()) && cmd.RunE != nil
}

// nameColumns says which column -o name prints where that is not the first, by the path of the command.
var nameColumns = map[string]string{"muster members": "NAME", "muster member list": "NAME", "muster cert list": "SERIAL"}

// addWatch gives every command that prints a list the flag --watch.
func addWatch(env *environment, cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		addWatch(env, sub)
	}
	if !listing(cmd) {
		return
	}
	var watch bool
	once := cmd.RunE
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "print the list again whenever the cluster changes, until Ctrl-C")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !watch {
			return once(cmd, args)
		}
		return env.again(cmd.Context(), func() error { return once(cmd, args) })
	}
}

// again prints a list, and once more after each change of the cluster's state, until ctx ends.
func (e *environment) again(ctx context.Context, show func() error) error {
	c, err := e.anybody()
	if err != nil {
		return err
	}
	changed, failed := make(chan struct{}, 1), make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		failed <- c.Watch(ctx, client.WatchOptions{}, func(client.Event) error {
			select {
			case changed <- struct{}{}:
			default: // it will be shown anyway
			}
			return nil
		})
	}()
	for {
		if terminal(e.stdout) {
			fmt.Fprint(e.stdout, clearAll)
		}
		err := show()
		var none *client.NoServerError
		if ctx.Err() != nil {
			return nil // that is how one stops watching
		}
		if err != nil && !errors.As(err, &none) {
			return err
		}
		if err != nil { // it comes back
			e.complain(err.Error())
		}
		select {
		case err := <-failed:
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		case <-changed:
		}
		select {
		case <-time.After(watchQuiet):
		case <-ctx.Done():
			return nil
		}
	}
}
