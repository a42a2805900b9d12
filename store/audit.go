package store

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster/store/sizes"
)

// AuditRow records who did what. Each committed mutation writes one in its transaction.
type AuditRow struct {
	Revision  uint64 `json:"revision"`
	Seq       uint64 `json:"seq"` // counts within the revision, from 1
	At        string `json:"at"`  // RFC 3339, UTC, whole seconds, by the leader's clock
	Type      string `json:"type"`
	Action    string `json:"action"`
	Object    string `json:"object"`
	Actor     string `json:"actor"`
	NodeID    uint64 `json:"node"` // the member that received the request
	Remote    string `json:"remote,omitempty"`
	Outcome   string `json:"outcome"` // "ok"; with a separate retention: "refused", "replayed", "reported"
	Detail    string `json:"detail,omitempty"`
	RequestID string `json:"requestId"`
}

// Position returns the position of the row.
func (r *AuditRow) Position() Position { return Position{r.Revision, r.Seq} }

// Outcomes of audit rows.
const (
	outcomeOK       = "ok"
	outcomeRefused  = "refused"  // a refused attempt
	outcomeReplayed = "replayed" // a repeated answer for an Idempotency-Key
	outcomeReported = "reported" // reported by another cluster
)

// EventTypes lists the types of audit rows.
var EventTypes = []string{"access", "autopilot", "backup", "certificate", "cluster", "key", "leader", "lease", "member",
	"operation", "peering", "secret", "setting", "token", "workload"}

// typesOfNouns has the type of an action by its first word.
var typesOfNouns = map[string]string{
	"access": "access", "backup": "backup", "leader": "leader", "lease": "lease", "member": "member",
	"operation": "operation", "peering": "peering", "secret": "secret", "setting": "setting", "workload": "workload",
	"certificate": "certificate", "ca": "certificate", "enrollment": "certificate",
	"key": "key", "dek": "key",
	"api_token": "token", "join_token": "token", "api_key": "token",
	"cluster": "cluster", "store": "cluster", "schema": "cluster", "audit": "cluster",
}

// typeOf returns the type of an action; decisions and observations of autopilot have their own type. Rows of another
// version may have a noun that is unknown here.
func typeOf(action string) string {
	switch action {
	case "member.role", "member.healthy", "member.unhealthy":
		return "autopilot"
	}
	noun, _, _ := strings.Cut(action, ".")
	if known := typesOfNouns[noun]; known != "" {
		return known
	}
	if strings.HasSuffix(noun, "token") {
		return "token"
	}
	return "cluster"
}

// Position is a place in the audit: after one row, or after a whole revision.
type Position struct{ Revision, Seq uint64 }

// wholeRevision is the Seq after all rows of a revision.
const wholeRevision = math.MaxInt64

// After returns the position after all rows of a revision.
func After(revision uint64) Position { return Position{revision, wholeRevision} }

// String returns "revision.seq", or "revision" for the position after a whole revision.
func (p Position) String() string {
	if p.Seq == wholeRevision {
		return strconv.FormatUint(p.Revision, 10)
	}
	return fmt.Sprintf("%d.%d", p.Revision, p.Seq)
}

// ParsePosition parses what String returns.
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

// audit writes the audit row of a mutation; every mutation must have one. detail must not contain a secret.
func (t *Tx) audit(action, object, detail string) error {
	outcome := outcomeOK
	if t.actor.Peer {
		outcome = outcomeReported
	}
	return t.auditRow(AuditRow{
		Actor:   t.actor.String(),
		NodeID:  t.actor.NodeID,
		Remote:  t.actor.Remote,
		Action:  action,
		Object:  object,
		Outcome: outcome,
		Detail:  detail,
	})
}

// auditRow writes a row with the position, time, type and request of the transaction.
func (t *Tx) auditRow(r AuditRow) error {
	r.Revision, r.Seq, r.At, r.Type, r.RequestID = t.Rev, t.tx.Next(), rfc3339(t.Now), typeOf(r.Action), t.actor.RequestID
	r.Actor, r.Remote, r.Object = sizes.Cut("audit", "actor", r.Actor), sizes.Cut("audit", "remote", r.Remote),
		sizes.Cut("audit", "object", r.Object)
	r.Detail, r.RequestID = sizes.Cut("audit", "detail", r.Detail), sizes.Cut("audit", "request_id", r.RequestID)
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
	Actor        string    // the whole actor, or its name or accessor
	Action       string    // prefix of the action
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

// clockSkew is the difference of two leaders' clocks up to which a search by time misses no rows.
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

// auditFrom returns the first revision committed at or after a time. It uses binary search over revisions, which avoids
// an index on times. Where clocks went backwards it returns one of the candidates.
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

// made formats the detail of an audit row: NAME=VALUE pairs separated by blanks, without empty values. Values with
// blanks or quotes are quoted as in Go. It must not contain a secret.
func made(pairs ...any) string {
	var b strings.Builder
	for i := 0; i+1 < len(pairs); i += 2 {
		value := madeValue(pairs[i+1])
		if value == "" {
			continue
		}
		if strings.ContainsAny(value, " \"\n\t\\") {
			value = strconv.Quote(value)
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(pairs[i].(string))
		b.WriteByte('=')
		b.WriteString(value)
	}
	return b.String()
}

func madeValue(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case []string:
		return strings.Join(v, ",")
	case time.Duration:
		if v <= 0 {
			return ""
		}
		return (v + time.Second - 1).Truncate(time.Second).String() // an expiry of whole seconds cuts its last one short
	case map[string]string:
		list := make([]string, 0, len(v))
		for _, k := range slices.Sorted(maps.Keys(v)) {
			list = append(list, k+":"+v[k])
		}
		return strings.Join(list, ",")
	case uint64:
		if v == 0 {
			return ""
		}
		return strconv.FormatUint(v, 10)
	case int:
		return strconv.Itoa(v)
	}
	return fmt.Sprint(v)
}

// lifetime returns the time until an expiry; 0: never expires.
func lifetime(now time.Time, expires *time.Time) time.Duration {
	if expires == nil {
		return 0
	}
	return expires.Sub(now)
}

// RefusedAttempt is a refused request, or several equal ones within a window.
type RefusedAttempt struct {
	Actor  string // of the credential, if it was valid
	Remote string
	Object string // method and path pattern
	Detail string // why, and how often; never a credential
}

// NoteRefusals writes an audit row for each refused attempt.
func (au Audit) NoteRefusals(ctx context.Context, list []RefusedAttempt) error {
	return au.s.Write(ctx, Actor{Name: "muster"}, func(tx *Tx) error {
		for _, r := range list {
			if err := tx.auditRow(AuditRow{
				Actor:   r.Actor,
				NodeID:  au.s.cfg.NodeID,
				Remote:  r.Remote,
				Action:  "access.refused",
				Object:  r.Object,
				Outcome: outcomeRefused,
				Detail:  r.Detail,
			}); err != nil {
				return err
			}
		}
		return nil
	})
}

// NoteTransfer writes the audit row of a requested hand-over before it begins.
func (au Audit) NoteTransfer(ctx context.Context, actor Actor, to uint64) error {
	return au.s.Write(ctx, actor, func(tx *Tx) error { return tx.audit("leader.transfer", nodeObject(to), "asked for") })
}

// NoteTransferred writes the audit row of the outcome of a hand-over to a member. took reports whether that member has
// led since a revision before the hand-over; leadership may have moved on since. The current leader writes the row and
// is its object.
func (au Audit) NoteTransferred(ctx context.Context, actor Actor, to, since uint64) (took bool, err error) {
	err = au.s.Write(ctx, actor, func(tx *Tx) error {
		if took = to == au.s.cfg.NodeID; !took && since > 0 {
			if took, err = tx.ledSince(to, since); err != nil {
				return err
			}
		}
		row := AuditRow{
			Actor:   tx.actor.String(),
			NodeID:  tx.actor.NodeID,
			Remote:  tx.actor.Remote,
			Action:  "leader.transferred",
			Object:  nodeObject(au.s.cfg.NodeID),
			Outcome: outcomeOK,
		}
		switch {
		case took && to != au.s.cfg.NodeID:
			row.Detail = fmt.Sprintf("node %d has led since; node %d leads", to, au.s.cfg.NodeID)
		case !took:
			row.Outcome, row.Detail = outcomeRefused, fmt.Sprintf("node %d was asked for; node %d leads", to, au.s.cfg.NodeID)
		}
		return tx.auditRow(row)
	})
	return took, err
}

// ledSince reports whether a member has begun to lead after a revision.
func (t *Tx) ledSince(nodeID, revision uint64) (bool, error) {
	return t.get("SELECT 1 FROM audit WHERE revision > ? AND action = 'leader.elected' AND object = ?",
		[]any{revision, nodeObject(nodeID)}, new(int))
}

// NoteBackup writes the audit row of a backup that an operator makes with access to a member's files.
func (au Audit) NoteBackup(ctx context.Context, actor Actor, how string) error {
	return au.s.Write(ctx, actor, func(tx *Tx) error { return tx.audit("backup.save", "cluster", how) })
}
