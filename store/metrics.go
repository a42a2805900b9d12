package store

import (
	"context"
	"database/sql"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func gauge(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	descRevision   = gauge("muster_revision", "Newest revision of the cluster that this member knows.")
	descEpoch      = gauge("muster_epoch", "Number of leaderships that have begun in this cluster.")
	descMembers    = gauge("muster_members", "Members of the cluster by Raft role and drain state.", "role", "drain")
	descUnhealthy  = gauge("muster_members_unhealthy", "Members that are recorded as unhealthy.")
	descTokens     = gauge("muster_tokens", "Tokens by kind and state.", "kind", "state")
	descPeerings   = gauge("muster_peerings", "Peerings by state.", "state")
	descLeases     = gauge("muster_leases", "Leases that have not expired.")
	descAudit      = gauge("muster_audit_rows", "Rows of the audit table.")
	descGeneration = gauge("muster_dek_generation", "Active generation of the data-encryption key.")
	descSealed     = gauge("muster_dek_reencrypt_values", "Values to re-encrypt when the active generation became active.")
	descRemaining  = gauge("muster_dek_reencrypt_remaining", "Values still sealed under an older generation.")
	descCert       = gauge("muster_certificate_expiry_timestamp_seconds",
		"Expiry of the newest leaf of this member, and the earliest of any member.", "kind", "of")
	descAuthority = gauge("muster_authority_expiry_timestamp_seconds",
		"Earliest expiry of the authorities of a kind in use.", "kind")
	descBackupInterval = gauge("muster_backup_interval_seconds", "Interval of scheduled backups; 0: never.")
	descBackupGood     = gauge("muster_backup_last_good_timestamp_seconds",
		"Start of the last good backup whose holder is a member; 0 without one.")
	descBackupBytes = gauge("muster_backup_last_good_bytes", "Size of that backup.")
	descBackupTook  = gauge("muster_backup_last_good_duration_seconds", "Duration of that backup.")
	descBackupOK    = gauge("muster_backup_last_ok", "1 when the last finished backup is good; absent without one.")
	descBackups     = gauge("muster_backups", "Records of backups by state.", "state")
	descWindow      = gauge("muster_event_window_events", "Events that are kept in memory for readers.")
)

// Describe sends nothing, which makes the collector unchecked: its metrics depend on the member's role.
func (s *Store) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector from this member's state. It asks no other member.
func (s *Store) Collect(out chan<- prometheus.Metric) {
	set := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	s.Engine.Collect(out)
	set(descRevision, float64(s.KnownRevision()))
	s.events.mu.Lock()
	window := len(s.events.events)
	s.events.mu.Unlock()
	set(descWindow, float64(window))
	s.collectInventory(set)
	s.collectBackups(set)
}

// collectBackups sends nothing while backups are neither configured nor recorded.
func (s *Store) collectBackups(set func(*prometheus.Desc, float64, ...string)) {
	ctx, cancel := context.WithTimeout(context.Background(), inventoryTimeout)
	defer cancel()
	var o BackupSettings
	var list []Backup
	members := map[uint64]bool{}
	if err := s.local(ctx, func(v *View) (err error) {
		if o, err = v.backupSettings(); err != nil {
			return err
		}
		if list, err = v.backups(); err != nil {
			return err
		}
		ids, err := collect(v, func(rows *sql.Rows) (id uint64, err error) { return id, rows.Scan(&id) },
			"SELECT raft_node_id FROM members")
		for _, id := range ids {
			members[id] = true
		}
		return err
	}); err != nil {
		return
	}
	set(descBackupInterval, o.Interval.Seconds())
	states := map[string]int{BackupGood: 0, BackupFailed: 0, BackupWaiting: 0, BackupRunning: 0}
	var good, last *Backup
	for i := range list {
		b := &list[i]
		states[b.State]++
		if good == nil && b.Present(members) {
			good = b
		}
		if last == nil && !b.Active() {
			last = b
		}
	}
	for state, n := range states {
		set(descBackups, float64(n), state)
	}
	if good == nil {
		set(descBackupGood, 0)
	} else {
		set(descBackupGood, float64(good.StartedAt.Unix()))
		set(descBackupBytes, float64(good.Size))
		set(descBackupTook, good.FinishedAt.Sub(good.StartedAt).Seconds())
	}
	switch {
	case last == nil:
	case last.State == BackupGood:
		set(descBackupOK, 1)
	default:
		set(descBackupOK, 0)
	}
}

func (s *Store) collectInventory(set func(*prometheus.Desc, float64, ...string)) {
	ctx, cancel := context.WithTimeout(context.Background(), inventoryTimeout)
	defer cancel()
	in, err := s.Inventory(ctx)
	if err != nil {
		return // a new member has no replica yet
	}
	set(descEpoch, float64(in.Epoch))
	for k, n := range in.Members {
		role := k[0]
		if role == "" {
			role = "none"
		}
		set(descMembers, float64(n), role, k[1])
	}
	set(descUnhealthy, float64(in.Unhealthy))
	for k, n := range in.Tokens {
		set(descTokens, float64(n), k[0], k[1])
	}
	for state, n := range in.Peerings {
		set(descPeerings, float64(n), state)
	}
	set(descLeases, float64(in.Leases))
	set(descAudit, float64(in.AuditRows))
	set(descGeneration, float64(in.Generation))
	set(descSealed, float64(in.Total))
	set(descRemaining, float64(in.Remaining))
	for k, t := range in.Certificates {
		set(descCert, float64(t.Unix()), k[0], map[string]string{"own": "member", "any": "cluster"}[k[1]])
	}
	for kind, t := range in.Authorities {
		set(descAuthority, float64(t.Unix()), kind)
	}
}

// Inventory has the counts of the database's contents.
type Inventory struct {
	Revision   uint64
	Epoch      uint64
	Members    map[[2]string]int // by Raft role ("" outside) and drain state
	Unhealthy  int
	Tokens     map[[2]string]int // by kind and state
	Peerings   map[string]int    // by state
	Leases     int
	AuditRows  uint64
	Generation uint64 // active data-encryption key
	Total      int    // values to re-encrypt when it became active
	Remaining  int    // of those, still under an older generation

	Authorities map[string]time.Time // earliest expiry of those in use, by kind
	// earliest expiry of members' newest leaves, by kind and "own" or "any"
	Certificates map[[2]string]time.Time
}

// inventoryTimeout is how long a scrape waits for the database; other metrics are sent in any case.
const inventoryTimeout = time.Second

// inventoryAge is the maximum age of an inventory while nothing changes: tokens expire without a change.
const inventoryAge = 15 * time.Second

type inventories struct {
	mu   sync.Mutex
	last *Inventory
	at   time.Time
}

// Inventory counts the contents of the database: the leader's, or elsewhere the local mirror's. Without changes it
// returns a cached result for up to 15 s. It asks no other member and returns ErrNoLeader before the first mirror.
func (s *Store) Inventory(ctx context.Context) (*Inventory, error) {
	c := &s.inventories
	c.mu.Lock()
	defer c.mu.Unlock()
	rev := s.Mirror.Revision()
	if s.Leading() {
		rev = s.Revision()
	}
	if c.last != nil && c.last.Revision == rev && time.Since(c.at) < inventoryAge {
		return c.last, nil
	}
	var in *Inventory
	err := s.local(ctx, func(v *View) (err error) {
		in, err = v.inventory(s.cfg.NodeID)
		return err
	})
	if err != nil {
		return nil, err
	}
	c.last, c.at = in, time.Now()
	return in, nil
}

const (
	countMembers    = "SELECT raft_role, drain_state, count(*) FROM members GROUP BY raft_role, drain_state"
	countJoinTokens = `SELECT 'join', CASE WHEN t.revoked_at IS NOT NULL THEN 'revoked' WHEN t.uses >= t.max_uses THEN
		'used'
		WHEN t.expires_at < ? THEN 'expired' WHEN ` + superseded + ` THEN 'superseded' ELSE 'valid' END AS state, count(*)
		FROM join_tokens t GROUP BY state`
	countAPITokens = `SELECT 'api', CASE WHEN expires_at <= ? THEN 'expired' ELSE 'valid' END AS state, count(*)
		FROM api_tokens GROUP BY state`
	countPeerings = "SELECT state, '', count(*) FROM peerings GROUP BY state"
	// A member's newest leaf of a kind is the one that it uses; those of removed members are revoked.
	expiringLeaves = `SELECT kind, min(newest) FROM (SELECT kind, max(expires_at) AS newest FROM certificates
		WHERE revoked_at IS NULL AND raft_node_id IN (SELECT raft_node_id
		FROM members) GROUP BY raft_node_id, kind) GROUP BY kind`
	ownLeaves = "SELECT kind, max(expires_at) FROM certificates " +
		"WHERE revoked_at IS NULL AND raft_node_id = ? GROUP BY kind"
	expiringAuthorities  = "SELECT kind, min(expires_at) FROM authorities WHERE state <> 'retired' GROUP BY kind"
	activeGeneration     = "SELECT generation, rows_total FROM dek_generations WHERE state = 'active'"
	countUnhealthy       = "SELECT count(*) FROM unhealthy_members"
	countLeases          = "SELECT count(*) FROM leases WHERE expires_at > ?"
	selectRevisionEpoch  = "SELECT revision, epoch FROM cluster"
	generationInProgress = "SELECT 1 FROM dek_generations WHERE state = 're-encrypting'"
)

func (v *View) inventory(self uint64) (*Inventory, error) {
	in := &Inventory{}
	now := rfc3339(v.Now)
	var err error
	try := func(f func() error) {
		if err == nil {
			err = f()
		}
	}
	one := func(query string, args []any, dest ...any) {
		try(func() error {
			_, err := v.get(query, args, dest...)
			return err
		})
	}
	one(selectRevisionEpoch, nil, &in.Revision, &in.Epoch)
	one(countUnhealthy, nil, &in.Unhealthy)
	one(countLeases, []any{now}, &in.Leases)
	one(activeGeneration, nil, &in.Generation, &in.Total)
	try(func() (err error) { in.AuditRows, err = v.auditRows(); return err })
	try(func() error {
		moving, err := v.get(generationInProgress, nil, new(int))
		if err == nil && moving {
			_, err = v.get(countSealed, []any{int64(in.Generation)}, &in.Remaining)
		}
		return err
	})
	try(func() (err error) { in.Members, err = v.counts(countMembers); return err })
	try(func() (err error) { in.Tokens, err = v.counts(countJoinTokens, now, now); return err })
	try(func() error {
		api, err := v.counts(countAPITokens, now)
		for k, n := range api {
			in.Tokens[k] = n
		}
		return err
	})
	try(func() error {
		list, err := v.counts(countPeerings)
		in.Peerings = map[string]int{}
		for k, n := range list {
			in.Peerings[k[0]] = n
		}
		return err
	})
	try(func() (err error) { in.Authorities, err = v.times(expiringAuthorities); return err })
	in.Certificates = map[[2]string]time.Time{}
	for whose, find := range map[string]func() (map[string]time.Time, error){
		"any": func() (map[string]time.Time, error) { return v.times(expiringLeaves) },
		"own": func() (map[string]time.Time, error) { return v.times(ownLeaves, int64(self)) },
	} {
		try(func() error {
			list, err := find()
			for kind, t := range list {
				in.Certificates[[2]string{kind, whose}] = t
			}
			return err
		})
	}
	return in, err
}

func (v *View) counts(query string, args ...any) (map[[2]string]int, error) {
	rows, err := v.query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	m := map[[2]string]int{}
	for rows.Next() {
		var a, b string
		var n int
		if err := rows.Scan(&a, &b, &n); err != nil {
			return nil, err
		}
		m[[2]string{a, b}] = n
	}
	return m, rows.Err()
}

func (v *View) times(query string, args ...any) (map[string]time.Time, error) {
	rows, err := v.query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	m := map[string]time.Time{}
	for rows.Next() {
		var kind string
		var at sql.NullString
		if err := rows.Scan(&kind, &at); err != nil {
			return nil, err
		}
		if at.Valid {
			m[kind] = parseTime(at.String)
		}
	}
	return m, rows.Err()
}
