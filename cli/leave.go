package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"muster/certs"
	"muster/cli/console"
	"muster/client"
	"muster/cluster/datadir"
	"muster/store"
)

const (
	leaveGrace = 5 * time.Minute  // validity of a departure's token after the deadline
	leaveEnds  = 15 * time.Second // for the member's process to exit after its removal
	leavePoll  = 100 * time.Millisecond
)

// departure is one run of "muster leave".
type departure struct {
	env      *environment
	owned    *datadir.Owned
	deadline time.Duration
	force    bool
}

func newLeaveCommand(env *environment) *cobra.Command {
	d := departure{env: env}
	var yes bool
	cmd := &cobra.Command{
		Use:   "leave --data DIR",
		Short: "Take the member of this machine out of its cluster for good",
		Long: `Drain the member of DIR, wait for its leases, make it give away leadership and its vote, remove it, and wait
until its process has ended. DIR is marked: it never starts as a member again. "muster detach" can turn it into a
cluster of its own. The owner of the files, or root, needs no token. After an interruption the member stays draining or
drained: run the command again, or "muster member resume".`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case env.data == "":
				return usagef(cmd, "--data is missing")
			case d.deadline < 0 || d.deadline > time.Hour:
				return usagef(cmd, "--deadline %s is not between 0s and 1h", d.deadline)
			}
			return d.run(cmd.Context(), yes)
		},
	}
	cmd.Flags().DurationVar(&d.deadline, "deadline", time.Minute, "how long to wait for leases, at most 1h")
	cmd.Flags().BoolVar(&d.force, "force", false, "even with leases still held, and at the cost of the quorum")
	return yesFlag(cmd, &yes)
}

func (d *departure) run(ctx context.Context, yes bool) (err error) {
	if d.owned, err = datadir.OpenOwned(d.env.data); errors.Is(err, datadir.ErrRemoved) {
		return d.env.done("the member of %s has left its cluster already", d.env.data)
	}
	if err != nil {
		return err
	}
	if !d.owned.Running() {
		return fmt.Errorf("the member of %s does not run, so it cannot be drained: start it first, or remove it on another "+
			"member with muster member remove %d --force", d.env.data, d.owned.NodeID())
	}
	self, err := d.mayLeave(ctx)
	if err != nil {
		return err
	}
	if err := d.env.confirm(yes, "take member %d (%s) out of its cluster for good?", self.NodeID, self.Name); err != nil {
		return err
	}
	c, err := d.client(ctx)
	if err != nil {
		return err
	}
	if err := d.drain(ctx, c, self.NodeID); err != nil {
		return err
	}
	tokens, err := during(d.env, "the member is being removed", func() (int, error) {
		return c.RemoveMember(ctx, self.NodeID, d.force)
	})
	if err != nil {
		return fmt.Errorf("%w\nmember %d is drained and still a member: run muster leave again, or take it back with muster "+
			"member resume %d", err, self.NodeID, self.NodeID)
	}
	if tokens > 0 && d.env.output != "json" {
		d.env.say("the join keys have changed; %s", ended(tokens))
	}
	end := func() error { return d.awaitEnd(ctx) }
	if err := console.While(d.env.stderr, "waiting for its process to end", end); err != nil {
		return err
	}
	return d.env.done("member %d (%s) has left; %s is of no use to the cluster any more",
		self.NodeID, self.Name, d.env.data)
}

// mayLeave finds the member, and refuses a hopeless departure before any change.
func (d *departure) mayLeave(ctx context.Context) (self client.Member, err error) {
	c, err := d.client(ctx)
	if err != nil {
		return self, err
	}
	members, err := c.Members(ctx)
	if err != nil {
		return self, err
	}
	heirs := 0
	for _, m := range members {
		switch {
		case m.NodeID == d.owned.NodeID():
			self = m
		case m.Status == "alive" && m.Mode != store.ModeReplicate && m.DrainState == client.DrainActive:
			heirs++
		}
	}
	switch {
	case self.NodeID == 0:
		return self, fmt.Errorf("node %d is no member of the cluster any more", d.owned.NodeID())
	case heirs == 0:
		return self, fmt.Errorf("member %d cannot leave: no other member is alive that could vote in its place. To give up "+
			"the cluster, stop its members", self.NodeID)
	}
	return self, nil
}

// client makes a client with the token of the command line or, without one, with a token that the owner of the files
// makes for this departure. It uses the addresses of the other members, because this member stops in the middle.
func (d *departure) client(ctx context.Context) (*client.Client, error) {
	if d.env.made != nil {
		return d.env.made, nil
	}
	cfg, err := d.env.config()
	if err != nil {
		return nil, err
	}
	if d.env.tokenless {
		if cfg.Token, err = d.token(ctx); err != nil {
			return nil, err
		}
		d.env.tokenless = false
	}
	for range 2 { // the second time with the addresses of all members
		if d.env.made, err = client.New(cfg); err != nil {
			return nil, err
		}
		if _, err = d.env.client(ctx); err != nil {
			d.env.made = nil
			return nil, err
		}
		members, err := d.env.made.Members(ctx)
		if err != nil {
			return nil, err
		}
		for _, m := range members {
			if m.NodeID != d.owned.NodeID() && m.Status == "alive" {
				cfg.Addrs = append(cfg.Addrs, m.APIAddress)
			}
		}
	}
	return d.env.made, nil
}

// token lets the member make a token for this departure.
func (d *departure) token(ctx context.Context) (string, error) {
	secret := certs.NewSecret()
	q := datadir.TokenRequest{
		ID:    store.NewID(),
		Hash:  certs.HashSecret(secret),
		Scope: store.ScopeClusterManage,
		TTL:   int64((d.deadline + drainGrace + leaveGrace) / time.Second),
	}
	q.Host, q.User = hostAndUser()
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	err := d.owned.MakeToken(ctx, q)
	var refused *datadir.RefusedError
	if err != nil && !errors.As(err, &refused) {
		return "", fmt.Errorf("%w: the member of %s cannot have a token made now (%v). Nothing was done", client.ErrNoLeader,
			d.env.data, err)
	}
	return secret, err
}

// drain drains the member, and fails when leases are still held at the deadline.
func (d *departure) drain(ctx context.Context, c *client.Client, id uint64) error {
	dctx, cancel := context.WithTimeout(ctx, d.deadline+drainGrace)
	defer cancel()
	begin := ctx
	if d.deadline == 0 {
		begin = dctx
	}
	state, err := c.DrainMember(begin, id, d.deadline)
	if err == nil && state != client.DrainDrained {
		err = d.env.waitDrained(dctx, c, id, d.deadline)
	}
	if err != nil || d.force {
		return err
	}
	leases, err := c.Leases(ctx, id)
	if err != nil {
		return err
	}
	if len(leases) > 0 {
		d.env.heldLeases(ctx, c, id)
		return fmt.Errorf(
			"member %d does not leave: the deadline passed with %s still held. It is drained: run muster leave "+
				"again with a longer --deadline or with --force, or take it back with muster member resume %d", id,
			count(len(leases), "lease"), id)
	}
	return nil
}

// awaitEnd blocks until the member's process has exited and its directory is marked.
func (d *departure) awaitEnd(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, leaveEnds)
	defer cancel()
	for d.owned.Running() {
		select {
		case <-time.After(leavePoll):
		case <-ctx.Done():
			return fmt.Errorf("the member was removed, and its process still runs after %s: stop it", leaveEnds)
		}
	}
	if _, err := datadir.OpenOwned(d.env.data); errors.Is(err, datadir.ErrRemoved) || os.IsNotExist(err) {
		return nil
	} else if err != nil {
		return err
	}
	return fmt.Errorf("the member was removed and has ended, but %s is not marked: do not start it again", d.env.data)
}
