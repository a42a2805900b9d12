package datadir

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/uuid"

	"muster/store"
)

// RaftDir holds the Raft log and its snapshots, below the data directory.
const RaftDir = "raft"

// recoveryFile marks a directory whose Raft configuration was forced. The first leader afterwards updates the members
// table by it.
const recoveryFile = "recovery.json"

// MirrorFile is the mirror of the database, in the data directory.
const MirrorFile = "muster.db"

// RecoveryMember is a survivor's view of a member.
type RecoveryMember struct {
	NodeID      uint64     `json:"nodeId"`
	Name        string     `json:"name"`
	Role        store.Role `json:"role"`
	RaftAddress string     `json:"raftAddress"`
	APIAddress  string     `json:"apiAddress,omitempty"`
	// Answers: a process at one of its addresses accepted a TCP connection just now. That counts as running, whatever it
	// answered.
	Answers bool   `json:"answers"`
	Said    string `json:"said,omitempty"` // its answer

	Version   string `json:"version,omitempty"`   // of its muster, as it last announced it
	MaxSchema int64  `json:"maxSchema,omitempty"` // the newest schema which that one knows; 0: unknown
}

// RecoveryPlan is the state of a stopped survivor.
type RecoveryPlan struct {
	ClusterID string           `json:"clusterId"`
	NodeID    uint64           `json:"nodeId"`
	Name      string           `json:"name"`
	Last      store.Entry      `json:"last"`     // of its Raft log
	Revision  uint64           `json:"revision"` // of its mirror
	Schema    int64            `json:"schema"`   // of its mirror; 0: unknown
	Known     int64            `json:"known"`    // the newest schema which the muster knows that has made the plan
	Members   []RecoveryMember `json:"members"`
	Applied   *Recovery        `json:"applied,omitempty"` // a recovery since the last start

	given []Place // addresses of others, from the operator
}

// Recovery is one forced Raft configuration.
type Recovery struct {
	ID        string      `json:"id"`
	ClusterID string      `json:"clusterId"`
	Template  uint64      `json:"template"`
	Voters    []uint64    `json:"voters"`
	Before    store.Entry `json:"before"` // end of the template's log
	After     store.Entry `json:"after"`  // with the forced configuration; zero until that is written
	At        time.Time   `json:"at"`
	Schema    int64       `json:"schema,omitempty"` // of the newest mirror among the survivors, as far as known
}

// PlanRecovery reads the state of a member that does not run, and checks whether other Raft servers run, at their known
// and their given addresses. It blocks for some seconds.
func PlanRecovery(ctx context.Context, d *Dir, given ...Place) (*RecoveryPlan, error) {
	n, err := d.Node()
	if err != nil {
		return nil, err
	}
	if n == nil {
		return nil, fmt.Errorf("%s is not the data directory of a member", d.Path)
	}
	p := &RecoveryPlan{
		ClusterID: n.ClusterID,
		NodeID:    n.NodeID,
		Name:      n.Name,
		Known:     store.LatestSchema(),
		given:     given,
	}
	if err := d.CheckRemoved(n); err != nil {
		return nil, err
	}
	if p.Applied, err = d.Recovery(); err != nil {
		return nil, err
	}
	if err := store.CheckRecoverable(d.file(RaftDir), n.NodeID); err != nil {
		return nil, err
	}
	c, members, err := store.MirrorMembers(d.file(MirrorFile))
	if err != nil { // the mirror is only a copy: node.json has the Raft servers, too
		members = []store.Member{{NodeID: n.NodeID, Name: n.Name, Role: store.RoleVoter, RaftAddress: n.RaftAddress}}
		for _, place := range n.Others {
			members = append(members, store.Member{NodeID: place.NodeID, Role: store.RoleVoter, RaftAddress: place.RaftAddress})
		}
	}
	p.Revision = c.Revision
	if p.Schema, err = store.MirrorSchema(d.file(MirrorFile)); err != nil {
		p.Schema = 0
	}
	if p.Last, err = store.LastEntry(d.file(RaftDir)); err != nil {
		return nil, err
	}
	for i := range members {
		m := &members[i]
		p.Members = append(p.Members, RecoveryMember{
			NodeID:      m.NodeID,
			Name:        m.Name,
			Role:        m.Role,
			RaftAddress: m.RaftAddress,
			APIAddress:  m.APIAddress,
			Version:     m.BinaryVersion,
			MaxSchema:   m.MaxSchema,
		})
	}
	if err := p.Ask(ctx, d, n); err != nil {
		return nil, err
	}
	return p, nil
}

// Survivor is the state of another survivor, from its plan.
type Survivor struct {
	NodeID        uint64
	Last          store.Entry
	Schema, Known int64 // see RecoveryPlan; 0: unknown
}

// schema returns the newest schema that a survivor knows of. The log of this one may have more than its mirror.
func (p *RecoveryPlan) schema(others []Survivor) int64 {
	newest := p.Schema
	for _, o := range others {
		newest = max(newest, o.Schema)
	}
	return newest
}

// CheckSchema returns why this muster must not be used for the recovery: it does not know the schema of the database,
// so the recovered cluster would have no member that can lead.
func (p *RecoveryPlan) CheckSchema(others ...Survivor) error { return p.checkSchema(p.schema(others)) }

func (p *RecoveryPlan) checkSchema(schema int64) error {
	if schema <= store.LatestSchema() {
		return nil
	}
	newer := ""
	for _, m := range p.Members {
		if m.MaxSchema >= schema && m.Version != "" {
			newer = fmt.Sprintf(" (node %d ran %s)", m.NodeID, m.Version)
			break
		}
	}
	return fmt.Errorf("the database has schema %d and this muster knows %d: a member with this one could not lead. "+
		"Recover and start the survivors with the newer muster%s", schema, store.LatestSchema(), newer)
}

// Behind lists, as sentences, the survivors whose muster does not know the schema of the database.
func (p *RecoveryPlan) Behind(others []Survivor) (list []string) {
	schema := p.schema(others)
	for _, o := range others {
		knows := o.Known
		for _, m := range p.Members {
			if m.NodeID == o.NodeID && knows == 0 {
				knows = m.MaxSchema
			}
		}
		if knows > 0 && knows < schema {
			list = append(list, fmt.Sprintf("the muster of node %d knows schema %d and the database has %d: it follows, and "+
				"leads once it has a newer one", o.NodeID, knows, schema))
		}
	}
	return list
}

// Check returns, as one sentence, why the recovery must not be applied here. Which log is the newest does not depend on
// schemas: terms and indices say it.
func (p *RecoveryPlan) Check(others []Survivor) error {
	if err := p.CheckSchema(others...); err != nil {
		return err
	}
	known := map[uint64]*RecoveryMember{}
	for i := range p.Members {
		known[p.Members[i].NodeID] = &p.Members[i]
	}
	seen := map[uint64]bool{p.NodeID: true}
	for _, o := range others {
		switch {
		case known[o.NodeID] == nil:
			return fmt.Errorf("node %d is not a member of this cluster", o.NodeID)
		case seen[o.NodeID]:
			return fmt.Errorf("node %d is named twice, or is this node itself", o.NodeID)
		case p.Last.Before(o.Last):
			return fmt.Errorf("node %d has the newer log (%s; here %s): apply the recovery there", o.NodeID, o.Last, p.Last)
		case p.Last == o.Last && o.NodeID < p.NodeID:
			return fmt.Errorf("node %d has the same log and the lower number: apply the recovery there, so that it is "+
				"applied once", o.NodeID)
		}
		seen[o.NodeID] = true
	}
	for _, m := range p.Members {
		if m.Answers {
			return &RunningError{m}
		}
	}
	return nil
}

// AskAgain checks again which members run, and then as Check does.
func (p *RecoveryPlan) AskAgain(ctx context.Context, d *Dir, others []Survivor) error {
	n, err := d.Node()
	if err != nil {
		return err
	}
	for i := range p.Members {
		p.Members[i].Answers, p.Members[i].Said = false, ""
	}
	if err := p.Ask(ctx, d, n); err != nil {
		return err
	}
	return p.Check(others)
}

// Voters lists the voters of the recovered cluster.
func (p *RecoveryPlan) Voters(others []Survivor) []uint64 {
	list := []uint64{p.NodeID}
	for _, o := range others {
		list = append(list, o.NodeID)
	}
	slices.Sort(list)
	return list
}

// ApplyRecovery forces the configuration upon this directory. The caller must not pass a plan that Check rejects. A
// copy of the Raft directory is kept. It may be repeated until the member has been started.
func ApplyRecovery(d *Dir, p *RecoveryPlan, others []Survivor, now time.Time) (*Recovery, error) {
	voters := p.Voters(others)
	if a := p.Applied; a != nil && a.Template == p.NodeID && a.After == p.Last && slices.Equal(a.Voters, voters) {
		return a, nil
	}
	r := &Recovery{
		ID:        uuid.NewString(),
		ClusterID: p.ClusterID,
		Template:  p.NodeID,
		Voters:    voters,
		Before:    p.Last,
		At:        now.UTC().Truncate(time.Second),
		Schema:    p.schema(others),
	}
	if err := copyDir(d.file(RaftDir), d.file(keptName(now))); err != nil {
		return nil, err
	}
	if err := d.forgetTwin(); err != nil {
		return nil, err
	}
	if err := d.saveRecovery(r); err != nil {
		return nil, err
	}
	if err := store.Reconfigure(d.file(RaftDir), r.Voters); err != nil {
		return nil, err
	}
	var err error
	if r.After, err = store.LastEntry(d.file(RaftDir)); err != nil {
		return nil, err
	}
	return r, d.saveRecovery(r)
}

func keptName(now time.Time) string {
	return "raft.before-recovery-" + now.UTC().Format("20060102T150405Z")
}

// AdoptRecovery replaces this directory's Raft log by the template's, from a bundle. The old one is kept.
func AdoptRecovery(d *Dir, p *RecoveryPlan, bundle string, now time.Time) (*Recovery, error) {
	fresh := d.file(RaftDir + ".adopt")
	if err := os.RemoveAll(fresh); err != nil {
		return nil, dirError(d.Path, err)
	}
	defer os.RemoveAll(fresh)
	r, err := readBundle(bundle, fresh)
	if err != nil {
		return nil, err
	}
	switch {
	case r.ClusterID != p.ClusterID:
		return nil, fmt.Errorf("the bundle is of cluster %s and this is a member of cluster %s", r.ClusterID, p.ClusterID)
	case p.checkSchema(max(r.Schema, p.Schema)) != nil:
		return nil, p.checkSchema(max(r.Schema, p.Schema))
	case r.Template == p.NodeID:
		return nil, fmt.Errorf("the bundle was made here, on node %d: just start this member", p.NodeID)
	case !slices.Contains(r.Voters, p.NodeID):
		return nil, fmt.Errorf("node %d is not among the survivors that the bundle names (%v): join it again with an empty "+
			"directory", p.NodeID, r.Voters)
	case p.Last == r.After:
		return nil, errors.New("the bundle was adopted here already: just start this member")
	case r.Before.Before(p.Last):
		return nil, fmt.Errorf("this member has a newer log (%s) than the one of the bundle (%s): what it knows would be "+
			"lost", p.Last, r.Before)
	}
	for _, m := range p.Members {
		if m.Answers && m.NodeID != r.Template && !slices.Contains(r.Voters, m.NodeID) {
			return nil, fmt.Errorf("node %d, which the recovery counts as lost, is running (%s): stop it first", m.NodeID,
				m.Said)
		}
	}
	if err := store.CheckRecoverable(fresh, p.NodeID); err != nil {
		return nil, fmt.Errorf("the bundle cannot be used: %w", err)
	}
	// The number of a test write tells the others how new a directory is, and an older version packed its own.
	if err := os.Remove(filepath.Join(fresh, store.TrialFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, dirError(d.Path, err)
	}
	if err := d.forgetTwin(); err != nil {
		return nil, err
	}
	if err := os.Rename(d.file(RaftDir), d.file(keptName(now))); err != nil {
		return nil, dirError(d.Path, err)
	}
	if err := os.Rename(fresh, d.file(RaftDir)); err != nil {
		return nil, dirError(d.Path, err)
	}
	return r, d.saveRecovery(r)
}

// Recovery reads the recovery of this member that is not in the members table yet; nil without one.
func (d *Dir) Recovery() (*Recovery, error) {
	r, err := readJSON[Recovery](d, recoveryFile)
	if errors.Is(err, errContent) || r != nil && r.ID == "" {
		return nil, fmt.Errorf("%s cannot be read", d.file(recoveryFile))
	}
	return r, err
}

// RecoverySettled deletes what Recovery returned.
func (d *Dir) RecoverySettled() error { return os.Remove(d.file(recoveryFile)) }

func (d *Dir) saveRecovery(r *Recovery) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return d.write(recoveryFile, append(data, '\n'), 0o600)
}

// copyDir copies the regular files of a directory, durably.
func copyDir(from, to string) error {
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	names, err := raftFiles(from)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := copyFile(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
			return err
		}
	}
	return syncDir(to)
}
