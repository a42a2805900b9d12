package store

import (
	"context"
	"crypto/subtle"
	"database/sql"
	"fmt"
	"time"
)

// Errors of peering streams that the protocol distinguishes, with the documented texts (reference consul_peering,
// sections 1.4 and 3).
var (
	// ErrPeeringSecret: the establishment secret is wrong, used, superseded or expired, or the peering is unknown.
	ErrPeeringSecret = refuse(Forbidden, "invalid peering establishment secret")
	// ErrStreamSecret: the stream secret is not one that this cluster has issued for the peering.
	ErrStreamSecret = refuse(Forbidden, "invalid peering stream secret")
	// ErrPeeringTerminated: the peering was deleted here, and the caller has proven that it was its peering.
	ErrPeeringTerminated = refuse(Conflict, "the peering was deleted by the other side")

	errDeletingPeering = refuse(Conflict, "failed to write peering: cannot write to peering that is marked for deletion")
)

// ErrPeeringDeleting reports whether an error means that a peering of this name is being deleted.
func ErrPeeringDeleting(err error) bool { return err == errDeletingPeering }

// peeringSecrets is a row of peering_secrets.
type peeringSecrets struct {
	establish, pending, active string // SHA-256, lower hex
	expires                    *time.Time
	sealed                     []byte
	generation                 uint64
}

func (v *View) peeringSecrets(id string) (x peeringSecrets, err error) {
	var expires sql.NullString
	var generation sql.NullInt64
	_, err = v.get("SELECT establish_hash, establish_expires_at, pending_hash, active_hash, sealed, dek_generation "+
		"FROM peering_secrets WHERE peering_id = ?",
		[]any{id}, &x.establish, &expires, &x.pending, &x.active, &x.sealed, &generation)
	x.expires, x.generation = nullTime(expires), uint64(generation.Int64)
	return x, err
}

func (t *Tx) putPeeringSecrets(id string, x peeringSecrets) error {
	return t.exec(`INSERT INTO peering_secrets (peering_id, establish_hash, establish_expires_at, pending_hash,
		active_hash, sealed, dek_generation)
		VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (peering_id) DO UPDATE SET establish_hash = excluded.establish_hash,
		establish_expires_at = excluded.establish_expires_at, pending_hash = excluded.pending_hash, active_hash =
		excluded.active_hash,
		sealed = excluded.sealed, dek_generation = excluded.dek_generation`,
		id, x.establish, x.expires, x.pending, x.active, x.sealed, optional(x.generation))
}

// sameHash compares in constant time; an empty hash equals nothing.
func sameHash(have, shown string) bool {
	return have != "" && subtle.ConstantTimeCompare([]byte(have), []byte(shown)) == 1
}

// PeeringToken is a request for a token. Secret is its one-time secret; ID is used for a new peering.
type PeeringToken struct {
	Name   string
	Meta   map[string]string // nil: unchanged
	TTL    time.Duration     // 0: does not expire
	ID     string            // of the peering, if it is new
	Secret string
	Encode func(peeringID, secret string) (string, error) // returns the text of the token; it must not block
}

// MintedPeering is a peering with the secret in its new token.
type MintedPeering struct {
	Peering Peering
	Secret  string
	Text    string
}

// MintToken creates a peering of this name, or uses the existing one, which then accepts one dialer with the secret of
// this hash. It invalidates the secret of an earlier unused token; it does not interrupt an open stream.
func (ps Peerings) MintToken(ctx context.Context, actor Actor, k PeeringToken, hash string) (MintedPeering, error) {
	again := func(tx *Tx, old *MintedPeering) error {
		p, err := tx.PeeringByID(old.Peering.ID)
		if err == nil && (p == nil || p.Ended()) {
			err = refuse(Forbidden,
				"the peering that this request created a token for has been deleted; an Idempotency-Key does not restore it")
		}
		return err
	}
	return makeOnceUnless(ctx, ps.s, actor, again, func(tx *Tx) (out MintedPeering, err error) {
		out.Secret = k.Secret
		if out.Peering, err = tx.mintPeeringToken(k, hash); err == nil && k.Encode != nil {
			out.Text, err = k.Encode(out.Peering.ID, k.Secret)
		}
		return out, err
	})
}

func (t *Tx) mintPeeringToken(k PeeringToken, hash string) (Peering, error) {
	old, err := t.PeeringByName(k.Name)
	if err != nil {
		return Peering{}, err
	}
	p := Peering{ID: k.ID, Name: k.Name, State: PeeringPending, StatusSince: t.Now}
	var x peeringSecrets
	if old == nil {
		if err := t.boundPeerings(); err != nil {
			return p, err
		}
	} else {
		p = *old
		switch {
		case p.State == PeeringDeleting:
			return p, errDeletingPeering
		case p.Dialer:
			return p, refuse(Invalid, "cannot create peering with name: %q; there is already an established peering", p.Name)
		case p.State == PeeringTerminated: // the new token's user may use it again
			p.turn(PeeringPending, "", t.Now)
		default:
			if x, err = t.peeringSecrets(p.ID); err != nil {
				return p, err
			}
		}
	}
	if k.Meta != nil {
		p.Meta = k.Meta
	}
	x.establish, x.expires = hash, nil
	if k.TTL > 0 {
		until := t.Now.Add(k.TTL)
		x.expires = &until
	}
	if err := t.putPeering(&p); err != nil {
		return p, err
	}
	if err := t.putPeeringSecrets(p.ID, x); err != nil {
		return p, err
	}
	return p, t.audit("peering.token", peeringObject(p.Name), made("id", p.ID, "ttl", k.TTL))
}

// ExchangeSecret exchanges the one-time secret of a token for a stream secret, of which this function gets only the
// hash. Of two callers with the same secret, one succeeds.
func (ps Peerings) ExchangeSecret(ctx context.Context, actor Actor, id, hash, streamHash string) error {
	// Check first with a read, so that a wrong secret does not occupy the writer.
	if err := ps.s.Read(ctx, Linearisable, func(v *View) error {
		_, _, err := v.authorizeExchange(id, hash)
		return err
	}); err != nil {
		return err
	}
	return ps.s.Write(ctx, actor, func(tx *Tx) error { return tx.exchangePeeringSecret(id, hash, streamHash) })
}

func (t *Tx) exchangePeeringSecret(id, hash, streamHash string) error {
	p, x, err := t.authorizeExchange(id, hash)
	if err != nil {
		return err
	}
	before := "none"
	if x.active != "" {
		before = "one dialer, until the new one connects"
	}
	x.establish, x.expires, x.pending = "", nil, streamHash
	if err := t.putPeeringSecrets(id, x); err != nil {
		return err
	}
	if err := t.forgetPeerBundle(id); err != nil { // the name may now belong to another cluster
		return err
	}
	return t.audit("peering.exchange", peeringObject(p.Name), made("id", p.ID, "before", before))
}

// authorizeExchange checks the secret of a token.
func (v *View) authorizeExchange(id, hash string) (*Peering, peeringSecrets, error) {
	p, err := v.PeeringByID(id)
	if err != nil {
		return nil, peeringSecrets{}, err
	}
	if p == nil || p.Dialer || p.Ended() {
		return nil, peeringSecrets{}, ErrPeeringSecret
	}
	x, err := v.peeringSecrets(id)
	if err != nil {
		return nil, x, err
	}
	if !sameHash(x.establish, hash) || x.expires != nil && !v.Now.Before(*x.expires) {
		return nil, x, ErrPeeringSecret
	}
	return p, x, nil
}

// OpenStream authorizes a dialer by its stream secret: the active one, which writes nothing, or the pending one, which
// thereby becomes active. It returns ErrPeeringTerminated for the dialer of a peering that was deleted here.
func (ps Peerings) OpenStream(ctx context.Context, actor Actor, id, hash, datacenter string) (p *Peering, err error) {
	promoted := false
	err = ps.s.Read(ctx, Linearisable, func(v *View) error {
		var x peeringSecrets
		p, x, err = v.authorizeStream(id, hash)
		promoted = err == nil && x.active == hash
		return err
	})
	if err != nil || promoted {
		return p, err
	}
	err = ps.s.Write(ctx, actor, func(tx *Tx) error {
		p, err = tx.openPeeringStream(id, hash, datacenter)
		return err
	})
	return p, err
}

func (t *Tx) openPeeringStream(id, hash, datacenter string) (*Peering, error) {
	p, x, err := t.authorizeStream(id, hash)
	if err != nil {
		return nil, err
	}
	if x.active == hash && p.State == PeeringActive {
		return p, nil
	}
	if x.active != hash {
		x.pending, x.active = "", hash
		if err := t.putPeeringSecrets(id, x); err != nil {
			return nil, err
		}
	}
	was := p.State
	p.turn(PeeringActive, "", t.Now)
	if datacenter != "" {
		p.RemoteDatacenter = datacenter
	}
	if err := t.putPeering(p); err != nil {
		return nil, err
	}
	return p, t.audit("peering.active", peeringObject(p.Name), newsDetail("peering.active", was, p))
}

// authorizeStream checks the secret of a stream.
func (v *View) authorizeStream(id, hash string) (*Peering, peeringSecrets, error) {
	if id == "" {
		return nil, peeringSecrets{}, refuse(Invalid, "initial subscription request must specify a PeerID")
	}
	p, err := v.PeeringByID(id)
	if err != nil {
		return nil, peeringSecrets{}, err
	}
	if p == nil || p.Ended() {
		var pending, active string
		if _, err := v.get("SELECT pending_hash, active_hash FROM peering_tombstones WHERE id = ? AND dialer = 0", []any{id},
			&pending, &active); err != nil {
			return nil, peeringSecrets{}, err
		}
		if sameHash(pending, hash) || sameHash(active, hash) {
			return nil, peeringSecrets{}, ErrPeeringTerminated
		}
		if p == nil {
			return nil, peeringSecrets{}, refuse(NotFound, "initial subscription for unknown PeerID: %.64s", id)
		}
	}
	if p.Dialer {
		return nil, peeringSecrets{}, refuse(Invalid, "expected PeerID to be empty; the wrong end of peering is being dialed")
	}
	x, err := v.peeringSecrets(id)
	switch {
	case err != nil:
		return nil, x, err
	case p.Ended() && !sameHash(x.pending, hash) && !sameHash(x.active, hash):
		return nil, x, refuse(Conflict, "peering is marked as deleted: %.64s", id)
	case p.Ended():
		return nil, x, ErrPeeringTerminated
	case x.pending == "" && x.active == "":
		return nil, x, refuse(Conflict, "unable to authorize connection, peering must be re-established")
	case !sameHash(x.active, hash) && !sameHash(x.pending, hash):
		return nil, x, ErrStreamSecret
	}
	return p, x, nil
}

// Leave marks the peering as TERMINATED for a dialer that has deleted it and proves itself by the stream secret.
// Repeating it is not an error.
func (ps Peerings) Leave(ctx context.Context, actor Actor, id, hash string) error {
	if err := ps.s.Read(ctx, Linearisable, func(v *View) error {
		_, _, err := v.authorizeStream(id, hash)
		return err
	}); err != nil && err != ErrPeeringTerminated {
		return err
	}
	return ps.s.Write(ctx, actor, func(tx *Tx) error {
		p, x, err := tx.authorizeStream(id, hash)
		switch {
		case err == ErrPeeringTerminated:
			return nil
		case err != nil:
			return err
		// another token was used in the meantime: the peering continues without the dialer that leaves
		case x.pending != "" && !sameHash(x.pending, hash):
			x.active = ""
			if err := tx.putPeeringSecrets(id, x); err != nil {
				return err
			}
			return tx.audit("peering.left", peeringObject(p.Name), made("id", p.ID, "continues",
				"with the dialer of a newer token"))
		}
		return tx.terminatePeering(p)
	})
}

func peeringSeal(id string) string { return "peering/" + id }

// StreamSecret returns the secret that a dialer opens its stream with.
func (ps Peerings) StreamSecret(ctx context.Context, c Consistency, id string) (string, error) {
	var x peeringSecrets
	err := ps.s.Read(ctx, c, func(v *View) (err error) {
		x, err = v.peeringSecrets(id)
		return err
	})
	if err != nil {
		return "", err
	}
	if x.sealed == nil {
		return "", fmt.Errorf("peering %s has no stream secret", id)
	}
	plain, err := ps.s.keys.open(peeringSeal(id), x.generation, x.sealed)
	return string(plain), err
}
