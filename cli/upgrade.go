package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"muster/cli/console"
	"muster/client"
	"muster/cluster/datadir"
)

const upgradePoll = time.Second

func newUpgradeCommand(env *environment) *cobra.Command {
	group := newGroup("upgrade", "Guide an upgrade: versions, the next member to restart, reasons to wait")
	group.AddCommand(newUpgradeStatusCommand(env), newUpgradePlanCommand(env), newUpgradeNextCommand(env))
	return group
}

func toFlag(cmd *cobra.Command, to *string) *cobra.Command {
	cmd.Flags().StringVar(to, "to", "", "target version (default: the newest that runs)")
	return cmd
}

func newUpgradeStatusCommand(env *environment) *cobra.Command {
	return newUpgradeView(env, "status", "Show which version and schema each member has, and whether the upgrade is done",
		func(up client.Upgrade) error {
			return list(env, up.Members,
				[]string{"ID", "NAME", "VERSION", "SCHEMA", "ROLE", "LEADER", "ZONE", "STATUS", "STATE"},
				func(m client.UpgradeMember) []any {
					return []any{m.NodeID, m.Name, m.Version, m.MaxSchema, cmp.Or(m.Role, "member"), m.IsLeader, m.Zone,
						statusSince(m.NodeStatus, m.DownSince), m.State}
				})
		})
}

func newUpgradePlanCommand(env *environment) *cobra.Command {
	return newUpgradeView(env, "plan", "Show the order of restarts, and the reasons to wait",
		func(up client.Upgrade) error {
			for _, why := range up.Wait {
				env.say("not now: %s", console.Printable(why))
			}
			left := slices.DeleteFunc(up.Members, func(m client.UpgradeMember) bool { return m.State == "upgraded" })
			return list(env, left, []string{"ID", "NAME", "ROLE", "ZONE", "VERSION", "STATE", "NOTE"},
				func(m client.UpgradeMember) []any {
					return []any{m.NodeID, m.Name, cmp.Or(m.Role, "member"), m.Zone, m.Version, m.State, m.Note}
				})
		})
}

// newUpgradeView makes a command that reads the state of the upgrade and shows it, after its summary.
func newUpgradeView(env *environment, use, short string, show func(client.Upgrade) error) *cobra.Command {
	var to string
	return staleFlag(toFlag(&cobra.Command{
		Use:   use,
		Short: short,
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			up, err := env.upgrade(cmd.Context(), to)
			if err != nil {
				return err
			}
			if env.output == "json" {
				return env.json(up)
			}
			env.say("%s", up.Summary)
			return show(up)
		},
	}, &to), env)
}

func (e *environment) upgrade(ctx context.Context, to string) (client.Upgrade, error) {
	c, err := e.reader(ctx)
	if err != nil {
		return client.Upgrade{}, err
	}
	up, err := c.Upgrade(ctx, to)
	return up, tooOld(err)
}

// tooOld explains the error of a leader without support for upgrades.
func tooOld(err error) error {
	var refusal *client.Error
	if errors.As(err, &refusal) && refusal.Status == http.StatusNotFound {
		return errors.New("the leader's muster is too old to lead an upgrade: restart a member that does not lead with the " +
			"new " +
			"version, and give it leadership with muster raft transfer")
	}
	return err
}

// rollout is one run of "muster upgrade next".
type rollout struct {
	env     *environment
	to      string
	member  string // wait for the turn of this member: "self" or a name; empty: of any member
	command string
	watch   bool
	timeout time.Duration

	client *client.Client
	id     uint64 // of member
	said   string
}

func newUpgradeNextCommand(env *environment) *cobra.Command {
	r := rollout{env: env}
	cmd := toFlag(&cobra.Command{
		Use:   "next",
		Short: "Wait until a member may be restarted, and print its name",
		Long: `Wait until a member may be restarted with the new version, and print its name.

With --exec the command restarts it: it runs in a shell with UPGRADE_ID, UPGRADE_NAME and UPGRADE_HOST in its
environment, for one member after the other, and the next one begins when the last one is healthy again. With --watch
the names are printed one after the other, for a program that restarts them. With --member the command waits only for
that member's turn; "self" is the member of --data, and the target version is then that of this program, unless --to is
given.`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if r.timeout < 0 {
				return usagef(cmd, "--timeout must not be negative")
			}
			if r.member == "self" && env.data == "" {
				return usagef(cmd, "--member self needs --data")
			}
			ctx := cmd.Context()
			if r.timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, r.timeout)
				defer cancel()
			}
			return r.run(ctx)
		},
	}, &r.to)
	cmd.Flags().StringVar(&r.command, "exec", "", "shell command that restarts the member")
	cmd.Flags().StringVar(&r.member, "member", "", "wait for the turn of this member; self: that of --data")
	cmd.Flags().BoolVar(&r.watch, "watch", false, "go on until the upgrade is done")
	cmd.Flags().DurationVar(&r.timeout, "timeout", 0, "give up after this time (default: never)")
	return cmd
}

func (r *rollout) run(ctx context.Context) (err error) {
	if r.client, err = r.env.client(ctx); err != nil {
		return err
	}
	switch {
	case r.member == "self":
		owned, err := datadir.OpenOwned(r.env.data)
		if err != nil {
			return err
		}
		r.id = owned.NodeID()
	case r.member != "":
		if r.id, err = memberID(ctx, r.client, r.member); err != nil {
			return err
		}
	}
	if r.id != 0 {
		r.to = cmp.Or(r.to, Version)
	}
	for {
		m, err := r.await(ctx)
		if err != nil || m == nil {
			return err
		}
		if err := r.restart(ctx, m); err != nil {
			return err
		}
		if r.command == "" && !r.watch {
			return nil
		}
		if err := r.back(ctx, m.NodeID); err != nil || r.id != 0 {
			return err
		}
	}
}

// look asks for the state of the upgrade, and retries while leadership changes.
func (r *rollout) look(ctx context.Context) (client.Upgrade, error) {
	for {
		up, err := r.client.Upgrade(ctx, r.to)
		var refusal *client.Error
		if err == nil || errors.As(err, &refusal) && refusal.Status < 500 {
			return up, tooOld(err)
		}
		if err := r.pause(ctx, "the cluster does not answer now: "+err.Error()); err != nil {
			return up, err
		}
	}
}

// pause waits a moment, and reports the reason once.
func (r *rollout) pause(ctx context.Context, why string) error {
	if why != r.said {
		r.said = why
		r.env.say("waiting: %s", console.Printable(why))
	}
	select {
	case <-time.After(upgradePoll):
		return nil
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return fmt.Errorf("not within %s: %s", r.timeout, why)
		}
		return ctx.Err()
	}
}

// await blocks until a member may be restarted and returns it; nil when the upgrade is done.
func (r *rollout) await(ctx context.Context) (*client.UpgradeMember, error) {
	for {
		up, err := r.look(ctx)
		if err != nil {
			return nil, err
		}
		left, own := 0, -1
		for i, m := range up.Members {
			if m.NodeID == r.id {
				own = i
			}
			if m.State != "upgraded" && m.State != "down" {
				left++
			}
			if m.NodeID == up.Next && (r.id == 0 || m.NodeID == r.id) {
				return &up.Members[i], nil
			}
		}
		switch {
		case r.id != 0 && own < 0:
			return nil, fmt.Errorf("member %d is not known to the leader as one that runs muster", r.id)
		case r.id != 0 && up.Members[own].State == "upgraded":
			r.env.say("member %d runs %s already", r.id, up.Target)
			return nil, nil
		case up.Done:
			r.env.say("%s", up.Summary)
			return nil, nil
		case left == 0 && !strings.Contains(up.Summary, "about to"):
			return nil, errors.New(up.Summary)
		}
		why := up.Summary
		if len(up.Wait) > 0 {
			why = strings.Join(up.Wait, "; ")
		}
		if err := r.pause(ctx, why); err != nil {
			return nil, err
		}
	}
}

// restart prints the next member, or restarts it.
func (r *rollout) restart(ctx context.Context, m *client.UpgradeMember) error {
	if m.Note != "" {
		r.env.say("%s: %s", console.Printable(m.Name), console.Printable(m.Note))
	}
	if r.command == "" {
		_, err := fmt.Fprintln(r.env.stdout, cmp.Or(console.Printable(m.Name), fmt.Sprint(m.NodeID)))
		return err
	}
	row, err := r.client.Member(ctx, m.NodeID)
	if err != nil {
		return err
	}
	host := ""
	if u, err := url.Parse(row.APIAddress); err == nil {
		host = u.Hostname()
	}
	r.env.say("restarting %s (%d)", console.Printable(m.Name), m.NodeID)
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", r.command)
	cmd.Stdout, cmd.Stderr = r.env.stderr, r.env.stderr
	cmd.Env = append(os.Environ(), fmt.Sprintf("UPGRADE_ID=%d", m.NodeID), "UPGRADE_NAME="+m.Name, "UPGRADE_HOST="+host)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("the restart of %s (%d) failed: %w", console.Printable(m.Name), m.NodeID, err)
	}
	return nil
}

// back blocks until a member runs the new version and all members are healthy.
func (r *rollout) back(ctx context.Context, id uint64) error {
	for {
		up, err := r.look(ctx)
		if err != nil {
			return err
		}
		why := fmt.Sprintf("member %d does not run %s yet", id, up.Target)
		for _, m := range up.Members {
			if m.NodeID != id || m.State != "upgraded" {
				continue
			}
			if len(up.Wait) == 0 {
				r.env.say("%s", up.Summary)
				return nil
			}
			why = strings.Join(up.Wait, "; ")
		}
		if err := r.pause(ctx, why); err != nil {
			return err
		}
	}
}
