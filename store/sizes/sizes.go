// Package sizes limits the columns that hold input of others, in bytes. It finds the columns that a statement fills in
// the statement's text. It reads no tables and does not limit numbers of rows: package store does.
package sizes

import (
	"regexp"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"muster/store/engine"
)

// Size limits a column with input of others: callers, token holders, members, other clusters, archives.
type Size struct {
	Table, Column string
	Field         string // its name in refusals
	Max           int    // bytes
}

// All lists every limited column. The schema enforces each by a constraint size_TABLE_COLUMN. A test of package store
// fails for a text or blob column that is not here unless muster alone fills it.
var All = []Size{
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

// Max returns the limit of a column in bytes. It panics for a column that is not in All.
func Max(table, column string) int { return sizeOf(table, column).Max }

func sizeOf(table, column string) *Size {
	for i := range All {
		if s := &All[i]; s.Table == table && s.Column == column {
			return s
		}
	}
	panic("sizes: " + table + "." + column + " has no size")
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
		return engine.Refuse(engine.Invalid, "%s must be at most %d bytes long", s.Field, s.Max)
	}
	return nil
}

// Check rejects a value that is too long for a column, before any work is done for a request.
func Check(table, column string, value []byte) error { return sizeOf(table, column).check(value) }

// Cut truncates a text to the limit of its column, for generated texts that quote input.
func Cut(table, column, text string) string {
	most := Max(table, column)
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

// Argument is an argument of a statement that a Size limits.
type Argument struct {
	Index int // from 0
	Size  *Size
}

var (
	sizedArguments sync.Map // query -> []Argument
	insertColumns  = regexp.MustCompile(`^\s*INSERT INTO (\w+) \(([^()]*)\)\s+VALUES \(((?:[^()']|'[^']*')*)\)`)
	setColumns     = regexp.MustCompile(`(?s)\bSET\s+(.*?)(?:\s+WHERE\s|$)`)
	setArgument    = regexp.MustCompile(`(\w+) = (\?\d*|[^,?]*)`)
)

// Arguments finds the limited arguments of an INSERT or UPDATE in the statement's text.
func Arguments(query string) []Argument {
	if list, ok := sizedArguments.Load(query); ok {
		return list.([]Argument)
	}
	var list []Argument
	table := engine.TableOf(query)
	add := func(column string, arg int) {
		for i := range All {
			if s := &All[i]; s.Table == table && s.Column == column {
				list = append(list, Argument{arg, s})
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

// CheckStatement rejects a statement with a value that is too long for its column.
func CheckStatement(query string, args []any) error {
	for _, a := range Arguments(query) {
		if a.Index < len(args) {
			if err := a.Size.check(args[a.Index]); err != nil {
				return err
			}
		}
	}
	return nil
}
