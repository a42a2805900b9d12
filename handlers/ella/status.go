package ella

import (
	"context"
	"net/http"

	"muster/api"
	"muster/handlers"
	"muster/store"
)

// status serves what this member knows without asking others; it needs no leader (reference ella_members, 1.3).
func (s *service) status(q *handlers.Request) error {
	disk, storing := s.Cluster.Disk(), s.Cluster.Storing()
	files, term := s.Replica.RaftFiles()
	cluster := s.clusterStatus(term)
	st := api.Status{
		Version:       s.Version,
		Revision:      s.Mirror.Revision(),
		Ready:         storing.Fault == "",
		SchemaVersion: store.LatestSchema(),
		Commit:        s.Commit,
		Name:          s.Name,
		Cluster:       cluster,
		Notices:       s.Cluster.Notices(),
		Storing:       &storing,
		Disk:          &disk,
	}
	if term != 0 {
		st.Raft = raftFiles(files, term)
		st.Raft.SyncMs = storing.WriteMs
	}
	if storing.Fault != "" {
		st.Reason = "this member cannot store: " + storing.Fault
	}
	if cluster.IsLeader {
		st.Revision = s.Replica.Revision()
	}
	cluster.AppliedIndex = st.Revision
	s.replica(q.Context(), &st)
	q.W.Header().Set("X-Ella-Role", cluster.Role) // for load balancers, as documented
	return q.Result(http.StatusOK, st)
}

// clusterStatus returns this member's view of its role and of the leader.
func (s *service) clusterStatus(term uint64) *api.ClusterStatus {
	c := &api.ClusterStatus{
		Enabled:      true,
		Role:         "Follower",
		NodeID:       s.Replica.NodeID(),
		LeaderNodeID: s.Replica.LeaderID(),
		ClusterID:    s.ClusterID,
		Term:         term,
	}
	switch {
	case s.Replica.Leading():
		c.Role, c.IsLeader = "Leader", true
	case c.LeaderNodeID == 0:
		c.Role = "Candidate"
	}
	return c
}

func raftFiles(f store.RaftFiles, term uint64) *api.RaftFiles {
	out := &api.RaftFiles{
		Term:          term,
		LogIndex:      max(f.Last, f.Snapshot),
		LogSegments:   f.Segments,
		LogBytes:      f.LogBytes,
		Bytes:         f.Bytes,
		Snapshots:     f.Snapshots,
		SnapshotIndex: f.Snapshot,
	}
	if !f.TakenAt.IsZero() {
		out.SnapshotAt = api.TimePointer(&f.TakenAt)
	}
	return out
}

// replica adds the state of this member's replica. A new member has none yet; the status does not wait for it.
func (s *service) replica(ctx context.Context, st *api.Status) {
	cluster := st.Cluster
	replica, _ := s.Replica.Replica(ctx, cluster.LeaderNodeID)
	st.Initialized, cluster.AppliedSchemaVersion = replica.Founded, replica.Schema
	if replica.LeaderAPIAddress != "" {
		cluster.LeaderAPIAddress = "https://" + replica.LeaderAPIAddress
	}
}
