package cluster

import (
	"context"
)

// settleRecovery tells the members table of a recovery that this member has been through, before anything else is done
// with Raft's configuration.
func (c *Cluster) settleRecovery(ctx context.Context) error {
	r, err := c.Dir.Recovery()
	if err != nil || r == nil {
		return err
	}
	if err := c.Store.Members.SettleRecovery(ctx, c.actor(), r.ID); err != nil {
		return err
	}
	c.log.Info("recovered", "recovery", r.ID, "voters", r.Voters)
	return c.Dir.RecoverySettled()
}
