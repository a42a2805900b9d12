package cli

import (
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"muster/certs"
	"muster/cluster/datadir"
)

func newDetachCommand(env *environment) *cobra.Command {
	var name, datacenter string
	var yes bool
	cmd := &cobra.Command{
		Use:   "detach --data DIR",
		Short: "Turn the data of a removed or stopped member into a new cluster of one",
		Long: `Turn DIR, the directory of a removed or stopped member, into the first member of a new cluster, with its own
id, keys, authorities and administrator's token. The new cluster keeps the settings, and the secrets that this member
can still open: a removed member cannot open secrets sealed after its removal. Members, tokens, enrollments, peerings
and the audit stay behind, and the tokens of the old cluster are void. The command does not contact the old cluster: a
member that was only stopped is still a member there, until "muster member remove ID --force". The old files are kept
in DIR/before-detach-TIME.`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if env.data == "" {
				return usagef(cmd, "--data is missing")
			}
			if cmd.Flags().Changed("datacenter") && !certs.ValidDatacenter(datacenter) {
				return usagef(cmd, "--datacenter must be a DNS label in lower case, not %q", datacenter)
			}
			d, err := datadir.OpenDetaching(env.data)
			if err != nil {
				return err
			}
			defer d.Close()
			if err := env.confirm(yes,
				"turn %s into a new cluster? It then no longer belongs to the old one", env.data); err != nil {
				return err
			}
			out, err := during(env, "the new cluster is being made", func() (datadir.Detachment, error) {
				return datadir.Detach(cmd.Context(), d, name, datacenter, Version, time.Now())
			})
			if err != nil {
				return err
			}
			return reportDetached(env, out)
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "name of the member in the new cluster (default: as in the old one)")
	cmd.Flags().StringVar(&datacenter, "datacenter", "", "datacenter of the new cluster (default: that of the old one)")
	return yesFlag(cmd, &yes)
}

func reportDetached(env *environment, out datadir.Detachment) error {
	if env.output == "json" {
		return env.json(out)
	}
	if out.Taken.From != "" {
		env.say("%s and %s of cluster %s came along",
			count(out.Taken.Settings, "setting"), count(out.Taken.Secrets, "secret"), out.Taken.From)
	}
	if out.Taken.Closed > 0 {
		env.say("warning: %s stayed behind: this member's right to open them ended with its removal",
			count(out.Taken.Closed, "secret"))
	}
	if !out.Removed {
		env.say("cluster %s still counts node %d as a member: remove it there with muster member remove %d --force",
			out.Was.ClusterID, out.Was.NodeID, out.Was.NodeID)
	}
	env.say("the old files are in %s; they hold keys of the old cluster: delete them when nothing is missing", out.Before)
	return env.done("%s is node %d of the new cluster %s; start it as before, its administrator's token is in %s",
		env.data, out.Node.NodeID, out.Node.ClusterID, filepath.Join(env.data, "admin.token"))
}
