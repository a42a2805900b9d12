package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"muster/certs"
)

// Phases of the rotation of an authority.
const (
	PhaseTrust   = "trust"   // the new CA becomes trusted by every member
	PhaseIssue   = "issue"   // the new CA issues; every member gets new leaves
	PhaseOverlap = "overlap" // both are trusted until the old one is dropped
)

// What Authorities.Change can be asked for.
const (
	CAStart    = "start"
	CAContinue = "continue" // to the next phase, if need be without the members that hold the rotation back
	CADrop     = "drop"     // the old CA now, before the overlap is over
	CARollback = "rollback"
)

// CARotation is a rotation that is under way. A rollback of one whose new CA has issued already is a rotation back: Old
// and New have changed places.
type CARotation struct {
	Kind       certs.Kind
	Phase      string
	Old, New   uint64 // generations
	Overlap    time.Duration
	RolledBack bool
	StartedAt  time.Time
	StartedBy  string
	PhaseAt    time.Time
	DropAt     *time.Time // in the phase overlap
}

const selectRotations = `SELECT kind, phase, old_generation, new_generation, overlap_seconds, rolled_back, started_at,
	started_by, phase_at, drop_at FROM ca_rotations`

func scanRotation(rows *sql.Rows) (r CARotation, err error) {
	var seconds int64
	var started, phase string
	var drop sql.NullString
	err = rows.Scan((*string)(&r.Kind), &r.Phase, &r.Old, &r.New, &seconds, &r.RolledBack, &started, &r.StartedBy, &phase,
		&drop)
	r.Overlap, r.StartedAt, r.PhaseAt, r.DropAt = time.Duration(seconds)*time.Second, parseTime(started),
		parseTime(phase), nullTime(drop)
	return r, err
}

// caRotation reads the rotation of a kind; nil when none is under way.
func (v *View) caRotation(kind certs.Kind) (*CARotation, error) {
	list, err := collect(v, scanRotation, selectRotations+" WHERE kind = ?", string(kind))
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return &list[0], nil
}

// Rotations lists the rotations that are under way.
func (as Authorities) Rotations(ctx context.Context, c Consistency) ([]CARotation, error) {
	return recall(ctx, as.s, c, "ca-rotations", []string{"ca_rotations"}, func(v *View) ([]CARotation, error) {
		return collect(v, scanRotation, selectRotations+" ORDER BY kind")
	})
}

// Holders lists the members that have a certificate for the cluster listener, which members that joined by HTTP alone
// do not have: a rotation waits for them. A member whose certificate has expired counts as well: it renews the
// certificate when it comes back, and could not if its authority had been dropped meanwhile. As the leader has it.
func (as Authorities) Holders(ctx context.Context, c Consistency) ([]uint64, error) {
	return recall(ctx, as.s, c, "trust-holders", []string{"certificates", "members"}, (*View).trustHolders)
}

func (v *View) trustHolders() ([]uint64, error) {
	return collect(v, func(rows *sql.Rows) (id uint64, err error) {
		err = rows.Scan(&id)
		return id, err
	}, `SELECT m.raft_node_id FROM members m WHERE EXISTS (SELECT 1 FROM certificates c
		WHERE c.raft_node_id = m.raft_node_id AND c.kind = 'transport'
		AND c.revoked_at IS NULL) ORDER BY m.raft_node_id`)
}

// Installed says which members have put a revision of Trust into effect.
type Installed struct {
	Revision uint64
	Nodes    map[uint64]bool
}

// missing counts the members that have not put into effect what the transaction sees.
func (t *Tx) missing(in Installed) (n int, err error) {
	rev, err := t.trustRevision()
	if err != nil {
		return 0, err
	}
	holders, err := t.trustHolders()
	for _, id := range holders {
		if rev != in.Revision || !in.Nodes[id] {
			n++
		}
	}
	return n, err
}

// Advance brings every rotation to its next phase that has nothing left to wait for, and reports whether it has changed
// anything. Any leader may call it at any time.
func (as Authorities) Advance(ctx context.Context, actor Actor, in Installed) (changed bool, err error) {
	rotations, err := as.Rotations(ctx, AsLeader)
	if err != nil || len(rotations) == 0 {
		return false, err
	}
	holders, err := as.Holders(ctx, AsLeader)
	if err != nil {
		return false, err
	}
	ready, due := true, false
	for _, id := range holders {
		ready = ready && in.Nodes[id]
	}
	for i := range rotations {
		due = due || rotations[i].due(ready, as.s.cfg.Now())
	}
	if !due {
		return false, nil
	}
	err = as.s.Write(ctx, actor, func(tx *Tx) (err error) {
		changed, err = tx.advanceCA(in)
		return err
	})
	return changed, err
}

func (t *Tx) advanceCA(in Installed) (changed bool, err error) {
	missing, err := t.missing(in)
	if err != nil {
		return false, err
	}
	rotations, err := collect(&t.View, scanRotation, selectRotations+" ORDER BY kind")
	if err != nil {
		return false, err
	}
	for i := range rotations {
		if r := &rotations[i]; r.due(missing == 0, t.Now) {
			changed = true
			if err := t.next(r); err != nil {
				return false, err
			}
		}
	}
	return changed, nil
}

// due reports whether the rotation can go on. The overlap ends by the clock: every member got there before it began.
func (r *CARotation) due(ready bool, now time.Time) bool {
	if r.Phase == PhaseOverlap {
		return !now.Before(*r.DropAt)
	}
	return ready
}

// next goes to the phase after this one.
func (t *Tx) next(r *CARotation) error {
	switch r.Phase {
	case PhaseTrust:
		return t.swap(r, "ca.issue")
	case PhaseIssue:
		drop := t.Now.Add(r.Overlap)
		if err := t.exec("UPDATE ca_rotations SET phase = 'overlap', phase_at = ?, drop_at = ?, modified_rev = ? "+
			"WHERE kind = ?", t.Now, drop, t.Rev, string(r.Kind)); err != nil {
			return err
		}
		return t.audit("ca.overlap", caObject(r.Kind), fmt.Sprintf("generation %d is dropped at %s", r.Old, rfc3339(drop)))
	default:
		return t.retire(r, r.Old, "ca.drop")
	}
}

// swap lets the new authority issue and the old one be trusted only.
func (t *Tx) swap(r *CARotation, action string) error {
	if err := t.execAll([]statement{
		{query: "UPDATE authorities SET state = 'trusted', modified_rev = ? WHERE kind = ? AND generation = ?",
			args: []any{t.Rev, string(r.Kind), r.Old}},
		{query: "UPDATE authorities SET state = 'active', modified_rev = ? WHERE kind = ? AND generation = ?",
			args: []any{t.Rev, string(r.Kind), r.New}},
		{query: `UPDATE ca_rotations SET phase = 'issue', phase_at = ?, drop_at = NULL, old_generation = ?,
			new_generation = ?, overlap_seconds = ?,
			rolled_back = ?, modified_rev = ? WHERE kind = ?`, args: []any{t.Now, r.Old, r.New, int64(r.Overlap / time.Second),
			r.RolledBack, t.Rev, string(r.Kind)}},
	}); err != nil {
		return err
	}
	return t.audit(action, caObject(r.Kind), fmt.Sprintf("generation %d issues, %d is trusted", r.New, r.Old))
}

// retire ends a rotation: one authority leaves the bundles and its key is erased.
func (t *Tx) retire(r *CARotation, generation uint64, action string) error {
	if err := t.execAll([]statement{
		{query: "UPDATE authorities SET state = 'retired', sealed_key = x'', cross_pem = '', modified_rev = ? " +
			"WHERE kind = ? AND generation = ?", args: []any{t.Rev, string(r.Kind), generation}},
		{query: "UPDATE authorities SET cross_pem = '', modified_rev = ? WHERE kind = ? AND state = 'active'",
			args: []any{t.Rev, string(r.Kind)}},
		{query: "DELETE FROM ca_rotations WHERE kind = ?", args: []any{string(r.Kind)}},
	}); err != nil {
		return err
	}
	if r.Kind == certs.Workload {
		if err := t.exec("DELETE FROM jwt_authorities WHERE generation = ?", generation); err != nil {
			return err
		}
	}
	return t.audit(action, caObject(r.Kind), fmt.Sprintf("generation %d is retired and its key erased", generation))
}

func caObject(kind certs.Kind) string { return "ca/" + string(kind) }

// CARequest asks for a change of one authority or both.
type CARequest struct {
	Kinds   []certs.Kind
	Action  string
	DryRun  bool
	Force   bool           // for CAContinue and CADrop: without the members that hold the rotation back
	Overlap *time.Duration // whole seconds; nil: as it is, or DefaultCAOverlap
	// CertPEM and KeyPEM are an operator's own CA, for CAStart and one kind.
	CertPEM, KeyPEM []byte
	Installed       Installed
}

// DefaultCAOverlap is as long as the longest life of a token of the documented endpoint.
const DefaultCAOverlap = 24 * time.Hour

// CAChange says what a request does, or would do.
type CAChange struct {
	Steps    []string `json:"steps"`
	Warnings []string `json:"warnings"`
}

var errDryRun = errors.New("store: nothing is to be changed")

// Change starts a rotation, or changes one that is under way, all or nothing. With DryRun it refuses what it would
// refuse and changes nothing.
func (as Authorities) Change(ctx context.Context, actor Actor, q CARequest) (out CAChange, err error) {
	if q.DryRun {
		actor.IdempotencyKey = ""
	}
	var tried CAChange
	out, err = makeOnce(ctx, as.s, actor, func(tx *Tx) (CAChange, error) {
		out, err := as.changeCA(tx, q)
		if err == nil && q.DryRun {
			tried, err = out, errDryRun // which takes back what was done
		}
		return out, err
	})
	if errors.Is(err, errDryRun) {
		return tried, nil
	}
	return out, err
}

func (as Authorities) changeCA(tx *Tx, q CARequest) (CAChange, error) {
	out := CAChange{Steps: []string{}, Warnings: []string{}}
	missing, err := tx.missing(q.Installed)
	if err == nil {
		q.Kinds, err = tx.kindsThereAre(q.Kinds)
	}
	for _, kind := range q.Kinds {
		var r *CARotation
		if err == nil {
			r, err = tx.caRotation(kind)
		}
		if err == nil {
			err = as.change(tx, q, kind, r, missing, &out)
		}
	}
	return out, err
}

// kindsThereAre leaves the workload authority out of a request for all where the cluster has none yet.
func (t *Tx) kindsThereAre(asked []certs.Kind) ([]certs.Kind, error) {
	known, err := t.kindsInUse()
	if err != nil || !slices.Contains(asked, certs.Workload) || slices.Contains(known, certs.Workload) {
		return asked, err
	}
	if len(asked) == 1 {
		return nil, refuse(Conflict, "%s", ErrNoWorkloadCA.Error())
	}
	return slices.DeleteFunc(slices.Clone(asked), func(k certs.Kind) bool { return k == certs.Workload }), nil
}

func (as Authorities) change(tx *Tx, q CARequest, kind certs.Kind, r *CARotation, missing int, out *CAChange) error {
	step := func(format string, args ...any) {
		out.Steps = append(out.Steps, string(kind)+": "+fmt.Sprintf(format, args...))
	}
	if q.Action == CAStart {
		if r != nil {
			return refuse(Conflict, "a rotation of the %s CA is under way, in the phase %s; only one at a time", kind, r.Phase)
		}
		return as.startCA(tx, q, kind, step, out)
	}
	if r == nil {
		return refuse(Conflict, "no rotation of the %s CA is under way", kind)
	}
	held := refuse(Conflict, "the rotation of the %s CA waits for %d members in the phase %s; force goes on without them",
		kind, missing, r.Phase)
	if q.Overlap != nil {
		r.Overlap = *q.Overlap
	}
	switch q.Action {
	case CAContinue:
		switch {
		case r.Phase == PhaseOverlap:
			return refuse(Conflict,
				"the rotation of the %s CA waits for nothing but the overlap, which ends at %s; drop ends it now", kind,
				rfc3339(*r.DropAt))
		case missing > 0 && !q.Force:
			return held
		}
		if missing > 0 {
			out.Warnings = append(out.Warnings, fmt.Sprintf("%s: %d members are left behind", kind, missing))
		}
		step("the phase %s ends now", r.Phase)
		return tx.next(r)
	case CADrop:
		switch {
		case r.Phase == PhaseTrust:
			return refuse(Conflict,
				"the new %s CA does not issue yet, so the old one cannot be dropped; rollback takes the new one back", kind)
		case r.Phase == PhaseIssue && missing > 0 && !q.Force:
			return held
		}
		step("generation %d is not trusted any more, from now on", r.Old)
		out.Warnings = append(out.Warnings,
			fmt.Sprintf("%s: clients that have the old CA alone, and join tokens that pin it, are refused from now on", kind))
		return tx.retire(r, r.Old, "ca.drop")
	default:
		switch {
		case r.RolledBack:
			return refuse(Conflict, "the rotation of the %s CA is being rolled back already", kind)
		case r.Phase == PhaseTrust:
			step("generation %d, which has not issued anything, is taken back", r.New)
			return tx.retire(r, r.New, "ca.rollback")
		}
		r.Old, r.New, r.RolledBack = r.New, r.Old, true
		step("generation %d issues again and every member gets new certificates", r.New)
		step("%s after that generation %d is dropped", r.Overlap, r.Old)
		return tx.swap(r, "ca.rollback")
	}
}

// cross has two authorities certify each other, as PEM: who trusts one of them verifies what the other has issued.
func cross(old, next certs.CA, now time.Time) (nextByOld, oldByNext, warning string) {
	if der, err := old.CrossSign(next.Cert, now); err == nil {
		nextByOld = string(certs.EncodeCert(der))
	} else {
		warning = "the old CA cannot certify the new one: clients need the new CA before it issues"
	}
	if der, err := next.CrossSign(old.Cert, now); err == nil {
		oldByNext = string(certs.EncodeCert(der))
	} else if warning == "" {
		warning = "the new CA cannot certify the old one: clients that have the new CA alone work once every member has " +
			"its new certificates"
	}
	return nextByOld, oldByNext, warning
}

// warnOfPins warns of join tokens that pin the CA which a rotation replaces and outlive its overlap.
func (t *Tx) warnOfPins(overlap time.Duration, out *CAChange) error {
	var tokens int
	_, err := t.get("SELECT count(*) FROM join_tokens WHERE format = 'muster' AND revoked_at IS NULL "+
		"AND uses < max_uses AND expires_at > ?",
		[]any{rfc3339(t.Now.Add(overlap))}, &tokens)
	if err == nil && tokens > 0 {
		out.Warnings = append(out.Warnings,
			fmt.Sprintf("http: %d join tokens that can still be used pin the old CA and are valid for longer than the "+
				"overlap; they end with it", tokens))
	}
	return err
}
