package ella

import (
	"context"
	"net/http"

	"muster/api"
	"muster/handlers"
	"muster/store"
)

// status is what this member knows by itself; it answers with or without a leader (reference ella_members, 1.3).
func (s *service) status(q *handlers.Request) error {
	leader := s.Store.LeaderID()
	disk, storing := s.Cluster.Disk(), s.Cluster.Storing()
	cluster := &api.ClusterStatus{
		Enabled:      true,
		Role:         "Follower",
		NodeID:       s.Store.NodeID(),
		LeaderNodeID: leader,
		ClusterID:    s.ClusterID,
		Term:         s.Store.Term(),
	}
	st := api.Status{
		Version:       s.Version,
		Revision:      s.Store.Mirror.Revision(),
		Ready:         storing.Fault == "",
		SchemaVersion: store.LatestSchema(),
		Commit:        s.Commit,
		Name:          s.Name,
		Cluster:       cluster,
		Notices:       s.Cluster.Notices(),
		Storing:       &storing,
		Disk:          &disk,
	}
	if storing.Fault != "" {
		st.Reason = "this member cannot store: " + storing.Fault
	}
	if s.Store.Leading() {
		cluster.Role, cluster.IsLeader, st.Revision = "Leader", true, s.Store.Revision()
	} else if leader == 0 {
		cluster.Role = "Candidate"
	}
	cluster.AppliedIndex = st.Revision
	s.replica(q.Context(), &st)
	q.W.Header().Set("X-Ella-Role", cluster.Role) // for load balancers, as documented
	return q.Result(http.StatusOK, st)
}

// replica adds what this member's replica says. A new member has none for a moment; its status is not the place to wait
// for one.
func (s *service) replica(ctx context.Context, st *api.Status) {
	cluster := st.Cluster
	_ = s.Store.Read(ctx, store.Stale, func(v *store.View) error {
		_, founded, err := v.Cluster()
		if err != nil {
			return err
		}
		st.Initialized = founded
		if cluster.AppliedSchemaVersion, err = v.SchemaVersion(); err != nil {
			return err
		}
		m, err := v.Member(cluster.LeaderNodeID)
		if err == nil && m != nil {
			cluster.LeaderAPIAddress = "https://" + m.APIAddress
		}
		return err
	})
}
