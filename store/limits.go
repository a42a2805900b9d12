package store

import (
	"regexp"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"muster/store/engine"
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
	boundOfKeys       = byteBound{"api_keys", "role_descriptors metadata", "role_descriptors and metadata of the API keys", "owner_id", 16 << 20, 256 << 20}
	boundOfJoinTokens = byteBound{"join_tokens", "labels hosts", "labels and hosts of the join tokens", "created_by", 16 << 20, 128 << 20}
	boundOfAnswers    = byteBound{"idempotency", "sealed", "answers remembered for the Idempotency-Keys", "accessor", 64 << 20, 256 << 20}
	boundOfSecrets    = byteBound{"secrets", "sealed", "the values of the secrets", "", 0, 256 << 20}
	boundOfMembers    = byteBound{"members", "resources labels", "gpus, services and labels of the members", "", 0, 128 << 20}
	boundOfPeerings   = byteBound{"peerings", "server_addresses manual_addresses ca_pems meta",
		"addresses, certificates and meta of the peerings", "", 0, 64 << 20}
)

var byteBounds = []*byteBound{&boundOfKeys, &boundOfJoinTokens, &boundOfAnswers, &boundOfSecrets, &boundOfMembers, &boundOfPeerings}

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

// Size limits a column with input of others: callers, token holders, members, other clusters, archives.
type Size struct {
	Table, Column string
	Field         string // its name in refusals
	Max           int    // bytes
}

// Sizes lists all of them. The writer enforces them (Tx.exec), and the schema does by a constraint size_TABLE_COLUMN of
// each column. TestSizes fails for a text or blob column that is neither here nor in ownColumns.
var Sizes = []Size{
	{"settings", "value", "the value", 16 << 10},

	{"members", "name", "name", 64},
	{"members", "raft_address", "raft_address", 300},
	{"members", "api_address", "api_address", 300},
	{"members", "advertise_addr", "advertise_addr", 255},
	{"members", "wg_public_key", "wg_public_key", 255},
	{"members", "binary_version", "binary_version", 64},
	{"members", "zone", "zone", 63},
	{"members", "os", "os", 32},
	{"members", "arch", "arch", 32},
	{"members", "resources", "gpus and services", 16 << 10},
	{"members", "labels", "labels", 128 << 10},
	{"members", "hooks_outcome", "the outcome of the hooks", 64 << 10},
	{"members", "hosts", "hosts", 32 << 10},
	{"removed_members", "name", "name", 64},

	{"leases", "id", "the lease id", 128},
	{"leases", "kind", "kind", 64},

	{"join_tokens", "labels", "labels", 64 << 10},
	{"join_tokens", "hosts", "hosts", 16 << 10},
	{"join_tokens", "bind_cidr", "bindCidr", 64},
	{"join_tokens", "bind_name", "bindName", 128},
	{"join_tokens", "bind_key", "bindKey", 64},
	{"join_tokens", "created_by", "the name of the credential", 1200},
	{"join_token_uses", "remote", "the caller's address", 255},

	{"api_tokens", "name", "name", 64},
	{"api_tokens", "created_by", "the name of the credential", 1200},

	{"api_keys", "name", "name", 1024},
	{"api_keys", "role_descriptors", "role_descriptors", 16 << 10},
	{"api_keys", "metadata", "metadata", 16 << 10},
	{"api_keys", "owner_name", "the name of the credential", 1024},

	{"enrollments", "enrolled_by", "the name of the credential", 1200},
	{"enrollments", "remote", "the caller's address", 255},

	{"authorities", "cert_pem", "certPEM", 256 << 10},
	{"authorities", "sealed_key", "keyPEM", 16 << 10},
	{"ca_rotations", "started_by", "the name of the credential", 1200},

	{"secrets", "name", "name", 128},
	{"secrets", "sealed", "value", 66 << 10}, // 64 KiB and what sealing adds

	{"peerings", "name", "PeerName", 64},
	{"peerings", "peer_id", "PeerID", 255},
	{"peerings", "server_name", "ServerName", 255},
	{"peerings", "server_addresses", "ServerAddresses", 32 << 10},
	{"peerings", "manual_addresses", "ManualServerAddresses", 32 << 10},
	{"peerings", "ca_pems", "CA", 64 << 10},
	{"peerings", "meta", "Meta", 64 << 10},
	{"peerings", "remote_datacenter", "Datacenter", 128},
	{"peerings", "status_reason", "the reason", 1024},
	{"peering_secrets", "sealed", "the stream secret", 4096},
	{"peer_members", "id", "id of a member", 255},
	{"peer_members", "name", "name of a member", 255},
	{"peer_members", "raft_address", "raftAddress of a member", 300},
	{"peer_members", "api_address", "apiAddress of a member", 300},
	{"peer_members", "health", "health of a member", 32},
	{"peering_tombstones", "name", "PeerName", 64},
	{"peering_tombstones", "peer_id", "PeerID", 255},
	{"peering_tombstones", "server_name", "ServerName", 255},
	{"peering_tombstones", "addresses", "ServerAddresses", 32 << 10},
	{"peering_tombstones", "ca_pems", "CA", 64 << 10},
	{"peering_tombstones", "sealed", "the stream secret", 4096},

	{"backups", "target", "backup.directory", 1024},
	{"backups", "reason", "the reason", 2048},
	{"workloads", "path", "path", 1024},
	{"workloads", "unix_user", "user", 64},
	{"workloads", "unix_group", "group", 64},
	{"workloads", "systemd_unit", "unit", 255},
	{"workloads", "hosts", "hosts", 4096},
	{"workloads", "created_by", "the name of the credential", 1200},
	{"peer_bundles", "trust_domain", "the trust domain", 255},
	{"peer_bundles", "bundle", "the trust bundle", 64 << 10},

	{"idempotency", "key", "Idempotency-Key", 128},
	{"idempotency", "sealed", "the answer, which an Idempotency-Key has the cluster remember,", 256 << 10},

	{"audit", "actor", "the actor", 1200},
	{"audit", "remote", "the caller's address", 255},
	{"audit", "object", "the object", 512},
	{"audit", "detail", "the detail", 4096},
	{"audit", "request_id", "the request id", 128},
}

// MaxSize returns the limit of a column in bytes. It panics for a column that is not in Sizes.
func MaxSize(table, column string) int { return sizeOf(table, column).Max }

func sizeOf(table, column string) *Size {
	for i := range Sizes {
		if s := &Sizes[i]; s.Table == table && s.Column == column {
			return s
		}
	}
	panic("store: " + table + "." + column + " has no size")
}

// check rejects a value that is too long.
func (s *Size) check(v any) error {
	n := 0
	switch v := v.(type) {
	case string:
		n = len(v)
	case []byte:
		n = len(v)
	}
	if n > s.Max {
		return refuse(Invalid, "%s must be at most %d bytes long", s.Field, s.Max)
	}
	return nil
}

// CheckSize rejects a value that is too long for a column. Callers use it before they do any work for a request.
func CheckSize(table, column string, value []byte) error { return sizeOf(table, column).check(value) }

// cut truncates a text to the limit of its column, for generated texts that quote input.
func cut(table, column, text string) string {
	most := MaxSize(table, column)
	if len(text) <= most {
		return text
	}
	text = text[:most-len("…")]
	for len(text) > 0 {
		if r, n := utf8.DecodeLastRuneInString(text); r != utf8.RuneError || n > 1 {
			break
		}
		text = text[:len(text)-1]
	}
	return text + "…"
}

// sized is an argument of a statement that a Size limits.
type sized struct {
	arg  int
	size *Size
}

var (
	sizedArguments sync.Map // query -> []sized
	insertColumns  = regexp.MustCompile(`^\s*INSERT INTO (\w+) \(([^()]*)\)\s+VALUES \(((?:[^()']|'[^']*')*)\)`)
	setColumns     = regexp.MustCompile(`(?s)\bSET\s+(.*?)(?:\s+WHERE\s|$)`)
	setArgument    = regexp.MustCompile(`(\w+) = (\?\d*|[^,?]*)`)
)

// boundsOf finds the arguments of a statement for columns with a Size, from the statement's text.
func boundsOf(query string) []sized {
	if list, ok := sizedArguments.Load(query); ok {
		return list.([]sized)
	}
	var list []sized
	table := engine.TableOf(query)
	add := func(column string, arg int) {
		for i := range Sizes {
			if s := &Sizes[i]; s.Table == table && s.Column == column {
				list = append(list, sized{arg, s})
			}
		}
	}
	if m := insertColumns.FindStringSubmatch(query); m != nil {
		each(strings.Split(m[2], ","), strings.Split(m[3], ","), add)
	} else if m := setColumns.FindStringSubmatch(query); m != nil {
		var columns, values []string
		for _, a := range setArgument.FindAllStringSubmatch(m[1], -1) {
			columns, values = append(columns, a[1]), append(values, a[2])
		}
		each(columns, values, add)
	}
	sizedArguments.Store(query, list)
	return list
}

// each pairs columns with their arguments.
func each(columns, values []string, add func(column string, arg int)) {
	next := 0
	for i := range min(len(columns), len(values)) {
		number, found := strings.CutPrefix(strings.TrimSpace(values[i]), "?")
		if !found {
			continue
		}
		n := next
		if number == "" {
			next++
		} else if k, err := strconv.Atoi(number); err == nil {
			n = k - 1
		}
		add(strings.TrimSpace(columns[i]), n)
	}
}

// checkSizes rejects a statement with a value that is too long for its column.
func checkSizes(query string, args []any) error {
	for _, b := range boundsOf(query) {
		if b.arg < len(args) {
			if err := b.size.check(args[b.arg]); err != nil {
				return err
			}
		}
	}
	return nil
}
