package cluster

import (
	"context"
	"slices"
	"time"

	"muster/certs"
	"muster/store"
)

// successionLead is how long before its end an authority of muster's own gets a successor, or a tenth of its life where
// that is shorter. The old one is trusted until it ends.
const successionLead = 90 * 24 * time.Hour

// patience is how long each phase of a rotation waits for silent members once the old authority has ended: without a
// new one nobody has a valid certificate.
const patience = time.Minute

// checkEvery is how often the leader looks for certificates that expire soon.
const checkEvery = time.Minute

// successionDue reports whether an authority needs a successor now. An operator's own is left to the operator for as
// long as it is valid; once it has ended, muster makes one, for nothing else would let members renew their leaves.
func successionDue(by *store.Issuer, now time.Time) bool {
	left := by.Cert.NotAfter.Sub(now)
	if left <= 0 {
		return true
	}
	life := by.Cert.NotAfter.Sub(by.Cert.NotBefore) - store.LeafBackdate
	return !by.Operators && left < min(successionLead, life/10)
}

// succeed starts the rotation of every authority that ends, and does not let silent members hold up one whose old
// authority has ended already.
func (t *term) succeed(ctx context.Context, rotations []store.CARotation) error {
	trust, err := t.Store.Authorities.Trust(ctx, store.AsLeader)
	if err != nil {
		return err
	}
	now := t.Store.Now()
	kinds := []certs.Kind{certs.HTTP, certs.Transport, certs.Workload}
	if trust.Workload.Generation == 0 { // a cluster that is new, or has a new schema
		if err := t.Store.Authorities.BeginWorkload(ctx, t.actor()); err != nil {
			return err
		}
		kinds = kinds[:2]
	}
	for _, kind := range kinds {
		i := slices.IndexFunc(rotations, func(r store.CARotation) bool { return r.Kind == kind })
		by := trust.Of(kind)
		switch {
		case i < 0 && successionDue(by, now):
			overlap := max(0, by.Cert.NotAfter.Sub(now).Truncate(time.Second))
			q := store.CARequest{Kinds: []certs.Kind{kind}, Action: store.CAStart, Overlap: &overlap}
			if err := t.changeCA(ctx, q); err != nil {
				return err
			}
			t.log.Warn("an authority ends and is replaced", "kind", kind, "ends", by.Cert.NotAfter.UTC().Format(time.RFC3339))
		case i >= 0 && t.stuck(ctx, &rotations[i], by, now):
			q := store.CARequest{Kinds: []certs.Kind{kind}, Action: store.CAContinue, Force: true}
			if err := t.changeCA(ctx, q); err != nil {
				return err
			}
			t.log.Warn("the replacement of an authority that has ended goes on without the members that do not answer",
				"kind", kind, "left", rotations[i].Phase)
		}
	}
	return nil
}

// stuck reports whether a rotation has waited long enough for members, though nobody can do without the new authority.
func (t *term) stuck(ctx context.Context, r *store.CARotation, by *store.Issuer, now time.Time) bool {
	return r.Phase != store.PhaseOverlap && now.Sub(r.PhaseAt) > patience && t.oldEnded(ctx, r, by, now)
}

// oldEnded reports whether the authority that a rotation replaces has ended. In the phase trust it still issues.
func (t *term) oldEnded(ctx context.Context, r *store.CARotation, by *store.Issuer, now time.Time) bool {
	if r.Old == by.Generation {
		return now.After(by.Cert.NotAfter)
	}
	all, err := t.Store.Authorities.List(ctx, store.Stale)
	if err != nil {
		return false
	}
	for _, k := range all {
		for i := range k.Generations {
			if a := &k.Generations[i]; a.Kind == r.Kind && a.Generation == r.Old {
				return now.After(a.NotAfter)
			}
		}
	}
	return false
}

func (t *term) changeCA(ctx context.Context, q store.CARequest) error {
	in, _, err := t.Installed(ctx)
	if err != nil {
		return err
	}
	q.Installed = in
	_, err = t.Store.Authorities.Change(ctx, t.actor(), q)
	return err
}

// awaited marks the members that a rotation waits for, so that they are probed more often.
func (t *term) awaited(ctx context.Context, list []target) []target {
	rotations, err := t.Store.Authorities.Rotations(ctx, store.AsLeader)
	if err != nil || len(rotations) == 0 {
		return list
	}
	holders, err := t.Store.Authorities.Holders(ctx, store.AsLeader)
	if err != nil {
		return list
	}
	trust, _ := t.announced(ctx)
	seen := t.prober.snapshot()
	most := hurryMost
	for i := range list {
		_, holds := slices.BinarySearch(holders, list[i].nodeID)
		if holds && most > 0 && seen[list[i].nodeID].Trust < trust {
			list[i].awaited = true
			most--
		}
	}
	return list
}

// advanceCA carries rotations of the authorities on and warns of what expires.
func (t *term) advanceCA(ctx context.Context) error {
	rotations, err := t.Store.Authorities.Rotations(ctx, store.AsLeader)
	if err != nil {
		return err
	}
	if err := t.succeed(ctx, rotations); err != nil {
		return err
	}
	changed := false
	if len(rotations) > 0 {
		in, _, err := t.Installed(ctx)
		if err != nil {
			return err
		}
		if changed, err = t.Store.Authorities.Advance(ctx, t.actor(), in); err != nil {
			return err
		}
	}
	if changed {
		t.Wake()
		for i := range rotations {
			r := &rotations[i]
			t.log.Info("the rotation of an authority goes on", "kind", r.Kind, "generation", r.New, "left", r.Phase)
		}
	} else if time.Since(t.checked) < checkEvery {
		return nil
	}
	t.checked = time.Now()
	expiring, err := t.Store.Certificates.WarnOfExpiry(ctx, t.actor())
	for i := range expiring {
		e := &expiring[i]
		t.log.Warn("a certificate in use expires soon", "what", e.String(), "at", e.NotAfter,
			"days", int(e.DaysLeft(time.Now())))
	}
	return err
}

// Installed tells which members have put the present trust into effect, and why the others have not. Where this member
// does not lead it knows of none.
func (c *Cluster) Installed(ctx context.Context) (in store.Installed, why map[uint64]string, err error) {
	t, err := c.Store.Authorities.Trust(ctx, store.AsLeader)
	if err != nil {
		return in, nil, err
	}
	in = store.Installed{Revision: t.Revision, Nodes: map[uint64]bool{}}
	why = map[uint64]string{}
	p := c.probing.Load()
	if p == nil {
		return in, why, nil
	}
	for id, o := range p.snapshot() {
		switch silent := time.Since(o.LastContact); {
		case o.LastContact.IsZero():
			why[id] = "does not answer"
		case o.Trust >= t.Revision:
			in.Nodes[id] = true
		case silent > 2*o.Interval+probeTimeout:
			why[id] = "does not answer since " + o.LastContact.UTC().Format(time.RFC3339)
		}
	}
	return in, why, nil
}

// reencryptBatch is how many values move to a new generation in one transaction; others write in between.
const reencryptBatch = 500

// PrepareRemoval makes the new data-encryption key and the new epochs of every key that a removed member could open.
func (c *Cluster) PrepareRemoval(ctx context.Context, nodeID uint64) (*store.DEKRotation, error) {
	keys, err := store.NewKeys(store.KeyJoinHMAC, store.KeyJoinSigning, store.KeyJoinSecret, store.KeyJWT)
	if err != nil {
		return nil, err
	}
	return c.Store.Keys.PrepareDEKRotation(ctx, nodeID, keys)
}

// rekey moves what is sealed under old generations to the active one, a batch at a time, and rotates by age.
func (t *term) rekey(ctx context.Context) error {
	for ctx.Err() == nil {
		n, err := t.Store.Keys.Reencrypt(ctx, t.actor(), reencryptBatch)
		if err != nil || n == 0 {
			return err
		}
	}
	return ctx.Err()
}

// rotateByAge makes a new data-encryption key when the active one is older than the setting allows.
func (t *term) rotateByAge(ctx context.Context) error {
	limit, err := t.Store.Settings.DEKMaxAge(ctx, store.AsLeader)
	if err != nil || limit == 0 {
		return err
	}
	list, err := t.Store.Keys.Generations(ctx, store.Linearisable)
	if err != nil || len(list) == 0 {
		return err
	}
	if age := t.Store.Now().Sub(list[len(list)-1].CreatedAt); age > limit {
		r, err := t.Store.Keys.PrepareDEKRotation(ctx, 0, nil)
		if err != nil {
			return err
		}
		_, err = t.Store.Keys.RotateDEK(ctx, t.actor(), r, "age")
		return err
	}
	return nil
}
