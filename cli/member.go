package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"muster/cli/console"
	"muster/client"
	"muster/internal/naming"
)

func newMemberCommand(env *environment) *cobra.Command {
	group := newGroup("member", "Show and change one member")
	group.Long = group.Short + ". ID is the member's number, name, UUID, address or host name."
	group.AddCommand(
		newMembersCommand(env, "list"),
		newMemberShowCommand(env),
		newMemberDrainCommand(env),
		newMemberChange(env, "resume", "End or cancel the drain of a member", "takes part again",
			(*client.Client).ResumeMember),
		newMemberChange(env, "promote", "Make a member a voter now", "is a voter", (*client.Client).PromoteMember),
		newMemberRemoveCommand(env),
	)
	return group
}

func newMemberShowCommand(env *environment) *cobra.Command {
	return staleFlag(&cobra.Command{
		Use:   "show ID",
		Short: "Show one member",
		Args:  exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.reader(cmd.Context())
			if err != nil {
				return err
			}
			m, err := findMember(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if env.output == "json" {
				return env.json(m)
			}
			var labels []string
			for _, name := range slices.Sorted(maps.Keys(m.Labels)) {
				labels = append(labels, name+"="+m.Labels[name])
			}
			return env.table([]string{"ID", console.Cell(m.NodeID)}, [][]any{
				{"NAME", m.Name}, {"UUID", m.ID}, {"STATUS", status(m)}, {"DOWN SINCE", m.DownSince}, {"LEFT AT", m.LeftAt},
				{"ROLE", role(m)}, {"LEADER", m.IsLeader},
				{"MODE", m.Mode}, {"ZONE", m.Zone}, {"DRAIN", m.DrainState}, {"DRAIN CHANGED", m.DrainUpdatedAt},
				{"API ADDRESS", m.APIAddress}, {"RAFT ADDRESS", m.RaftAddress}, {"OVERLAY IP", m.OverlayIP},
				{"VERSION", m.BinaryVersion}, {"LABELS", strings.Join(labels, ", ")},
			})
		},
	}, env)
}

// newMemberChange makes a command that changes one member and has no flags.
func newMemberChange(env *environment, name, short, outcome string, change func(*client.Client, context.Context,
	uint64) error) *cobra.Command {
	return &cobra.Command{
		Use:   name + " ID",
		Short: short,
		Args:  exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd.Context())
			if err != nil {
				return err
			}
			id, err := memberID(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if err := change(c, cmd.Context(), id); err != nil {
				return missing(err, "member", args[0])
			}
			return env.done("member %d %s", id, outcome)
		},
	}
}

func newMemberRemoveCommand(env *environment) *cobra.Command {
	var force, yes bool
	remove := func(c *client.Client, ctx context.Context, id uint64) error {
		cost := env.zoneCost(ctx, c, id)
		if force {
			if err := env.confirm(yes, "remove member %d for good, without a drain?%s", id, cost.question()); err != nil {
				return err
			}
		}
		cost.warn(env)
		tokens, err := during(env, "the member is being removed", func() (int, error) {
			return c.RemoveMember(ctx, id, force)
		})
		if err == nil && tokens > 0 && env.output != "json" {
			env.say("the join keys have changed; %s", ended(tokens))
		}
		return err
	}
	cmd := newMemberChange(env, "remove", "Remove a member for good: its identity is revoked and the keys change",
		"is removed", remove)
	cmd.Flags().BoolVar(&force, "force", false, "even if it is not drained, and at the cost of the quorum")
	return yesFlag(cmd, &yes)
}

// zoneCost describes what a zone loses by a drain or removal; empty if nothing.
type zoneCost string

func (e *environment) zoneCost(ctx context.Context, c *client.Client, id uint64) zoneCost {
	m, _ := oneMember(ctx, c, id)
	return zoneCost(console.Printable(m.ZoneCost))
}

func (z zoneCost) question() string {
	if z == "" {
		return ""
	}
	return " It costs a zone: " + string(z)
}

func (z zoneCost) warn(env *environment) {
	if z != "" {
		env.say("warning: this costs a zone: %s", string(z))
	}
}

// memberID returns the number of the named member; only a name, UUID or address needs a request to the server.
func memberID(ctx context.Context, c *client.Client, text string) (uint64, error) {
	if id, err := strconv.ParseUint(text, 10, 64); err == nil {
		return id, nil
	}
	m, err := findMember(ctx, c, text)
	return m.NodeID, err
}

// findMember returns a member by its number, name, UUID, address or host name.
func findMember(ctx context.Context, c *client.Client, text string) (client.Member, error) {
	if id, err := strconv.ParseUint(text, 10, 64); err == nil {
		m, err := c.Member(ctx, id)
		return m, missing(err, "member", text)
	}
	members, err := c.Members(ctx)
	if err != nil {
		return client.Member{}, err
	}
	called := make([]naming.Member, len(members))
	for i, m := range members {
		called[i] = naming.Member{
			NodeID:      m.NodeID,
			ID:          m.ID,
			Name:        m.Name,
			RaftAddress: m.RaftAddress,
			APIAddress:  m.APIAddress,
			Status:      m.Status,
		}
	}
	found, err := naming.Resolve(called, text)
	if errors.Is(err, naming.ErrNone) {
		return client.Member{}, fmt.Errorf("there is no member %q", text)
	}
	for _, m := range members {
		if err == nil && m.NodeID == found.NodeID {
			return m, nil
		}
	}
	return client.Member{}, err
}

// newMembersCommand makes "members" and, under its other name, "member list".
func newMembersCommand(env *environment, use string) *cobra.Command {
	return staleFlag(&cobra.Command{
		Use:   use,
		Short: "List the members of the cluster",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.reader(cmd.Context())
			if err != nil {
				return err
			}
			members, err := c.Members(cmd.Context())
			if err != nil {
				return err
			}
			return printMembers(env, members)
		},
	}, env)
}

func printMembers(env *environment, members []client.Member) error {
	return list(env, members,
		[]string{"ID", "NAME", "STATUS", "ROLE", "LEADER", "DRAIN", "MODE", "ZONE", "API ADDRESS", "RAFT ADDRESS", "VERSION"},
		func(m client.Member) []any {
			return []any{m.NodeID, m.Name, status(m), role(m), m.IsLeader, m.DrainState, m.Mode, m.Zone, m.APIAddress,
				m.RaftAddress, m.BinaryVersion}
		})
}

// status returns a member's state: alive, down since its last answer, left after an announced exit, or unknown.
func status(m client.Member) string {
	return statusSince(m.Status, m.DownSince)
}

// statusSince formats a status for tables; since is the last answer of a member that is down.
func statusSince(status string, since time.Time) string {
	switch {
	case status != "down" || since.IsZero():
		return status
	case time.Since(since) < 12*time.Hour:
		return "down since " + since.UTC().Format("15:04:05Z")
	}
	return "down since " + since.UTC().Format("2006-01-02T15:04Z")
}

// role returns the member's role in Raft, from servers with three roles and from older ones with two.
func role(m client.Member) string {
	if m.Role != "" {
		return m.Role
	}
	return m.Suffrage
}
