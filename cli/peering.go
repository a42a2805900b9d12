package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"muster/cli/console"
	"muster/client"
)

func newPeeringCommand(env *environment) *cobra.Command {
	group := newGroup("peering", "Connect this cluster with others")
	group.Long = group.Short + `.

On one cluster "muster peering token NAME" makes a token; on the other "muster peering establish NAME TOKEN" uses it.
Each side has its own name for the peering. Each then sees the members of the other, until one side deletes the
peering.`
	group.AddCommand(newPeeringTokenCommand(env), newPeeringEstablishCommand(env), newPeeringListCommand(env),
		newPeeringShowCommand(env), newPeeringDeleteCommand(env), newPeeringMembersCommand(env))
	return group
}

func newPeeringTokenCommand(env *environment) *cobra.Command {
	var r client.PeeringTokenRequest
	var meta []string
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "token NAME",
		Short: "Make a token for another cluster to establish the peering; it alone is printed on stdout",
		Args:  exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if ttl < 0 || ttl == 0 && cmd.Flags().Changed("ttl") {
				return usagef(cmd, "--ttl must be more than 0s")
			}
			if ttl > 0 {
				r.TokenTTL = ttl.String()
			}
			if r.Meta, err = parsePairs(cmd, "meta", meta); err != nil {
				return err
			}
			r.PeerName = args[0]
			c, err := env.client(cmd.Context())
			if err != nil {
				return err
			}
			t, err := c.PeeringToken(cmd.Context(), r)
			if err != nil {
				return err
			}
			for _, w := range t.Warnings {
				env.say("warning: %s", w)
			}
			return env.secret(t, t.PeeringToken,
				"peering token for %s; it works once, and replaces an unused one", args[0])
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&meta, "meta", nil, "KEY=VALUE kept with the peering; repeatable")
	flags.StringSliceVar(&r.ServerExternalAddresses, "address", nil,
		"HOST:PORT for the other cluster to dial, instead of the members' advertised addresses; repeatable")
	flags.DurationVar(&ttl, "ttl", 0, "lifetime of the token (default: unlimited)")
	return cmd
}

func newPeeringEstablishCommand(env *environment) *cobra.Command {
	var meta []string
	cmd := &cobra.Command{
		Use:   "establish NAME TOKEN",
		Short: "Connect to the cluster that made the token; - reads it from stdin",
		Args:  exactly("NAME", "TOKEN"),
		RunE: func(cmd *cobra.Command, args []string) error {
			pairs, err := parsePairs(cmd, "meta", meta)
			if err != nil {
				return err
			}
			token := args[1]
			if token == "-" {
				data, err := io.ReadAll(io.LimitReader(env.stdin, 1<<20))
				if err != nil {
					return fmt.Errorf("the token cannot be read from stdin: %w", err)
				}
				token = string(data)
			}
			c, err := env.client(cmd.Context())
			if err != nil {
				return err
			}
			establish := func() error { return c.EstablishPeering(cmd.Context(), args[0], strings.TrimSpace(token), pairs) }
			if err := console.While(env.stderr, "the other cluster is asked", establish); err != nil {
				return err
			}
			return env.done("peering %s is established; it is ACTIVE in a moment", args[0])
		},
	}
	cmd.Flags().StringArrayVar(&meta, "meta", nil, "KEY=VALUE kept with the peering; repeatable")
	return cmd
}

func newPeeringListCommand(env *environment) *cobra.Command {
	return staleFlag(&cobra.Command{
		Use:   "list",
		Short: "List the peerings",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.reader(cmd.Context())
			if err != nil {
				return err
			}
			peerings, err := c.Peerings(cmd.Context())
			if err != nil {
				return err
			}
			return list(env, peerings,
				[]string{"NAME", "STATE", "SINCE", "DIRECTION", "DATACENTER", "IMPORTED", "EXPORTED", "REASON"},
				func(p client.Peering) []any {
					return []any{p.Name, p.State, p.StatusSince, direction(p), p.Remote.Datacenter,
						len(p.StreamStatus.ImportedServices),
						len(p.StreamStatus.ExportedServices), p.StatusReason}
				})
		},
	}, env)
}

func direction(p client.Peering) string {
	if p.Dialer {
		return "we dial"
	}
	return "they dial"
}

func newPeeringShowCommand(env *environment) *cobra.Command {
	return staleFlag(&cobra.Command{
		Use:   "show NAME",
		Short: "Show one peering, with the addresses that this cluster dials",
		Args:  exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.reader(cmd.Context())
			if err != nil {
				return err
			}
			p, err := c.Peering(cmd.Context(), args[0])
			if err != nil {
				return missing(err, "peering", args[0])
			}
			if env.output == "json" {
				return env.json(p)
			}
			var meta []string
			for _, k := range slices.Sorted(maps.Keys(p.Meta)) {
				meta = append(meta, k+"="+p.Meta[k])
			}
			when := func(t *time.Time) any {
				if t == nil {
					return ""
				}
				return *t
			}
			dialled, others := p.Addresses()
			return env.table([]string{"NAME", p.Name}, [][]any{
				{"ID", p.ID}, {"STATE", p.State}, {"SINCE", p.StatusSince}, {"REASON", p.StatusReason}, {"DELETED",
					when(p.DeletedAt)},
				{"DIRECTION", direction(p)}, {"DATACENTER", p.Remote.Datacenter}, {"PEER ID", p.PeerID}, {"SERVER NAME",
					p.PeerServerName},
				{"ADDRESSES", strings.Join(dialled, " ")}, {"NOT DIALLED", strings.Join(others, " ")}, {"META",
					strings.Join(meta, " ")},
				{"IMPORTED", strings.Join(p.StreamStatus.ImportedServices, " ")}, {"EXPORTED",
					strings.Join(p.StreamStatus.ExportedServices, " ")},
				{"HEARTBEAT", when(p.StreamStatus.LastHeartbeat)},
			})
		},
	}, env)
}

func newPeeringDeleteCommand(env *environment) *cobra.Command {
	var yes bool
	return yesFlag(&cobra.Command{
		Use:   "delete NAME",
		Short: "Delete a peering and its imported members; the other cluster is informed",
		Args:  exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd.Context())
			if err != nil {
				return err
			}
			// the server reports the deletion of an unknown name as a success
			if _, err := c.Peering(cmd.Context(), args[0]); err != nil {
				return missing(err, "peering", args[0])
			}
			if err := env.confirm(yes, "delete the peering %s? To establish it again you need a new token",
				args[0]); err != nil {
				return err
			}
			if err := c.DeletePeering(cmd.Context(), args[0]); err != nil {
				return err
			}
			return env.done("peering %s is being deleted", args[0])
		},
	}, &yes)
}

func newPeeringMembersCommand(env *environment) *cobra.Command {
	return staleFlag(&cobra.Command{
		Use:   "members NAME",
		Short: "List the members that the other cluster exports",
		Args:  exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.reader(cmd.Context())
			if err != nil {
				return err
			}
			members, err := c.PeerMembers(cmd.Context(), args[0])
			if err != nil {
				return missing(err, "peering", args[0])
			}
			return list(env, members,
				[]string{"NODE", "NAME", "HEALTH", "API", "RAFT", "ID"},
				func(m client.PeerMember) []any {
					return []any{m.NodeID, m.Name, m.Health, m.APIAddress, m.RaftAddress, m.ID}
				})
		},
	}, env)
}
