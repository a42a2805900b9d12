package store

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
)

// instruments are what the write path counts; the rest is read when it is asked for.
type instruments struct {
	batch   prometheus.Histogram
	commit  prometheus.Histogram
	leaders prometheus.Counter
	refused prometheus.Counter
	failed  prometheus.Counter
}

func (i *instruments) init() {
	i.batch = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "muster_write_batch_size",
		Help: "Requests that one transaction has committed, on the leader.", Buckets: prometheus.ExponentialBuckets(1, 2, 9)})
	i.commit = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "muster_commit_duration_seconds",
		Help: "Time from handing a transaction to dqlite until a majority has it.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 13)})
	i.leaders = prometheus.NewCounter(prometheus.CounterOpts{Name: "muster_leader_changes_total",
		Help: "Changes of leader that this member has seen since it started."})
	i.refused = prometheus.NewCounter(prometheus.CounterOpts{Name: "muster_writes_refused_total",
		Help: "Writes that the leader has refused for what they asked."})
	i.failed = prometheus.NewCounter(prometheus.CounterOpts{Name: "muster_commits_failed_total",
		Help: "Transactions that dqlite did not commit, or of which it is not known; leadership starts afresh."})
}

func gauge(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	descRevision   = gauge("muster_revision", "Newest revision of the cluster that this member knows.")
	descReplica    = gauge("muster_replica_revision", "Revision of this member's mirror.")
	descEpoch      = gauge("muster_epoch", "Number of leaderships that have begun in this cluster.")
	descLeading    = gauge("muster_is_leader", "1 on the member that leads and takes writes.")
	descHasLeader  = gauge("muster_has_leader", "1 while this member knows of a leader.")
	descRole       = gauge("muster_role", "1 for the role that this member has in Raft; none is a member outside it.", "role")
	descServers    = gauge("muster_raft_servers", "Raft servers in this member's copy of the configuration; absent outside Raft.", "role")
	descQueue      = gauge("muster_write_queue_depth", "Writes that wait for the leader's writer; 0 elsewhere.")
	descMembers    = gauge("muster_members", "Members of the cluster by Raft role and drain state.", "role", "drain")
	descUnhealthy  = gauge("muster_members_unhealthy", "Members that are noted as unhealthy.")
	descTokens     = gauge("muster_tokens", "Tokens by kind and state.", "kind", "state")
	descPeerings   = gauge("muster_peerings", "Peerings by state.", "state")
	descLeases     = gauge("muster_leases", "Leases that have not expired.")
	descAudit      = gauge("muster_audit_rows", "Rows of the audit table.")
	descGeneration = gauge("muster_dek_generation", "Active generation of the data-encryption key.")
	descSealed     = gauge("muster_dek_reencrypt_values", "Values that were sealed when the active generation began.")
	descRemaining  = gauge("muster_dek_reencrypt_remaining", "Values that are still sealed under an older generation.")
	descCert       = gauge("muster_certificate_expiry_timestamp_seconds", "When the newest leaf of a member expires: of this member, and the earliest of any member.", "kind", "of")
	descAuthority  = gauge("muster_authority_expiry_timestamp_seconds", "When the first authority of a kind that is in use expires.", "kind")
	descMirrorAge  = gauge("muster_mirror_age_seconds", "Time since the mirror was last replaced.")
	descMirrorSize = gauge("muster_mirror_size_bytes", "Size of the mirror; about what the database takes of this member's memory.")
	descDisk       = gauge("muster_disk_free_bytes", "Room left on the file system of the data directory.")
	descWindow     = gauge("muster_event_window_events", "Events that are kept in memory for readers.")
)

// Describe says nothing, which makes the collector an unchecked one: what there is depends on the member's part.
func (s *Store) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector with what this member knows by itself. It asks no other member.
func (s *Store) Collect(out chan<- prometheus.Metric) {
	set := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	truth := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	for _, c := range []prometheus.Collector{s.metrics.batch, s.metrics.commit, s.metrics.leaders, s.metrics.refused, s.metrics.failed} {
		c.Collect(out)
	}
	set(descRevision, float64(s.KnownRevision()))
	set(descReplica, float64(s.ReplicaRevision()))
	set(descLeading, truth(s.Leading()))
	set(descHasLeader, truth(s.LeaderID() != 0))
	depth := 0
	if l := s.current(); l != nil {
		depth = len(l.queue)
	}
	set(descQueue, float64(depth))
	own, roles := "none", map[Role]int{}
	for _, v := range s.Servers() {
		if v.NodeID == s.cfg.NodeID {
			own = string(v.Role)
		}
		roles[v.Role]++
	}
	for _, r := range []string{"voter", "standby", "spare", "none"} {
		set(descRole, truth(r == own), r)
	}
	if own != "none" {
		for _, r := range []Role{RoleVoter, RoleStandBy, RoleSpare} {
			set(descServers, float64(roles[r]), string(r))
		}
	}
	if info, err := os.Stat(s.mirror.path); err == nil {
		set(descMirrorAge, time.Since(info.ModTime()).Seconds())
		set(descMirrorSize, float64(info.Size()))
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(s.mirror.path), &fs); err == nil {
		set(descDisk, float64(fs.Bavail)*float64(fs.Bsize))
	}
	s.events.mu.Lock()
	window := len(s.events.events)
	s.events.mu.Unlock()
	set(descWindow, float64(window))
	s.collectInventory(set)
}

func (s *Store) collectInventory(set func(*prometheus.Desc, float64, ...string)) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	in, err := s.Inventory(ctx)
	if err != nil {
		return // a new member has no replica for a moment
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
