package store

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// AuditRow says who did what. There is one for each mutation that was committed, written in its transaction.
type AuditRow struct {
	Revision  uint64 `json:"revision"`
	Seq       uint64 `json:"seq"` // counts within the revision, from 1
	At        string `json:"at"`  // RFC 3339, UTC, whole seconds, by the leader's clock
	Type      string `json:"type"`
	Action    string `json:"action"`
	Object    string `json:"object"`
	Actor     string `json:"actor"`
	NodeID    uint64 `json:"node"` // the member that took the request
	Remote    string `json:"remote,omitempty"`
	Outcome   string `json:"outcome"` // "ok"; what has a retention of its own: "refused", "replayed", "reported"
	Detail    string `json:"detail,omitempty"`
	RequestID string `json:"requestId"`
}

// Position returns where the row stands.
func (r *AuditRow) Position() Position { return Position{r.Revision, r.Seq} }

// Outcomes of audit rows.
const (
	outcomeOK       = "ok"
	outcomeRefused  = "refused"  // an attempt at something
	outcomeReplayed = "replayed" // an answer given once more to the same Idempotency-Key
	outcomeReported = "reported" // another cluster has said so
)

// EventTypes lists the types that audit rows are sorted into.
var EventTypes = []string{"access", "autopilot", "certificate", "cluster", "key", "leader", "lease", "member",
	"operation", "peering", "secret", "setting", "token"}

// typeOf sorts an action by its first word; what autopilot has decided or seen is of its own type.
func typeOf(action string) string {
	switch action {
	case "member.role", "member.healthy", "member.unhealthy":
		return "autopilot"
	}
	noun, _, _ := strings.Cut(action, ".")
	switch noun {
	case "access", "leader", "lease", "member", "operation", "peering", "secret", "setting":
		return noun
	case "certificate", "ca", "enrollment":
		return "certificate"
	case "key", "dek":
		return "key"
	}
	if strings.HasSuffix(noun, "token") || noun == "api_key" {
		return "token"
	}
	return "cluster"
}

// Position is a place in the history: behind one audit row, or behind a whole revision.
type Position struct{ Revision, Seq uint64 }

// wholeRevision stands for the last row of a revision, however many it has.
const wholeRevision = math.MaxInt64

// After returns the place behind everything that a revision did.
func After(revision uint64) Position { return Position{revision, wholeRevision} }

// String writes "revision.seq", or "revision" for the place behind a whole revision.
func (p Position) String() string {
	if p.Seq == wholeRevision {
		return strconv.FormatUint(p.Revision, 10)
	}
	return fmt.Sprintf("%d.%d", p.Revision, p.Seq)
}

// ParsePosition reads what String has written.
func ParsePosition(text string) (p Position, ok bool) {
	rev, seq, both := strings.Cut(text, ".")
	var err error
	if p.Revision, err = strconv.ParseUint(rev, 10, 63); err != nil {
		return Position{}, false
	}
	p.Seq = wholeRevision
	if both {
		p.Seq, err = strconv.ParseUint(seq, 10, 63)
	}
	return p, err == nil
}

// Before reports whether p lies before q.
func (p Position) Before(q Position) bool {
	return p.Revision < q.Revision || p.Revision == q.Revision && p.Seq < q.Seq
}

const insertAudit = `INSERT INTO audit (revision, seq, at, actor, node_id, remote, action, object, outcome, detail,
	request_id)
	VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

// audit writes the row that says who did what; every mutation has one. Detail must not hold a secret.
func (t *Tx) audit(action, object, detail string) error {
	outcome := outcomeOK
	if t.actor.Peer {
		outcome = outcomeReported
	}
	return t.auditRow(AuditRow{Actor: t.actor.String(), NodeID: t.actor.NodeID, Remote: t.actor.Remote,
		Action: action, Object: object, Outcome: outcome, Detail: detail})
}

// auditRow writes a row whose place, time, type and request are the transaction's.
func (t *Tx) auditRow(r AuditRow) error {
	r.Revision, r.Seq, r.At, r.Type, r.RequestID = t.Rev, t.tx.Next(), rfc3339(t.Now), typeOf(r.Action), t.actor.RequestID
	r.Actor, r.Remote, r.Object = cut("audit", "actor", r.Actor), cut("audit", "remote", r.Remote),
		cut("audit", "object", r.Object)
	r.Detail, r.RequestID = cut("audit", "detail", r.Detail), cut("audit", "request_id", r.RequestID)
	err := t.exec(insertAudit, r.Revision, r.Seq, r.At, r.Actor, r.NodeID, r.Remote, r.Action, r.Object, r.Outcome,
		r.Detail, r.RequestID)
	if err == nil {
		t.audits = append(t.audits, r)
	}
	return err
}

const selectAudit = "SELECT revision, seq, at, actor, node_id, remote, action, object, outcome, detail, request_id " +
	"FROM audit"

func scanAudit(rows *sql.Rows) (r AuditRow, err error) {
	err = rows.Scan(&r.Revision, &r.Seq, &r.At, &r.Actor, &r.NodeID, &r.Remote, &r.Action, &r.Object, &r.Outcome,
		&r.Detail, &r.RequestID)
	r.Type = typeOf(r.Action)
	return r, err
}

// AuditFilter selects audit rows. Zero fields select everything.
type AuditFilter struct {
	Since, Until time.Time // of the leader's clock, both inclusive, in whole seconds
	Actor        string    // the whole actor, or the name or the accessor in it
	Action       string    // what the action begins with
	Object       string
	NodeID       uint64
	After        Position // exclusive, in the order asked for
	HasAfter     bool
	Descending   bool // newest first
	Limit        int  // at most this many, at least 1
}

const (
	auditWhere = selectAudit + ` WHERE (?1 = '' OR at >= ?1) AND (?2 = '' OR at <= ?2)
		AND (?3 = '' OR actor = ?3 OR actor LIKE ?4 ESCAPE '\' OR actor LIKE ?5 ESCAPE '\')
		AND (?6 = '' OR substr(action, 1, length(?6)) = ?6) AND (?7 = '' OR object = ?7) AND (?8 = 0 OR node_id = ?8)
		AND (revision, seq) > (?9, ?10) AND (revision, seq) < (?11, ?12)`
	auditAscending  = " ORDER BY revision, seq LIMIT ?13"
	auditDescending = " ORDER BY revision DESC, seq DESC LIMIT ?13"
	auditAtRevision = "SELECT revision, at FROM audit WHERE revision >= ? ORDER BY revision, seq LIMIT 1"
	auditOldest     = "SELECT revision, at FROM audit WHERE (outcome = 'ok') = ? ORDER BY revision, seq LIMIT ?"
	auditNewestOf   = "SELECT revision FROM audit WHERE (outcome = 'ok') = ? ORDER BY revision DESC, seq DESC " +
		"LIMIT 1 OFFSET ?"
	auditNewestAfter = "SELECT revision, seq FROM audit ORDER BY revision DESC, seq DESC LIMIT 1 OFFSET ?"
)

// clockSkew is how far the clocks of two leaders may be apart without rows being missed by their time.
const clockSkew = 24 * time.Hour

var likeEscaper = strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`)

// List lists audit rows.
func (au Audit) List(ctx context.Context, c Consistency, f AuditFilter) (list []AuditRow, err error) {
	err = au.s.Read(ctx, c, func(v *View) error {
		low, high := Position{}, Position{wholeRevision, wholeRevision}
		if f.HasAfter && f.Descending {
			high = f.After
		} else if f.HasAfter {
			low = f.After
		}
		if !f.Since.IsZero() {
			from, err := v.auditFrom(f.Since.Add(-clockSkew))
			if err != nil {
				return err
			}
			if p := (Position{from, 0}); low.Before(p) {
				low = p
			}
		}
		if !f.Until.IsZero() {
			to, err := v.auditFrom(f.Until.Add(clockSkew))
			if err != nil {
				return err
			}
			if p := (Position{to, wholeRevision}); p.Before(high) {
				high = p
			}
		}
		name := likeEscaper.Replace(f.Actor)
		args := []any{textTime(f.Since), textTime(f.Until), f.Actor, name + ` (%)`, `%(` + name + `)`, f.Action, f.Object,
			int64(f.NodeID),
			int64(low.Revision), int64(low.Seq), int64(high.Revision), int64(high.Seq), int64(f.Limit)}
		if f.Descending {
			list, err = collect(v, scanAudit, auditWhere+auditDescending, args...)
		} else {
			list, err = collect(v, scanAudit, auditWhere+auditAscending, args...)
		}
		return err
	})
	return list, err
}

func textTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return rfc3339(t)
}

// auditFrom finds the first revision that was committed at or after a time, by halving: no index on times has to be
// kept up with each commit. Where clocks went backwards it finds one of the places.
func (v *View) auditFrom(t time.Time) (uint64, error) {
	newest, err := v.revision()
	if err != nil {
		return 0, err
	}
	low, high, want := uint64(0), newest+1, rfc3339(t)
	for low < high {
		mid := low + (high-low)/2
		var at string
		rev := newest + 1
		if _, err := v.get(auditAtRevision, []any{int64(mid)}, &rev, &at); err != nil {
			return 0, err
		}
		if at == "" || at >= want {
			high = mid
		} else {
			low = max(mid, rev) + 1
		}
	}
	return low, nil
}

// auditRows counts the audit rows.
func (v *View) auditRows() (n uint64, err error) {
	_, err = v.get("SELECT count(*) FROM audit", nil, &n)
	return n, err
}

// sequencePruned is the revision up to which rows of what operators and members did may be missing. Rows of refused
// attempts and of other clusters go by their own bounds; what reads on behind a position does not hear of those that
// are gone.
const sequencePruned = "audit_pruned"

func (v *View) prunedRevision() (rev uint64, err error) {
	_, err = v.get("SELECT value FROM sequences WHERE name = ?", []any{sequencePruned}, &rev)
	return rev, err
}

// pruneStep bounds how many rows one transaction deletes, but for a revision that has more of its own.
const pruneStep = 1000

// Prune deletes the oldest audit rows beyond what is to be kept, in one bounded step; more reports whether there is
// another one to do. Rows are deleted by whole revisions, and only when there is at least a hundredth too many or one
// is too old: each step leaves an audit row itself.
func (au Audit) Prune(ctx context.Context, actor Actor) (more bool, err error) {
	keep, err := au.s.Settings.AuditRetention(ctx, AsLeader)
	if err != nil {
		return false, err
	}
	for _, c := range []auditClass{{true, keep.MaxAge, keep.MaxRows}, {false, keep.OthersAge, keep.OthersRows}} {
		left, err := au.pruneClass(ctx, actor, c)
		if err != nil {
			return false, err
		}
		more = more || left
	}
	return more, nil
}

// auditClass is what of the audit has one retention: what operators and members did, with the outcome "ok", or all
// else.
type auditClass struct {
	ok      bool
	maxAge  time.Duration
	maxRows uint64
}

func (c auditClass) String() string {
	if c.ok {
		return "rows"
	}
	return "rows of refusals, replays and other clusters"
}

func (au Audit) pruneClass(ctx context.Context, actor Actor, c auditClass) (more bool, err error) {
	var until uint64 // the newest revision that may go
	err = au.s.Read(ctx, AsLeader, func(v *View) error {
		until, err = v.pruneUntil(c)
		return err
	})
	if err != nil || until == 0 {
		return false, err
	}
	err = au.s.Write(ctx, actor, func(tx *Tx) error {
		step := until
		var last uint64
		found, err := tx.get("SELECT revision FROM audit WHERE (outcome = 'ok') = ? ORDER BY revision, seq LIMIT 1 OFFSET ?",
			[]any{c.ok, int64(pruneStep)}, &last)
		if err != nil {
			return err
		}
		if more = found && last <= until; more {
			var first uint64
			if _, err := tx.get("SELECT min(revision) FROM audit WHERE (outcome = 'ok') = ?", []any{c.ok}, &first); err != nil {
				return err
			}
			step = max(last-1, first)
		}
		n, err := tx.execCount("DELETE FROM audit WHERE revision <= ? AND (outcome = 'ok') = ?", step, c.ok)
		if err != nil || n == 0 {
			return err
		}
		if c.ok {
			if err := tx.setSequence(sequencePruned, step); err != nil {
				return err
			}
		}
		return tx.audit("audit.prune", "cluster", fmt.Sprintf("%d %v up to revision %d", n, c, step))
	})
	return more, err
}

// pruneUntil finds the newest revision that is not to be kept, 0 when there is nothing to delete.
func (v *View) pruneUntil(keep auditClass) (until uint64, err error) {
	if keep.maxAge > 0 {
		type row struct {
			revision uint64
			at       string
		}
		oldest, err := collect(v, func(rows *sql.Rows) (r row, err error) { return r, rows.Scan(&r.revision, &r.at) },
			auditOldest, keep.ok, int64(2*pruneStep))
		if err != nil {
			return 0, err
		}
		limit := rfc3339(v.Now.Add(-keep.maxAge))
		for _, r := range oldest {
			if r.at >= limit {
				break
			}
			until = r.revision
		}
	}
	over := false
	if over, err = v.get(auditNewestOf, []any{keep.ok, int64(keep.maxRows + keep.maxRows/100)},
		new(uint64)); err != nil || !over {
		return until, err
	}
	var first uint64
	if _, err := v.get(auditNewestOf, []any{keep.ok, int64(keep.maxRows)}, &first); err != nil {
		return 0, err
	}
	return max(until, first), nil
}
