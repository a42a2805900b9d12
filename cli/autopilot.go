package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"muster/client"
)

func newAutopilotCommand(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "autopilot",
		Short: "Show the health of the members as the leader sees it, and why each has its role",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.reader(cmd.Context())
			if err != nil {
				return err
			}
			state, err := c.Autopilot(cmd.Context())
			if err != nil {
				return err
			}
			if env.output == "json" {
				return env.json(state)
			}
			env.say("%s", verdict(&state))
			if state.Spread != "" {
				env.say("%s (muster autopilot zones)", state.Spread)
			}
			return list(env, state.Servers,
				[]string{"ID", "NAME", "STATUS", "HEALTHY", "ROLE", "LEADER", "ZONE", "LAG", "STABLE SINCE", "REASON"},
				func(s client.AutopilotServer) []any {
					return []any{s.NodeID, s.Name, statusSince(s.NodeStatus, s.DownSince), s.Healthy,
						cmp.Or(s.Role, "member"), s.IsLeader, s.Zone,
						strconv.FormatUint(s.Lag, 10), s.StableSince, s.Reason}
				})
		},
	}
	cmd.AddCommand(newAutopilotConfigCommand(env), newAutopilotZonesCommand(env))
	return staleFlag(cmd, env)
}

// verdict returns autopilot's judgement of the whole cluster, in a sentence.
func verdict(state *client.Autopilot) string {
	if state.LeaderNodeID == 0 {
		return "without a leader the health of the cluster is unknown"
	}
	healthy := "healthy"
	if !state.Healthy {
		healthy = "not healthy"
	}
	return fmt.Sprintf("the cluster is %s and survives the loss of %s; leader: %d", healthy,
		count(state.FailureTolerance, "voter"), state.LeaderNodeID)
}

// newAutopilotZonesCommand makes the command that shows the cost of losing each zone.
func newAutopilotZonesCommand(env *environment) *cobra.Command {
	return staleFlag(&cobra.Command{
		Use:   "zones",
		Short: "Show for each zone whether the cluster survives its loss, and why not",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.reader(cmd.Context())
			if err != nil {
				return err
			}
			state, err := c.Autopilot(cmd.Context())
			if err != nil {
				return err
			}
			zoned := func(s client.AutopilotServer) bool { return s.Zone != "" }
			switch {
			case state.Spread != "":
				env.say("%s", state.Spread)
			case slices.ContainsFunc(state.Servers, zoned):
				env.say("without a leader the cost of losing a zone is unknown")
			default:
				env.say("no member has a zone; set one with muster serve --zone NAME")
			}
			return list(env, state.Zones,
				[]string{"ZONE", "SURVIVABLE", "VOTERS", "STAND-BYS", "ELIGIBLE", "ALIVE", "MEMBERS", "REASON"},
				func(z client.AutopilotZone) []any {
					return []any{cmp.Or(z.Name, "-"), z.Survivable, z.Voters, z.StandBys, z.Eligible, z.Alive, z.Members,
						z.Reason}
				})
		},
	}, env)
}

// newAutopilotConfigCommand makes the command that shows the settings, or changes them with NAME=VALUE.
func newAutopilotConfigCommand(env *environment) *cobra.Command {
	return staleFlag(&cobra.Command{
		Use:   "config [NAME=VALUE…]",
		Short: "Show or change autopilot's settings",
		RunE: func(cmd *cobra.Command, args []string) error {
			fields := map[string]any{}
			for _, arg := range args {
				name, value, ok := strings.Cut(arg, "=")
				if !ok {
					return usagef(cmd, "%q is not NAME=VALUE", arg)
				}
				fields[name] = settingValue(value)
			}
			whom := env.client
			if len(fields) == 0 {
				whom = env.reader
			}
			c, err := whom(cmd.Context())
			if err != nil {
				return err
			}
			var config client.AutopilotConfig
			if len(fields) == 0 {
				config, err = c.AutopilotConfig(cmd.Context())
			} else {
				config, err = c.SetAutopilotConfig(cmd.Context(), fields)
			}
			if err != nil {
				return err
			}
			if env.output == "json" {
				return env.json(config)
			}
			return env.table([]string{"SETTING", "VALUE"}, [][]any{
				{"maxVoters", config.MaxVoters}, {"standBys", config.StandBys}, {"stabilization", config.Stabilization},
				{"lastContactThreshold", config.LastContactThreshold}, {"maxLagRevisions", config.MaxLagRevisions},
				{"maxLagTime", config.MaxLagTime},
				{"redundancyZones", config.RedundancyZones}, {"upgradeMigration", config.UpgradeMigration},
				{"cleanupDeadMembers", config.CleanupDeadMembers}, {"deadAfter", config.DeadAfter},
				{"minQuorum", config.MinQuorum},
			})
		},
	}, env)
}

// settingValue parses a JSON number, boolean or list; any other text is a string.
func settingValue(text string) any {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n
	}
	if text == "true" || text == "false" {
		return text == "true"
	}
	if strings.HasPrefix(text, "[") && json.Valid([]byte(text)) {
		return json.RawMessage(text)
	}
	return text
}
