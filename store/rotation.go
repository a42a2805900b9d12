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
	PhaseTrust   = "trust"   // every member learns to trust the new CA
	PhaseIssue   = "issue"   // the new CA issues; every member gets new leaves
	PhaseOverlap = "overlap" // both are trusted until the old one is dropped
)

// Actions of Authorities.Change.
const (
	CAStart    = "start"
	CAContinue = "continue" // to the next phase; with force without the members that it waits for
	CADrop     = "drop"     // drop the old CA now, before the end of the overlap
	CARollback = "rollback"
)

// CARotation is a rotation in progress. The rollback of a rotation whose new CA already issues is a rotation in the
// other direction, with Old and New swapped.
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

// caRotation returns the rotation of a kind, or nil.
func (v *View) caRotation(kind certs.Kind) (*CARotation, error) {
	list, err := collect(v, scanRotation, selectRotations+" WHERE kind = ?", string(kind))
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return &list[0], nil
}

// Rotations lists the rotations in progress.
func (as Authorities) Rotations(ctx context.Context, c Consistency) ([]CARotation, error) {
	return recall(ctx, as.s, c, "ca-rotations", []string{"ca_rotations"}, func(v *View) ([]CARotation, error) {
		return collect(v, scanRotation, selectRotations+" ORDER BY kind")
	})
}

// Holders lists the members with a certificate for the cluster listener, for which a rotation waits. Members that
// joined by HTTP only have none. A member with an expired certificate counts: it renews the certificate when it
// returns, and could not if its authority had been dropped.
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

// Installed is the revision of Trust that each member has applied.
type Installed struct {
	Revision uint64
	Nodes    map[uint64]bool
}

// missing counts the members that have not applied the current trust.
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

// Advance moves every rotation that waits for nothing to its next phase, and reports whether there was one. Any leader
// may call it at any time.
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

// due reports whether the rotation can continue. The overlap ends by time alone: all members were ready before it
// began.
func (r *CARotation) due(ready bool, now time.Time) bool {
	if r.Phase == PhaseOverlap {
		return !now.Before(*r.DropAt)
	}
	return ready
}

// next moves the rotation to its next phase.
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

// swap makes the new authority issue and the old one only trusted.
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

// retire ends a rotation: one authority is removed from the bundles and its key erased.
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

// CARequest is a request to change the rotations of one or more kinds.
type CARequest struct {
	Kinds   []certs.Kind
	Action  string
	DryRun  bool
	Force   bool           // for CAContinue and CADrop: without the members that it waits for
	Overlap *time.Duration // whole seconds; nil: unchanged, or DefaultCAOverlap
	// CertPEM and KeyPEM are an operator's CA, for CAStart and one kind.
	CertPEM, KeyPEM []byte
	Installed       Installed
}

// DefaultCAOverlap is the longest lifetime of a token of the documented endpoint.
const DefaultCAOverlap = 24 * time.Hour

// CAChange is the effect of a request, done or planned.
type CAChange struct {
	Steps    []string `json:"steps"`
	Warnings []string `json:"warnings"`
}

var errDryRun = errors.New("store: dry run")

// Change starts rotations or changes those in progress, all or none. With DryRun it makes the same checks but changes
// nothing.
func (as Authorities) Change(ctx context.Context, actor Actor, q CARequest) (out CAChange, err error) {
	if q.DryRun {
		actor.IdempotencyKey = ""
	}
	var tried CAChange
	out, err = makeOnce(ctx, as.s, actor, func(tx *Tx) (CAChange, error) {
		out, err := as.changeCA(tx, q)
		if err == nil && q.DryRun {
			tried, err = out, errDryRun // rolls back
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

// kindsThereAre removes the workload authority from a request for all kinds when the cluster has none yet.
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
			return refuse(Conflict, "a rotation of the %s CA is in progress, in the phase %s; only one at a time", kind, r.Phase)
		}
		return as.startCA(tx, q, kind, step, out)
	}
	if r == nil {
		return refuse(Conflict, "no rotation of the %s CA is in progress", kind)
	}
	held := refuse(Conflict, "the rotation of the %s CA waits for %d members in the phase %s; force continues without "+
		"them",
		kind, missing, r.Phase)
	if q.Overlap != nil {
		r.Overlap = *q.Overlap
	}
	switch q.Action {
	case CAContinue:
		switch {
		case r.Phase == PhaseOverlap:
			return refuse(Conflict,
				"the rotation of the %s CA only waits for the end of the overlap at %s; drop ends it now", kind,
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
		step("generation %d is no longer trusted", r.Old)
		out.Warnings = append(out.Warnings,
			fmt.Sprintf("%s: clients that trust only the old CA, and join tokens that pin it, no longer work", kind))
		return tx.retire(r, r.Old, "ca.drop")
	default:
		switch {
		case r.RolledBack:
			return refuse(Conflict, "the rotation of the %s CA is already being rolled back", kind)
		case r.Phase == PhaseTrust:
			step("generation %d, which has not issued anything, is removed", r.New)
			return tx.retire(r, r.New, "ca.rollback")
		}
		r.Old, r.New, r.RolledBack = r.New, r.Old, true
		step("generation %d issues again and every member gets new certificates", r.New)
		step("%s after that generation %d is dropped", r.Overlap, r.Old)
		return tx.swap(r, "ca.rollback")
	}
}

// cross cross-signs two authorities and returns both certificates as PEM: who trusts one verifies leaves of the other.
func cross(old, next certs.CA, now time.Time) (nextByOld, oldByNext, warning string) {
	if der, err := old.CrossSign(next.Cert, now); err == nil {
		nextByOld = string(certs.EncodeCert(der))
	} else {
		warning = "the old CA cannot certify the new one: clients need the new CA before it issues"
	}
	if der, err := next.CrossSign(old.Cert, now); err == nil {
		oldByNext = string(certs.EncodeCert(der))
	} else if warning == "" {
		warning = "the new CA cannot certify the old one: clients that trust only the new CA work once every member has " +
			"its new certificates"
	}
	return nextByOld, oldByNext, warning
}

// warnOfPins warns of join tokens that pin the old CA and expire after the overlap.
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
