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
func (c *Cluster) succeed(ctx context.Context, rotations []store.CARotation) error {
	trust, err := c.Store.Authorities.Trust(ctx, store.AsLeader)
	if err != nil {
		return err
	}
	now := c.Store.Now()
	for _, kind := range []certs.Kind{certs.HTTP, certs.Transport} {
		i := slices.IndexFunc(rotations, func(r store.CARotation) bool { return r.Kind == kind })
		by := trust.Of(kind)
		switch {
		case i < 0 && successionDue(by, now):
			overlap := max(0, by.Cert.NotAfter.Sub(now).Truncate(time.Second))
			q := store.CARequest{Kinds: []certs.Kind{kind}, Action: store.CAStart, Overlap: &overlap}
			if err := c.changeCA(ctx, q); err != nil {
				return err
			}
			c.log.Warn("an authority ends and is replaced", "kind", kind, "ends", by.Cert.NotAfter.UTC().Format(time.RFC3339))
		case i >= 0 && c.stuck(ctx, &rotations[i], by, now):
			q := store.CARequest{Kinds: []certs.Kind{kind}, Action: store.CAContinue, Force: true}
			if err := c.changeCA(ctx, q); err != nil {
				return err
			}
			c.log.Warn("the replacement of an authority that has ended goes on without the members that do not answer",
				"kind", kind, "left", rotations[i].Phase)
		}
	}
	return nil
}

// stuck reports whether a rotation has waited long enough for members, though nobody can do without the new authority.
func (c *Cluster) stuck(ctx context.Context, r *store.CARotation, by *store.Issuer, now time.Time) bool {
	return r.Phase != store.PhaseOverlap && now.Sub(r.PhaseAt) > patience && c.oldEnded(ctx, r, by, now)
}

// oldEnded reports whether the authority that a rotation replaces has ended. In the phase trust it still issues.
func (c *Cluster) oldEnded(ctx context.Context, r *store.CARotation, by *store.Issuer, now time.Time) bool {
	if r.Old == by.Generation {
		return now.After(by.Cert.NotAfter)
	}
	all, err := c.Store.Authorities.List(ctx, store.Stale)
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

func (c *Cluster) changeCA(ctx context.Context, q store.CARequest) error {
	in, _, err := c.Installed(ctx)
	if err != nil {
		return err
	}
	q.Installed = in
	_, err = c.Store.Authorities.Change(ctx, c.actor(), q)
	return err
}
