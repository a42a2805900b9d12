package store

import (
	"context"
	"fmt"
	"slices"
)

// Establishing is a checked token to establish a peering with.
type Establishing struct {
	Name             string
	Meta             map[string]string // nil: unchanged
	PeerID           string
	ServerName       string
	ServerAddresses  []string
	ManualAddresses  []string
	CAPems           []string
	RemoteDatacenter string
	ID               string // of the peering, if it is new
}

// CanEstablish rejects a name that cannot be established, before anything is sent to the other cluster.
func (ps Peerings) CanEstablish(ctx context.Context, name string) error {
	return ps.s.Read(ctx, Linearisable, func(v *View) error {
		p, err := v.PeeringByName(name)
		if err != nil {
			return err
		}
		return mayEstablish(p)
	})
}

func mayEstablish(p *Peering) error {
	switch {
	case p == nil:
		return nil
	case p.State == PeeringDeleting:
		return errDeletingPeering
	case !p.Dialer:
		return refuse(Invalid, "cannot create peering with name: %q; there is an existing peering expecting to be dialed",
			p.Name)
	}
	return nil
}

// Establish records the result of an exchange: the acceptor's addresses and its stream secret. A peering that is ACTIVE
// stays so, keeps its stream and the addresses that it has learnt.
func (ps Peerings) Establish(ctx context.Context, actor Actor, e Establishing, secret string) (Peering, error) {
	return makeOnce(ctx, ps.s, actor, func(tx *Tx) (Peering, error) {
		id := e.ID
		if old, err := tx.PeeringByName(e.Name); err != nil {
			return Peering{}, err
		} else if old != nil {
			id = old.ID
		}
		sealed, generation, err := ps.s.keys.seal(peeringSeal(id), []byte(secret))
		if err != nil {
			return Peering{}, err
		}
		return tx.establishPeering(e, sealed, generation)
	})
}

func (t *Tx) establishPeering(e Establishing, sealed []byte, generation uint64) (Peering, error) {
	old, err := t.PeeringByName(e.Name)
	if err != nil {
		return Peering{}, err
	}
	if err := mayEstablish(old); err != nil {
		return Peering{}, err
	}
	p := Peering{ID: e.ID, Name: e.Name, Dialer: true}
	if old != nil {
		p = *old
	} else if err := t.boundPeerings(); err != nil {
		return p, err
	}
	if e.Meta != nil {
		p.Meta = e.Meta
	}
	same := p.PeerID == e.PeerID && p.ServerName == e.ServerName
	if old != nil && !same { // another cluster may be behind the name now
		if err := t.forgetPeerBundle(p.ID); err != nil {
			return p, err
		}
	}
	if !same || p.State != PeeringActive {
		p.ServerAddresses = e.ServerAddresses
		p.turn(PeeringEstablishing, "", t.Now)
	}
	p.PeerID, p.ServerName, p.CAPems, p.ManualAddresses = e.PeerID, e.ServerName, e.CAPems, e.ManualAddresses
	if e.RemoteDatacenter != "" {
		p.RemoteDatacenter = e.RemoteDatacenter
	}
	if err := t.putPeering(&p); err != nil {
		return p, err
	}
	if err := t.putPeeringSecrets(p.ID, peeringSecrets{sealed: sealed, generation: generation}); err != nil {
		return p, err
	}
	return p, t.audit("peering.establish", peeringObject(p.Name), p.PeerID)
}

// PeerNews is an update about a peering; zero fields are unchanged.
type PeerNews struct {
	State     string // PeeringActive or PeeringFailing
	Reason    string // why it is FAILING
	Roots     []string
	Addresses []string // of the acceptor's members; the operator's addresses are unchanged
	Bundle    *PeerBundle
}

// StoreNews stores an update about a peering that has not ended, in one transaction with an audit row for each change.
// It returns the approximate number of bytes; 0 when nothing was new.
func (ps Peerings) StoreNews(ctx context.Context, actor Actor, id string, news PeerNews) (stored int, err error) {
	p, err := ps.ByID(ctx, AsLeader, id)
	if err != nil || p == nil || p.Ended() {
		return 0, err
	}
	if news.Bundle != nil {
		if known, err := ps.Bundles(ctx, AsLeader); err != nil || !news.Bundle.newFor(p, known) {
			news.Bundle = nil // or the schema has no such table yet
		}
	}
	if news.Bundle == nil && len(news.changes(p)) == 0 { // do not occupy the writer for nothing
		return 0, nil
	}
	err = ps.s.Write(ctx, actor, func(tx *Tx) error {
		stored, err = tx.storePeerNews(id, news)
		return err
	})
	return stored, err
}

// changes lists the audit actions for the changes that the news make to a peering.
func (n *PeerNews) changes(p *Peering) (list []string) {
	switch {
	case n.State == PeeringActive && p.State != PeeringActive:
		list = append(list, "peering.active")
	case n.State == PeeringFailing && (p.State != PeeringFailing || p.StatusReason != n.Reason):
		list = append(list, "peering.failing")
	}
	if n.Roots != nil && !slices.Equal(p.CAPems, n.Roots) { // the other cluster's next leaf may be issued by a new CA
		list = append(list, "peering.trust")
	}
	if n.Addresses != nil && !slices.Equal(p.ServerAddresses, n.Addresses) {
		list = append(list, "peering.addresses")
	}
	return list
}

func (t *Tx) storePeerNews(id string, news PeerNews) (stored int, err error) {
	p, err := t.PeeringByID(id)
	if err != nil || p == nil || p.Ended() {
		return 0, err
	}
	changed := news.changes(p)
	if news.Bundle != nil {
		if stored, err = t.putPeerBundle(p, news.Bundle); err != nil {
			return 0, err
		}
	}
	if len(changed) == 0 {
		return stored, nil
	}
	was := p.State
	if news.State != "" {
		p.turn(news.State, news.Reason, t.Now)
	}
	if news.Roots != nil {
		p.CAPems = news.Roots
	}
	if news.Addresses != nil {
		p.ServerAddresses = news.Addresses
	}
	if err := t.putPeering(p); err != nil {
		return 0, err
	}
	for _, action := range changed {
		detail := newsDetail(action, was, p)
		stored += len(detail)
		if err := t.audit(action, peeringObject(p.Name), detail); err != nil {
			return 0, err
		}
	}
	return stored + rowBytes + lengthOf(p.CAPems) + lengthOf(p.ServerAddresses) + len(p.StatusReason), nil
}

// rowBytes is the approximate size of a row besides its texts.
const rowBytes = 300

func lengthOf(list []string) (n int) {
	for _, s := range list {
		n += len(s)
	}
	return n
}

// Terminate records that the other cluster has deleted the peering.
func (ps Peerings) Terminate(ctx context.Context, actor Actor, id string) error {
	return ps.s.Write(ctx, actor, func(tx *Tx) error {
		p, err := tx.PeeringByID(id)
		if err != nil || p == nil || p.Ended() {
			return err
		}
		return tx.terminatePeering(p)
	})
}

// terminatePeering keeps the secrets: the other cluster may repeat its farewell.
func (t *Tx) terminatePeering(p *Peering) error {
	detail, err := t.endedPeering(p)
	if err != nil {
		return err
	}
	p.turn(PeeringTerminated, ErrPeeringTerminated.Error(), t.Now)
	if err := t.putPeering(p); err != nil {
		return err
	}
	if err := t.forgetPeerBundle(p.ID); err != nil {
		return err
	}
	return t.audit("peering.terminated", peeringObject(p.Name), detail)
}

// endedPeering describes a peering that is about to end: its state until now, and what was known through it.
func (t *Tx) endedPeering(p *Peering) (detail string, err error) {
	var members int
	_, err = t.get("SELECT count(*) FROM peer_members WHERE peering_id = ?", []any{p.ID}, &members)
	return made("was", p.State, "datacenter", p.RemoteDatacenter, "members", members), err
}

// Delete marks a peering for deletion and deletes its secrets; the leader's loop removes the imported members and then
// the row. Deleting an unknown peering, or one that is being deleted, does nothing.
func (ps Peerings) Delete(ctx context.Context, actor Actor, name string) error {
	return doOnce(ctx, ps.s, actor, func(tx *Tx) error { return tx.deletePeering(name) })
}

func (t *Tx) deletePeering(name string) error {
	p, err := t.PeeringByName(name)
	if err != nil || p == nil || p.State == PeeringDeleting {
		return err
	}
	x, err := t.peeringSecrets(p.ID)
	if err != nil {
		return err
	}
	if p.State != PeeringTerminated && (x.pending != "" || x.active != "" || x.sealed != nil) {
		if err := t.bury(p, x); err != nil {
			return err
		}
	}
	detail, err := t.endedPeering(p)
	if err != nil {
		return err
	}
	p.turn(PeeringDeleting, "", t.Now)
	p.DeletedAt, p.Meta, p.PeerID, p.CAPems, p.ServerName = &t.Now, nil, "", nil, ""
	if err := t.putPeering(p); err != nil {
		return err
	}
	if err := t.exec("DELETE FROM peering_secrets WHERE peering_id = ?", p.ID); err != nil {
		return err
	}
	if err := t.forgetPeerBundle(p.ID); err != nil {
		return err
	}
	return t.audit("peering.delete", peeringObject(p.Name), detail)
}

// cleanBatch is the maximum number of imported members that one transaction changes.
const cleanBatch = 500

// Clean removes a batch of the imported members of a peering that has ended, and when none is left and the peering was
// deleted here, the peering. done reports that nothing is left to do.
func (ps Peerings) Clean(ctx context.Context, actor Actor, id string) (done bool, err error) {
	err = ps.s.Write(ctx, actor, func(tx *Tx) error {
		p, err := tx.PeeringByID(id)
		if err != nil || p == nil || !p.Ended() {
			done = true
			return err
		}
		done = false
		list, err := tx.peerMembers(id)
		if err != nil {
			return err
		}
		for _, m := range list[:min(len(list), cleanBatch)] {
			if err := tx.exec("DELETE FROM peer_members WHERE peering_id = ? AND id = ?", id, m.ID); err != nil {
				return err
			}
		}
		if len(list) > 0 {
			return tx.audit("peering.clean", peeringObject(p.Name), fmt.Sprintf("%d members", min(len(list), cleanBatch)))
		}
		done = true
		if p.State != PeeringDeleting {
			return nil
		}
		if err := tx.exec("DELETE FROM peerings WHERE id = ?", id); err != nil {
			return err
		}
		return tx.audit("peering.deleted", peeringObject(p.Name), made("id", p.ID))
	})
	return done, err
}

// Import makes the imported members of a peering equal to list, which must be ordered by id, in batches. It returns the
// number of changes and their approximate size in bytes; 0 when nothing is left to change or the peering has ended.
func (ps Peerings) Import(ctx context.Context, actor Actor, id string,
	list []PeerMember) (changed, bytes int, err error) {
	if same, err := ps.imported(ctx, id, list); err != nil || same {
		return 0, 0, err
	}
	err = ps.s.Write(ctx, actor, func(tx *Tx) error {
		changed, bytes, err = tx.importMembers(id, list)
		return err
	})
	return changed, bytes, err
}

// imported reports whether a list equals the imported members, without using the writer.
func (ps Peerings) imported(ctx context.Context, id string, list []PeerMember) (bool, error) {
	have, err := ps.s.Peerings.Members(ctx, AsLeader, id)
	if err != nil || len(have) != len(list) {
		return false, err
	}
	known := make(map[string]PeerMember, len(have))
	for _, m := range have {
		known[m.ID] = m
	}
	for _, m := range list {
		if known[m.ID] != m {
			return false, nil
		}
	}
	return true, nil
}

func (t *Tx) importMembers(id string, list []PeerMember) (changed, bytes int, err error) {
	p, err := t.PeeringByID(id)
	if err != nil || p == nil || p.Ended() {
		return 0, 0, err
	}
	have, err := t.peerMembers(id)
	if err != nil {
		return 0, 0, err
	}
	old := make(map[string]PeerMember, len(have))
	for _, m := range have {
		old[m.ID] = m
	}
	for _, m := range list {
		known, ok := old[m.ID]
		delete(old, m.ID)
		if ok && known == m || changed == cleanBatch {
			continue
		}
		changed++
		bytes += rowBytes + m.Size()
		if err := t.exec(`INSERT INTO peer_members (peering_id, id, name, raft_node_id, raft_address, api_address, health,
			modified_rev)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (peering_id, id) DO UPDATE
			SET name = excluded.name, raft_node_id = excluded.raft_node_id,
			raft_address = excluded.raft_address, api_address = excluded.api_address, health = excluded.health, modified_rev =
			excluded.modified_rev`,
			id, m.ID, m.Name, m.NodeID, m.RaftAddress, m.APIAddress, m.Health, t.Rev); err != nil {
			return 0, 0, err
		}
	}
	for _, m := range have {
		if _, gone := old[m.ID]; !gone || changed == cleanBatch {
			continue
		}
		changed++
		bytes += rowBytes
		if err := t.exec("DELETE FROM peer_members WHERE peering_id = ? AND id = ?", id, m.ID); err != nil {
			return 0, 0, err
		}
	}
	if changed == 0 {
		return 0, 0, nil
	}
	return changed, bytes, t.audit("peering.import", peeringObject(p.Name), fmt.Sprintf("%d members", changed))
}
