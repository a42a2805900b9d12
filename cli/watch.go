package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"muster/cli/console"
	"muster/client"
	"muster/store"
)

func newWatchCommand(env *environment) *cobra.Command {
	var (
		types []string
		since string
	)
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Print the cluster's events, until Ctrl-C",
		Long: `Print a line for each change of the cluster's state, when it is committed. When the watched member goes away,
the command continues at the next address without omitting events. Without a leader nothing changes: stderr says so, and
says when there is one again.`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := strconv.ParseUint(since, 10, 53); since != "" && err != nil {
				return usagef(cmd, "--since %q is not a revision", since)
			}
			for _, t := range types {
				if !slices.Contains(store.EventTypes, t) {
					return usagef(cmd, "--type %q is none of %s", t, strings.Join(store.EventTypes, ", "))
				}
			}
			c, err := env.anybody()
			if err != nil {
				return err
			}
			return env.watch(cmd.Context(), c, client.WatchOptions{After: since, Types: types},
				func(client.Event) bool { return true })
		},
	}
	cmd.Flags().StringSliceVar(&types, "type", nil, "only these types, comma-separated, such as member,token,leader")
	cmd.Flags().StringVar(&since, "since", "", "also what came after this revision")
	complete(cmd, "type", store.EventTypes...)
	return cmd
}

// watch prints the events accepted by want, a line each, until it is interrupted.
func (e *environment) watch(ctx context.Context, c *client.Client, opt client.WatchOptions,
	want func(client.Event) bool) error {
	var one sync.Mutex // says a sentence at a time
	say := func(format string, args ...any) {
		one.Lock()
		defer one.Unlock()
		e.say(format, args...)
	}
	opt.Broken = func(err error) { say("%s; going on elsewhere", console.Printable(err.Error())) }
	asking, cancel := context.WithCancel(ctx)
	var asker sync.WaitGroup
	asker.Go(func() {
		leadership(asking, c, func(led bool) {
			if led {
				say("there is a leader again")
			} else {
				say("there is no leader: nothing changes until there is one")
			}
		})
	})
	defer asker.Wait()
	defer cancel()
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

// leadership calls turned when no address knows a leader any more, and when one does again. It blocks until ctx ends.
func leadership(ctx context.Context, c *client.Client, turned func(led bool)) {
	tick := time.NewTicker(askLeader)
	defer tick.Stop()
	led := true
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if s, err := c.Survey(ctx); err == nil && s.Leader != led {
			led = s.Leader
			turned(led)
		}
	}
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
	_, err := fmt.Fprintln(e.stdout, console.Printable(line))
	return err
}

const (
	watchQuiet = 200 * time.Millisecond // closer changes are shown together
	askLeader  = 2 * time.Second        // how often a command that watches asks for the leader
	clearAll   = "\x1b[H\x1b[2J\x1b[3J" // of a terminal: home, screen, what was scrolled away (ECMA-48, xterm)
)

// listing reports whether a command prints a list, and so accepts -o name and --watch.
func listing(cmd *cobra.Command) bool {
	if cmd.RunE == nil {
		return false
	}
	return cmd.Name() == "list" || slices.Contains(alsoLists, cmd.CommandPath())
}

// alsoLists has the commands that print a list without being called "list".
var alsoLists = []string{"muster members", "muster raft peers", "muster autopilot", "muster autopilot zones",
	"muster upgrade status", "muster upgrade plan", "muster peering members"}

// nameColumns has, by command path, the column for -o name if that is not the first.
var nameColumns = map[string]string{"muster members": "NAME", "muster member list": "NAME",
	"muster autopilot": "NAME", "muster upgrade status": "NAME", "muster upgrade plan": "NAME",
	"muster peering members": "NAME", "muster cert list": "SERIAL", "muster raft peers": "ID"}

// addWatch adds the flag --watch to every command that prints a list.
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

// again prints a list, and prints it again after each change of the cluster's state, until ctx ends.
func (e *environment) again(ctx context.Context, show func() error) error {
	c, err := e.anybody()
	if err != nil {
		return err
	}
	changed, failed := make(chan struct{}, 1), make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	due := func() {
		select {
		case changed <- struct{}{}:
		default: // a print is already due
		}
	}
	go func() {
		failed <- c.Watch(ctx, client.WatchOptions{}, func(client.Event) error {
			due()
			return nil
		})
	}()
	go leadership(ctx, c, func(bool) { due() }) // a list without a leader says how old it is
	for {
		if console.Terminal(e.stdout) {
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
		if err != nil { // temporary
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
