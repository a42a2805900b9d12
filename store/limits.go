package store

import (
	"fmt"
	"strings"
	"sync"

	"muster/store/sizes"
)

// Settings that limit the number of rows that callers can create. A cluster of thousands of members does not reach the
// defaults.
const (
	SettingLimitAPITokens    = "limits.api_tokens"
	SettingLimitAPIKeys      = "limits.api_keys"
	SettingLimitJoinTokens   = "limits.join_tokens"
	SettingLimitCertificates = "limits.certificates"
	SettingLimitEnrollments  = "limits.enrollments"
	SettingLimitLeases       = "limits.leases"
	SettingLimitSecrets      = "limits.secrets"
	SettingLimitPeerings     = "limits.peerings"
	SettingLimitAnswers      = "limits.answers"
	SettingLimitWorkloads    = "limits.workloads"
)

// autoAnswers is how many answers to forwarded requests are kept per caller. They are needed for seconds, so the oldest
// are deleted.
const autoAnswers = 10_000

var limitSettings = []Setting{
	limitSetting(SettingLimitAnswers, 10_000,
		"how many answers for Idempotency-Keys are kept per credential, a day each"),
	limitSetting(SettingLimitAPIKeys, 10_000,
		"how many API keys and enrollment tokens one credential may have, including revoked and expired ones of the "+
			"last 30 days"),
	limitSetting(SettingLimitAPITokens, 10_000,
		"how many API tokens there may be, including expired ones of the last 30 days"),
	limitSetting(SettingLimitCertificates, 1000,
		"how many certificates one member may have, including expired ones of the last 30 days"),
	limitSetting(SettingLimitEnrollments, 100_000,
		"how many enrollments there may be, including expired ones of the last 30 days"),
	limitSetting(SettingLimitJoinTokens, 10_000,
		"how many join tokens one credential may have, including expired ones of the last 30 days"),
	limitSetting(SettingLimitLeases, 10_000, "how many leases there may be on one member"),
	limitSetting(SettingLimitPeerings, 1000,
		"how many peerings there may be, including deleted ones that the other cluster does not know of yet"),
	limitSetting(SettingLimitSecrets, 20_000, "how many secrets there may be, each of at most 64 KiB"),
	limitSetting(SettingLimitWorkloads, 1000,
		"how many workloads may be registered; each member keeps certificates for its own and for those of any member"),
}

func limitSetting(name string, standard uint64, help string) Setting {
	o := numberSetting(name, standard, 1, 1_000_000, help)
	o.Scope = ScopeClusterManage
	return o
}

func (t *Tx) boundAPITokens() error {
	return t.bound(SettingLimitAPITokens, "API tokens", "SELECT count(*) FROM api_tokens")
}

// largeRow is the size in bytes from which a row counts against a byteBound; for small rows the limit of their number
// is enough.
const largeRow = 4 << 10

// byteBound is a limit in bytes of rows that can be large.
type byteBound struct {
	table, columns string
	what           string // in refusals
	owner          string // column with the owner of a row; "": none
	each, all      int    // bytes, of one owner and of all
}

var (
	boundOfKeys = byteBound{
		table:   "api_keys",
		columns: "role_descriptors metadata",
		what:    "role_descriptors and metadata of the API keys",
		owner:   "owner_id",
		each:    16 << 20,
		all:     256 << 20,
	}
	boundOfJoinTokens = byteBound{
		table:   "join_tokens",
		columns: "labels hosts",
		what:    "labels and hosts of the join tokens",
		owner:   "created_by",
		each:    16 << 20,
		all:     128 << 20,
	}
	boundOfAnswers = byteBound{
		table:   "idempotency",
		columns: "sealed",
		what:    "answers remembered for the Idempotency-Keys",
		owner:   "accessor",
		each:    64 << 20,
		all:     256 << 20,
	}
	boundOfSecrets = byteBound{
		table:   "secrets",
		columns: "sealed",
		what:    "the values of the secrets",
		all:     256 << 20,
	}
	boundOfMembers = byteBound{
		table:   "members",
		columns: "resources labels",
		what:    "gpus, services and labels of the members",
		all:     128 << 20,
	}
	boundOfPeerings = byteBound{
		table:   "peerings",
		columns: "server_addresses manual_addresses ca_pems meta",
		what:    "addresses, certificates and meta of the peerings",
		all:     64 << 20,
	}
)

var byteBounds = []*byteBound{
	&boundOfKeys, &boundOfJoinTokens, &boundOfAnswers, &boundOfSecrets, &boundOfMembers, &boundOfPeerings,
}

func (b *byteBound) sum() string {
	var list []string
	for _, c := range strings.Fields(b.columns) {
		list = append(list, "ifnull(octet_length("+c+"), 0)")
	}
	return strings.Join([]string{"SELECT", "ifnull(sum(" + strings.Join(list, " + ") + "), 0)", "FROM", b.table}, " ")
}

// boundBytes rejects a row of row bytes, which replaces one of had bytes, when the bound would be exceeded.
func (t *Tx) boundBytes(b *byteBound, owner string, had, row int) error {
	if row < largeRow || row <= had {
		return nil
	}
	check := func(most int, whose, where string, args ...any) error {
		var have int64
		if _, err := t.get(b.sum()+where, args, &have); err != nil {
			return err
		}
		if int(have)-had+row > most {
			return refuse(Full, "%s%s take %d bytes, and no more than %d are kept", b.what, whose, have, most)
		}
		return nil
	}
	if b.owner != "" {
		if err := check(b.each, " of this credential", " WHERE "+b.owner+" = ?", owner); err != nil {
			return err
		}
	}
	return check(b.all, "", "")
}

// boundAPIKeys counts bytes: octet_length does not read the documents for that, as length would.
func (t *Tx) boundAPIKeys(owner string, size int) error {
	if err := t.boundBytes(&boundOfKeys, owner, 0, size); err != nil {
		return err
	}
	return t.bound(SettingLimitAPIKeys, "API keys and enrollment tokens of this credential",
		"SELECT count(*) FROM api_keys WHERE owner_id = ?", owner)
}

func (t *Tx) boundJoinTokens(owner string, size int) error {
	if err := t.boundBytes(&boundOfJoinTokens, owner, 0, size); err != nil {
		return err
	}
	return t.bound(SettingLimitJoinTokens, "join tokens of this credential",
		"SELECT count(*) FROM join_tokens WHERE created_by = ?", owner)
}

func (t *Tx) boundEnrollments() error {
	return t.bound(SettingLimitEnrollments, "enrollments", "SELECT count(*) FROM enrollments")
}

func (t *Tx) boundLeases(nodeID uint64) error {
	return t.bound(SettingLimitLeases, "leases on this member",
		"SELECT count(*) FROM leases WHERE raft_node_id = ?", int64(nodeID))
}

func (t *Tx) boundCertificates(nodeID uint64) error {
	return t.bound(SettingLimitCertificates, "certificates of this member",
		"SELECT count(*) FROM certificates WHERE raft_node_id = ?", int64(nodeID))
}

func (t *Tx) boundSecrets() error {
	return t.bound(SettingLimitSecrets, "secrets", "SELECT count(*) FROM secrets")
}

func (t *Tx) boundPeerings() error {
	return t.bound(SettingLimitPeerings, "peerings",
		"SELECT (SELECT count(*) FROM peerings) + (SELECT count(*) FROM peering_tombstones)")
}

// boundAnswers makes room for one more remembered answer of the actor, or rejects it. Answers for callers' keys are
// promised for a day. Of answers for keys that older members generate, the oldest are deleted; they are counted only
// now and then because counting is expensive.
func (t *Tx) boundAnswers(size int) error {
	err := t.boundBytes(&boundOfAnswers, t.actor.Accessor, 0, size)
	if t.actor.Auto() {
		if err != nil {
			return t.exec("DELETE FROM idempotency WHERE accessor = ? AND key >= 'auto-' AND key < 'auto.'", t.actor.Accessor)
		}
		key := AutoKey + t.actor.Accessor
		if t.counts.add(key, 2*autoAnswers) {
			return nil
		}
		t.counts.set(key, autoAnswers)
		var oldest string // the oldest that is kept
		many, err := t.get("SELECT key FROM idempotency WHERE accessor = ? AND key >= 'auto-' AND key < 'auto.' "+
			"ORDER BY key DESC LIMIT 1 OFFSET ?",
			[]any{t.actor.Accessor, autoAnswers}, &oldest)
		if err != nil || !many {
			return err
		}
		return t.exec("DELETE FROM idempotency WHERE accessor = ? AND key >= 'auto-' AND key < ?", t.actor.Accessor, oldest)
	}
	if err != nil {
		return err
	}
	return t.bound(SettingLimitAnswers, "answers remembered for the Idempotency-Keys of this credential",
		"SELECT count(*) FROM idempotency WHERE accessor = ? AND (key < 'auto-' OR key >= 'auto.')", t.actor.Accessor)
}

// counts caches upper bounds of the numbers of rows that are limited, so that not every insert counts them. Only the
// leader's writer uses it, which is the only one to insert rows.
type counts struct {
	mu   sync.Mutex
	most map[string]*count
}

type count struct {
	rows   uint64 // an upper bound: the last count plus later inserts
	checks uint64 // inserts until the next count
}

const (
	minCountChecks = 256     // a count is valid for this many inserts, or for an eighth of it
	maxCounts      = 100_000 // maximum size of the cache
)

// forget empties the cache at the beginning of a leadership: other leaders have inserted rows.
func (c *counts) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.most = nil
}

// add records an insert and reports whether the number of rows is certainly below a limit. If not, the caller must
// count them. An insert whose transaction fails stays recorded until the next count.
func (c *counts) add(key string, limit uint64) bool {
	if c == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.most[key]
	if n == nil || n.checks == 0 || n.rows >= limit {
		return false
	}
	n.rows++
	n.checks--
	return true
}

// set records a count, taken just before an insert.
func (c *counts) set(key string, rows uint64) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.most == nil || len(c.most) >= maxCounts {
		c.most = map[string]*count{}
	}
	c.most[key] = &count{rows: rows + 1, checks: max(minCountChecks, rows/8)}
}

// bound rejects an insert when the query counts as many rows as the setting allows.
func (t *Tx) bound(option, what, query string, args ...any) error {
	most, err := t.number(option)
	if err != nil {
		return err
	}
	key := option + fmt.Sprint(args...)
	if t.counts.add(key, most) {
		return nil
	}
	var have uint64
	if _, err := t.get(query, args, &have); err != nil {
		return err
	}
	if have >= most {
		return refuse(Full, "there are %d %s, and the setting %s allows no more", have, what, option)
	}
	t.counts.set(key, have)
	return nil
}

// Sizes are the limits in bytes of columns with input of others, see package sizes.
var (
	Sizes     = sizes.All
	MaxSize   = sizes.Max
	CheckSize = sizes.Check
)
