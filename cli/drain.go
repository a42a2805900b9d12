package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"muster/cli/console"
	"muster/client"
)

const (
	drainPoll  = 500 * time.Millisecond
	drainGrace = 45 * time.Second // after the deadline: hooks, the hand-over of leadership, a change of leader
)

func newMemberDrainCommand(env *environment) *cobra.Command {
	var deadline time.Duration
	cmd := &cobra.Command{
		Use:   "drain ID",
		Short: "Take work away from a member and wait until it is drained",
		Args:  exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if deadline < 0 || deadline > time.Hour {
				return usagef(cmd, "--deadline %s is not between 0s and 1h", deadline)
			}
			c, err := env.client(cmd.Context())
			if err != nil {
				return err
			}
			id, err := memberID(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			env.zoneCost(cmd.Context(), c, id).warn(env)
			ctx, cancel := context.WithTimeout(cmd.Context(), deadline+drainGrace)
			defer cancel()
			begin := cmd.Context()
			if deadline == 0 {
				begin = ctx // the call answers when the member is drained
			}
			state, err := c.DrainMember(begin, id, deadline)
			if err == nil && state != client.DrainDrained {
				err = env.waitDrained(ctx, c, id, deadline)
			}
			if err != nil {
				return err
			}
			if env.output == "json" {
				return env.json(map[string]string{"drainState": client.DrainDrained})
			}
			env.say("member %d is drained", id)
			env.heldLeases(cmd.Context(), c, id)
			if m, err := oneMember(cmd.Context(), c, id); err == nil {
				for _, h := range m.Hooks {
					if !h.OK {
						env.say("warning: hook %s: %s", h.Name, h.Message)
					}
				}
			}
			return nil
		},
	}
	cmd.Flags().DurationVar(&deadline, "deadline", time.Minute,
		"how long to wait for leases on the member, at most 1h")
	return cmd
}

// heldLeases reports the leases left on a member after the deadline of its drain.
func (e *environment) heldLeases(ctx context.Context, c *client.Client, id uint64) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	leases, err := c.Leases(ctx, id)
	if err != nil || len(leases) == 0 {
		return
	}
	names := make([]string, 0, 5)
	for _, l := range leases[:min(len(leases), cap(names))] {
		names = append(names, l.ID)
	}
	more := ""
	if len(leases) > len(names) {
		more = ", …"
	}
	e.say("warning: the deadline passed with %s still held: %s%s", count(len(leases), "lease"),
		console.Printable(strings.Join(names, ", ")), more)
}

// waitDrained blocks until the member is drained, with a line of progress on stderr. It tolerates a lack of answers for
// a while, as during a change of leader.
func (e *environment) waitDrained(ctx context.Context, c *client.Client, id uint64, deadline time.Duration) error {
	p := console.NewLine(e.stderr)
	start := time.Now()
	var trouble error
	for {
		p.Show(fmt.Sprintf("member %d is draining", id), time.Since(start), deadline)
		m, err := oneMember(ctx, c, id)
		var refusal *client.Error
		switch {
		case err == nil && m.DrainState == client.DrainDrained:
			p.End()
			return nil
		case err == nil && m.DrainState == client.DrainActive:
			p.End()
			return fmt.Errorf("the drain of member %d was cancelled", id)
		case errors.As(err, &refusal) && refusal.Status < 500:
			p.End()
			return err
		}
		trouble = err
		select {
		case <-time.After(drainPoll):
		case <-ctx.Done():
			p.End()
			if errors.Is(ctx.Err(), context.Canceled) {
				e.say("the drain of member %d continues; \"muster member resume %d\" cancels it", id, id)
				return ctx.Err()
			}
			if trouble != nil {
				return fmt.Errorf("it is unknown whether member %d is drained: %w", id, trouble)
			}
			return fmt.Errorf("member %d is still draining after %s", id, time.Since(start).Round(time.Second))
		}
	}
}

// oneMember reads one member with a single short request.
func oneMember(ctx context.Context, c *client.Client, id uint64) (client.Member, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return c.Member(ctx, id)
}
