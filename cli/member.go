package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"muster/client"
)

func newMemberCommand(env *environment) *cobra.Command {
	group := newGroup("member", "Show and change one member")
	group.Long = group.Short + ". ID is the member's number, its name or its UUID."
	group.AddCommand(
		newMemberShowCommand(env),
		newMemberDrainCommand(env),
		newMemberChange(env, "resume", "End or cancel the drain of a member", "takes part again", (*client.Client).ResumeMember),
		newMemberChange(env, "promote", "Make a member a voter now", "is a voter", (*client.Client).PromoteMember),
		newMemberRemoveCommand(env),
	)
	return group
}

func newMemberShowCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "show ID",
		Short: "Show one member",
		Args:  exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client()
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
			return env.table([]string{"ID", cell(m.NodeID)}, [][]any{
				{"NAME", m.Name}, {"UUID", m.ID}, {"STATUS", m.Status}, {"ROLE", role(m)}, {"LEADER", m.IsLeader},
				{"MODE", m.Mode}, {"DRAIN", m.DrainState}, {"DRAIN CHANGED", m.DrainUpdatedAt},
				{"API ADDRESS", m.APIAddress}, {"RAFT ADDRESS", m.RaftAddress}, {"OVERLAY IP", m.OverlayIP},
				{"VERSION", m.BinaryVersion}, {"LABELS", strings.Join(labels, ", ")},
			})
		},
	}
}

// newMemberChange makes a command that does one thing to one member, without flags.
func newMemberChange(env *environment, name, short, outcome string, change func(*client.Client, context.Context, uint64) error) *cobra.Command {
	return &cobra.Command{
		Use:   name + " ID",
		Short: short,
		Args:  exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client()
			if err != nil {
				return err
			}
			id, err := memberID(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if err := change(c, cmd.Context(), id); err != nil {
				return err
			}
			return env.done("member %d %s", id, outcome)
		},
	}
}

func newMemberRemoveCommand(env *environment) *cobra.Command {
	var force bool
	remove := func(c *client.Client, ctx context.Context, id uint64) error {
		tokens, err := c.RemoveMember(ctx, id, force)
		if err == nil && tokens > 0 && env.output != "json" {
			env.say("the join keys have changed; %s", ended(tokens))
		}
		return err
	}
	cmd := newMemberChange(env, "remove", "Remove a member for good: its identity is revoked and the keys change", "is removed", remove)
	cmd.Flags().BoolVar(&force, "force", false, "also a member that is not drained")
	return cmd
}

// memberID makes the member's number of what the person wrote; only a name or UUID needs a question to the server.
func memberID(ctx context.Context, c *client.Client, text string) (uint64, error) {
	if id, err := strconv.ParseUint(text, 10, 64); err == nil {
		return id, nil
	}
	m, err := findMember(ctx, c, text)
	return m.NodeID, err
}

// findMember finds a member by its number, name or UUID.
func findMember(ctx context.Context, c *client.Client, text string) (client.Member, error) {
	if id, err := strconv.ParseUint(text, 10, 64); err == nil {
		return c.Member(ctx, id)
	}
	members, err := c.Members(ctx)
	if err != nil {
		return client.Member{}, err
	}
	var found []client.Member
	for _, m := range members {
		if m.ID == strings.ToLower(text) {
			return m, nil
		}
		if m.Name == text {
			found = append(found, m)
		}
	}
	switch len(found) {
	case 0:
		return client.Member{}, fmt.Errorf("there is no member %q", text)
	case 1:
		return found[0], nil
	}
	return client.Member{}, fmt.Errorf("%d members are called %q: give the number", len(found), text)
}
