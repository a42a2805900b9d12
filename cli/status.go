package cli

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"muster/client"
)

// addressStatus is the answer of one address, or the reason for its absence.
type addressStatus struct {
	Address string `json:"address"`
	Error   string `json:"error,omitempty"`
	*client.Status
}

func newStatusCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the status at each address; fails when none answers",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := env.config()
			if err != nil {
				return err
			}
			all, err := client.New(cfg)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), 5*time.Second)
			defer cancel()
			found, err := askEach(ctx, cfg, all.Addrs())
			if err != nil {
				return err
			}
			if err := list(env, found,
				[]string{"ADDRESS", "ID", "NAME", "ROLE", "READY", "LEADER", "REVISION", "SCHEMA", "VERSION",
					"CLUSTER"},
				statusRow); err != nil {
				return err
			}
			answered := false
			for _, f := range found {
				answered = answered || f.Status != nil
				if env.output == "table" {
					for _, text := range f.remarks() {
						env.say("%s: %s", f.Address, text)
					}
				}
			}
			if !answered {
				return client.ErrNoServer
			}
			return nil
		},
	}
}

// remarks returns sentences below the table: why there is no answer, why the member is not ready, and its notices.
func (s addressStatus) remarks() []string {
	switch {
	case s.Status == nil:
		return []string{s.Error}
	case s.Reason != "":
		return append([]string{s.Reason}, s.Notices...)
	}
	return s.Notices
}

// askEach asks all addresses at once.
func askEach(ctx context.Context, cfg client.Config, addrs []string) ([]addressStatus, error) {
	found := make([]addressStatus, len(addrs))
	var wait sync.WaitGroup
	for i, addr := range addrs {
		cfg.Addrs = []string{addr}
		c, err := client.New(cfg)
		if err != nil {
			return nil, err
		}
		found[i].Address = addr
		wait.Go(func() {
			status, err := c.Status(ctx)
			if err == nil {
				found[i].Status = &status
				return
			}
			found[i].Error = err.Error()
			var none *client.NoServerError
			if errors.As(err, &none) && len(none.Tried) == 1 {
				found[i].Error = none.Tried[0].Err.Error() // without the address: the table shows it
			}
		})
	}
	wait.Wait()
	return found, nil
}

func statusRow(s addressStatus) []any {
	if s.Status == nil {
		return []any{s.Address, "", "", "no answer", false, "", "", "", "", ""}
	}
	in := s.Cluster
	if in == nil {
		in = &client.ClusterStatus{}
	}
	return []any{s.Address, in.NodeID, s.Name, in.Role, s.Ready, in.LeaderNodeID, s.Revision, s.SchemaVersion,
		s.Version, in.ClusterID}
}
