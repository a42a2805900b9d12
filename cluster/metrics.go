package cluster

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster/cluster/autopilot"
	"muster/store"
)

func gauge(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// Metrics from the leader's probes exist on the leader only.
var (
	descReachable = gauge("muster_members_reachable", "Members that answer the leader's probes; on the leader only.")
	descHealthy   = gauge("muster_members_healthy", "Members that answer and keep up; on the leader only.")
	descVoters    = gauge("muster_voters", "Voters in the Raft configuration; on the leader only.")
	descTolerance = gauge("muster_failure_tolerance", "Voters that may still fail without the quorum being lost; on "+
		"the leader only.")
	descServerOK = gauge("muster_server_healthy", "1 for a Raft server that answers and keeps up; on the leader only.",
		"node")
	descServerLag = gauge("muster_server_lag_revisions", "Revisions that the mirror of a Raft server is behind; on the "+
		"leader only.", "node")
	descStalled = gauge("muster_server_stalled_seconds", "How long the replica of a Raft server has not advanced "+
		"although the leader has more; on the leader only.", "node")
	descServerRTT = gauge("muster_server_probe_rtt_seconds", "Round-trip of the last probe of a Raft server; on the "+
		"leader only.", "node")

	descZones    = gauge("muster_zones", "Zones that have members; on the leader only.")
	descDecisive = gauge("muster_zones_decisive", "Zones whose loss the cluster does not survive; on the leader "+
		"only.")

	descVersions = gauge("muster_versions", "Versions of muster on the members that answer; on the leader only.")

	descClock = gauge("muster_clock_skew_seconds", "How far the clock of this member is ahead of the leader's, by the "+
		"leader's measurement; 0 on the leader.")

	descStoring   = gauge("muster_storing", "1 while this member can store; its status has the reason when it cannot.")
	descStoreTime = gauge("muster_storing_write_seconds", "Duration of this member's last test write to its disk, "+
		"until it was read back.")
	descStoredAt = gauge("muster_storing_last_write_timestamp_seconds", "When such a test write last succeeded.")
	descInodes   = gauge("muster_disk_free_inodes", "Inodes left on the file system of the data directory; absent "+
		"where it has no fixed number.")
)

// Describe sends nothing, which makes the collector unchecked: only the leader has all metrics.
func (c *Cluster) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector from the state of this member's disk and the leader's last round. Members
// outside Raft are counted, not listed.
func (c *Cluster) Collect(out chan<- prometheus.Metric) {
	set := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	c.keeper.collect(set)
	set(descClock, c.clocks.ahead(time.Now()).Seconds())
	c.Transport.Collect(out)
	if c.workloads != nil {
		c.workloads.Collect(out)
	}
	state := c.Autopilot()
	if len(state.Servers) == 0 {
		return
	}
	reachable, healthy := 0, 0
	for i := range state.Servers {
		v := &state.Servers[i]
		if v.NodeStatus == autopilot.StatusAlive {
			reachable++
		}
		ok := 0.0
		if v.Healthy {
			healthy++
			ok = 1
		}
		if v.Role == string(store.RoleNone) {
			continue
		}
		node := strconv.FormatUint(v.NodeID, 10)
		set(descServerOK, ok, node)
		set(descServerLag, float64(v.Lag), node)
		set(descStalled, v.Stalled.Std().Seconds(), node)
		set(descServerRTT, v.RTT.Std().Seconds(), node)
	}
	set(descReachable, float64(reachable))
	set(descHealthy, float64(healthy))
	set(descVoters, float64(len(state.Voters)))
	set(descTolerance, float64(state.FailureTolerance))
	versions := map[string]bool{}
	for i := range state.Servers {
		if v := &state.Servers[i]; v.NodeStatus == autopilot.StatusAlive && v.Version != "" {
			versions[v.Version] = true
		}
	}
	set(descVersions, float64(len(versions)))
	decisive := 0
	for i := range state.Zones {
		if !state.Zones[i].Survivable {
			decisive++
		}
	}
	set(descZones, float64(len(state.Zones)))
	set(descDecisive, float64(decisive))
}

func (k *keeper) collect(set func(*prometheus.Desc, float64, ...string)) {
	s := k.Storing()
	ok := 0.0
	if s.OK {
		ok = 1
	}
	set(descStoring, ok)
	if !s.LastWrite.IsZero() {
		set(descStoreTime, float64(s.WriteMs)/1000)
		set(descStoredAt, float64(s.LastWrite.Unix()))
	}
	if s.Inodes > 0 {
		set(descInodes, float64(s.FreeInodes))
	}
}
