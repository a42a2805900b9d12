package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"muster/cluster/autopilot"
	"muster/store"
)

// SchemaState has the schema versions of the database and of this leader's binary, and the members that block a newer
// one.
type SchemaState struct {
	Applied int64          `json:"applied"`
	Latest  int64          `json:"latest"`
	Held    []SchemaHolder `json:"heldBackBy"`
}

// SchemaHolder is a member that blocks a newer schema.
type SchemaHolder struct {
	NodeID    uint64 `json:"nodeId"`
	Name      string `json:"name"`
	Version   string `json:"binaryVersion"`
	MaxSchema int64  `json:"maxSchema"`
	Status    string `json:"status"`
	Reason    string `json:"reason"`
}

// Schema compares the schema of the database with the versions that members support. It ignores members that have been
// silent for longer than autopilot's deadAfter, and machines that joined by HTTP only, which never read the database.
func (c *Cluster) Schema(ctx context.Context, from store.Consistency) (SchemaState, error) {
	out := SchemaState{Latest: store.LatestSchema(), Held: []SchemaHolder{}}
	var err error
	if out.Applied, err = c.appliedSchema(ctx, from); err != nil || out.Applied >= out.Latest {
		return out, err
	}
	cfg, _, err := c.settings.Get(ctx, from)
	if err != nil {
		return out, err
	}
	members, err := c.Store.Members.List(ctx, from)
	if err != nil {
		return out, err
	}
	silence := map[uint64]time.Duration{}
	if in := c.input.Load(); in != nil {
		for i := range in.Members {
			o := &in.Members[i]
			since := o.LastContact
			if since.IsZero() {
				since = in.LeaderSince
			}
			silence[o.NodeID] = time.Since(since)
		}
	}
	for i := range members {
		m := &members[i]
		if m.MaxSchema == 0 || m.MaxSchema >= out.Latest {
			continue
		}
		h := SchemaHolder{
			NodeID:    m.NodeID,
			Name:      m.Name,
			Version:   m.BinaryVersion,
			MaxSchema: m.MaxSchema,
			Status:    c.Status(m),
			Reason: fmt.Sprintf("runs %s, which knows the schema up to %d: start a newer muster there", m.BinaryVersion,
				m.MaxSchema),
		}
		if autopilot.Gone(h.Status) {
			if silence[m.NodeID] > cfg.DeadAfter.Std() {
				continue
			}
			h.Reason = fmt.Sprintf("does not answer, and last supported the schema up to %d: start a newer muster "+
				"there, remove the member or exclude it", m.MaxSchema)
		}
		out.Held = append(out.Held, h)
	}
	return out, nil
}

// appliedSchema returns the schema version of the leader's database, or of this member's replica.
func (c *Cluster) appliedSchema(ctx context.Context, from store.Consistency) (int64, error) {
	if from == store.Stale {
		replica, err := c.Store.Replica(ctx, 0)
		return replica.Schema, err
	}
	if n := c.Store.AppliedSchema(); n != 0 {
		return n, nil
	}
	return 0, store.ErrNotLeader
}

// Upgrade returns which members run which version, which one to restart next, and why none may be restarted now. An
// empty target means the newest running version. From this member's replica alone none may be restarted.
func (c *Cluster) Upgrade(ctx context.Context, from store.Consistency, target string) (autopilot.Upgrade, error) {
	in := autopilot.UpgradeInput{State: c.Autopilot(), Target: target}
	var err error
	if in.Schema, err = c.appliedSchema(ctx, from); err != nil {
		return autopilot.Upgrade{}, err
	}
	if from == store.Stale {
		if in.State, err = c.Remembered(ctx); err != nil {
			return autopilot.Upgrade{}, err
		}
	}
	if in.Config, _, err = c.settings.Get(ctx, from); err != nil {
		return autopilot.Upgrade{}, err
	}
	members, err := c.Store.Members.List(ctx, from)
	if err != nil {
		return autopilot.Upgrade{}, err
	}
	for i := range members {
		m := &members[i]
		in.Binaries = append(in.Binaries, autopilot.Binary{
			NodeID:    m.NodeID,
			Version:   m.BinaryVersion,
			MaxSchema: m.MaxSchema,
		})
	}
	if from == store.Stale {
		up := autopilot.PlanUpgrade(in, time.Now())
		up.Wait = []string{"no leader was asked, so the health of the members is unknown"}
		return up, nil
	}
	if err := c.upgradeWaits(ctx, &in); err != nil {
		return autopilot.Upgrade{}, err
	}
	return autopilot.PlanUpgrade(in, time.Now()), nil
}

// upgradeWaits reads the other reasons against a restart now: what it would interrupt, and what would keep a member
// out.
func (c *Cluster) upgradeWaits(ctx context.Context, in *autopilot.UpgradeInput) error {
	if now := c.input.Load(); now != nil {
		in.LeaderSince = now.LeaderSince
	}
	rotations, err := c.Store.Authorities.Rotations(ctx, store.AsLeader)
	if err != nil {
		return err
	}
	for _, r := range rotations {
		in.Wait = append(in.Wait, fmt.Sprintf("a rotation of the %s authority is in progress: muster ca status", r.Kind))
	}
	backups, err := c.Store.Backups.List(ctx, store.AsLeader)
	if err != nil && !errors.Is(err, store.ErrOldSchema) {
		return err
	}
	for i := range backups {
		if b := &backups[i]; b.Active() {
			in.Wait = append(in.Wait, "a backup is being made and would start again: muster backup status")
		}
	}
	expiries, err := c.Store.Certificates.Expiries(ctx, store.AsLeader)
	for i := range expiries {
		if e := &expiries[i]; e.NodeID != 0 {
			in.Leaves = append(in.Leaves, autopilot.Leaf{NodeID: e.NodeID, Kind: e.Kind, NotAfter: e.NotAfter})
		}
	}
	return err
}

// Migrate brings the database to the schema of this leader's binary. Members in exclude do not block it, provided that
// they do not answer; when such a member returns it replicates but does not lead until it is upgraded. It rejects
// numbers in exclude that are not members, as probable mistakes.
func (c *Cluster) Migrate(ctx context.Context, actor store.Actor, exclude []uint64) (SchemaState, error) {
	state, err := c.Schema(ctx, store.AsLeader)
	if err != nil {
		return state, err
	}
	members, err := c.Store.Members.List(ctx, store.Linearisable)
	if err != nil {
		return state, err
	}
	for _, id := range exclude {
		if !slices.ContainsFunc(members, func(m store.Member) bool { return m.NodeID == id }) {
			return state, &store.Refusal{Code: store.Invalid, Message: fmt.Sprintf("exclude: node %d is not a member", id)}
		}
	}
	for _, h := range state.Held {
		switch {
		case !slices.Contains(exclude, h.NodeID):
			return state, &store.Refusal{Code: store.Conflict,
				Message: fmt.Sprintf("node %d blocks the schema: it %s", h.NodeID, h.Reason)}
		case !autopilot.Gone(h.Status):
			return state, &store.Refusal{Code: store.Conflict, Message: fmt.Sprintf("node %d cannot be excluded while it "+
				"answers: start a newer muster there", h.NodeID)}
		}
	}
	if err := c.Store.Migrate(ctx, actor, state.Latest); err != nil {
		return state, err
	}
	return SchemaState{Applied: state.Latest, Latest: state.Latest, Held: []SchemaHolder{}}, nil
}

// upgrade applies a newer schema as soon as every live member supports it.
func (t *term) upgrade(ctx context.Context) error {
	state, err := t.Schema(ctx, store.AsLeader)
	if err != nil || state.Applied >= state.Latest || len(state.Held) > 0 {
		return err
	}
	t.log.Info("every live member supports the newer schema", "from", state.Applied, "to", state.Latest)
	return t.Store.Migrate(ctx, t.actor(), state.Latest)
}
