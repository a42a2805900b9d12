package cluster

import (
	"context"
)

// settleRecovery tells the members table of a recovery that this member has been through, before anything else is done
// with Raft's configuration.
func (t *term) settleRecovery(ctx context.Context) error {
	r, err := t.Dir.Recovery()
	if err != nil || r == nil {
		return err
	}
	if err := t.Store.Members.SettleRecovery(ctx, t.actor(), r.ID); err != nil {
		return err
	}
	t.log.Info("recovered", "recovery", r.ID, "voters", r.Voters)
	return t.Dir.RecoverySettled()
}
