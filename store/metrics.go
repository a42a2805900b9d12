package store

import (
	"context"
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
	descWindow     = gauge("muster_event_window_events", "Events that are kept in memory for readers.")
)

// Describe sends nothing, which makes the collector an unchecked one: what there is depends on the member's part.
func (s *Store) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector with what this member knows by itself. It asks no other member.
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
