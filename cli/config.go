package cli

import (
	"cmp"
	"strings"

	"github.com/spf13/cobra"

	"muster/client"
	"muster/node"
)

func newConfigCommand(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show which cluster the commands talk to, as whom, and where that was found",
		Args:  exactly(),
		RunE: func(*cobra.Command, []string) error {
			rows, err := env.origins()
			if err != nil {
				return err
			}
			return list(env, rows, []string{"NAME", "VALUE", "FROM"}, func(o origin) []any { return []any{o.Name, o.Value, o.From} })
		},
	}
	cmd.AddCommand(newConfigCheckCommand(env))
	return cmd
}

// newConfigCheckCommand makes a command with the flags of serve that checks them and starts nothing.
func newConfigCheckCommand(env *environment) *cobra.Command {
	f := serveFlags{Config: node.Default(), founding: node.DefaultFounding}
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Check the configuration of a member, as serve would read it, and start nothing",
		Args:  atMostOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				f.file = args[0]
			}
			if err := f.read(cmd); err != nil {
				return err
			}
			if f.JoinErr != nil {
				return f.JoinErr
			}
			if _, err := f.config(env, &service{}); err != nil {
				return err
			}
			return env.done("the configuration is good")
		},
	}
	f.register(cmd)
	return cmd
}

// origin is one thing that a command needs to reach a cluster, and what said it.
type origin struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	From  string `json:"from"`
}

// origins finds the cluster as every command does, and says where each part was found. The token itself is not shown.
func (e *environment) origins() ([]origin, error) {
	cfg, err := e.config()
	if err != nil {
		return nil, err
	}
	var data, env, dev client.Config
	if e.data != "" {
		if data, err = client.FromData(e.data); err != nil {
			return nil, err
		}
	}
	env = client.FromEnv()
	if len(e.addrs) == 0 && len(data.Addrs) == 0 && len(env.Addrs) == 0 {
		if dev, err = devConfig(); err != nil {
			return nil, err
		}
	}
	from := func(flag, in, out, made bool, name, variable string) string {
		switch {
		case flag:
			return name
		case in:
			return "--data " + e.data
		case out:
			return variable
		case made:
			return "./" + devData + `, made by "muster dev"`
		}
		return "nothing names one: the default"
	}
	token := "none"
	if cfg.Token != "" {
		token = "(not shown)"
	}
	return []origin{
		{"address", cmp.Or(strings.Join(cfg.Addrs, ","), client.DefaultAddr),
			from(len(e.addrs) > 0, len(data.Addrs) > 0, len(env.Addrs) > 0, len(dev.Addrs) > 0, "--addr", "MUSTER_ADDR")},
		{"token", token, from(e.tokenFile != "", data.Token != "", env.Token != "", dev.Token != "", "--token-file", "MUSTER_TOKEN")},
		{"ca", cmp.Or(cfg.CACertFile, "those of this machine"),
			from(e.caCert != "", data.CACertFile != "", env.CACertFile != "", dev.CACertFile != "", "--cacert", "MUSTER_CACERT")},
	}, nil
}
