package cli

import (
	"github.com/musterhq/muster/client"
	"github.com/spf13/cobra"
)

func newAutopilotCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "autopilot",
		Short: "Show the health of the members as the leader sees it",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.client()
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
			healthy := "healthy"
			if !state.Healthy {
				healthy = "not healthy"
			}
			env.say("the cluster is %s and survives the loss of %d voters; leader: %s", healthy, state.FailureTolerance, cell(state.LeaderNodeID))
			return list(env, state.Servers,
				[]string{"ID", "STATUS", "HEALTHY", "VOTER", "LEADER", "STABLE SINCE", "RAFT ADDRESS"},
				func(s client.AutopilotServer) []any {
					return []any{s.NodeID, s.NodeStatus, s.Healthy, s.HasVotingRights, s.IsLeader, s.StableSince, s.RaftAddress}
				})
		},
	}
}
