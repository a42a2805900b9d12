package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"muster/client"
)

const (
	commandTimeout = 6 * time.Second        // for a command, unless it waits for machines
	leaderPoll     = 200 * time.Millisecond // between two looks for a leader
)

// noLeaderError is a command that gave up before it sent its request, since there was no leader for it.
type noLeaderError struct{ survey client.Survey }

// Unwrap gives client.ErrNoLeader.
func (e *noLeaderError) Unwrap() error { return client.ErrNoLeader }

// Error says who answered and who did not.
func (e *noLeaderError) Error() string {
	var b strings.Builder
	all := e.survey.Answered + len(e.survey.Silent)
	fmt.Fprintf(&b, "there is no leader: %d of %d addresses answered, and no member there knows one", e.survey.Answered,
		all)
	for _, t := range e.survey.Silent {
		why := "no answer yet"
		if t.Err != nil {
			why = t.Err.Error()
		}
		fmt.Fprintf(&b, "\n  %s: %s", t.Addr, why)
	}
	return b.String() + "\nNothing was sent, so nothing has happened."
}

// anybody makes a client for what every member answers by itself.
func (e *environment) anybody() (*client.Client, error) {
	if e.made != nil { // a token from stdin can be read once
		return e.made, nil
	}
	cfg, err := e.config()
	if err != nil {
		return nil, err
	}
	e.made, err = client.New(cfg)
	return e.made, err
}

// client makes a client for a command that needs a leader. It waits for one, and fails when there is none within
// commandTimeout, before anything is sent.
func (e *environment) client(ctx context.Context) (*client.Client, error) {
	c, err := e.anybody()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	waiting := progress{env: e, tty: terminal(e.stderr)}
	defer waiting.end()
	last := &noLeaderError{}
	for {
		s, err := c.Survey(ctx)
		switch {
		case err == nil && s.Leader:
			return c, nil
		case err == nil:
			last.survey = s
		case last.survey.Answered == 0 || errors.Is(err, context.Canceled):
			return nil, err
		}
		waiting.note("waiting for a leader …")
		select {
		case <-time.After(leaderPoll):
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return nil, ctx.Err()
			}
			return nil, last
		}
	}
}

// reader makes a client for a command that only reads. Without a leader, or with --stale, a member answers from its own
// replica, and a line on stderr says how old that is.
func (e *environment) reader(ctx context.Context) (*client.Client, error) {
	c, err := e.anybody()
	if err != nil {
		return nil, err
	}
	s, err := c.Survey(ctx)
	if err != nil {
		var none *client.NoServerError
		if errors.As(err, &none) {
			none.Reading = true
		}
		return nil, err
	}
	said := false
	report := func(age client.Age) {
		if !said {
			e.say("%s", staleness(age, e.stale))
		}
		said = true
	}
	if s.Leader && !e.stale {
		return c.OrStale(report), nil // it may be lost at this moment
	}
	return c.Stale(report), nil
}

// staleness says how old an answer is, and why it is not the newest.
func staleness(age client.Age, wanted bool) string {
	from := "this is what the member at " + printable(age.Addr)
	switch {
	case age.Leader:
		return from + " has itself, at most about a second old"
	case age.Known && wanted:
		return fmt.Sprintf("%s knew when it last had a leader, %s ago", from, age.Ago.Round(time.Second))
	case age.Known:
		return fmt.Sprintf("there is no leader: %s knew when it last had one, %s ago", from, age.Ago.Round(time.Second))
	}
	return "there is no leader: " + from + " knew before it was started; it has had no leader since"
}

// staleFlag adds --stale to a command that reads.
func staleFlag(cmd *cobra.Command, env *environment) *cobra.Command {
	cmd.Flags().BoolVar(&env.stale, "stale", false,
		"what the member that is asked has itself; this is also what is shown when there is no leader")
	return cmd
}
