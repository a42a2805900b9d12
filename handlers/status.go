package handlers

import (
	"net/http"

	"muster/store"
)

type clusterStatus struct {
	Enabled              bool   `json:"enabled"`
	Role                 string `json:"role"`
	NodeID               uint64 `json:"nodeId"`
	IsLeader             bool   `json:"isLeader"`
	LeaderNodeID         uint64 `json:"leaderNodeId"`
	AppliedIndex         uint64 `json:"appliedIndex"`
	ClusterID            string `json:"clusterId,omitempty"`
	LeaderAPIAddress     string `json:"leaderAPIAddress,omitempty"`
	AppliedSchemaVersion int64  `json:"appliedSchemaVersion"`
}

type status struct {
	Version       string        `json:"version"`
	Revision      uint64        `json:"revision"`
	Initialized   bool          `json:"initialized"`
	Ready         bool          `json:"ready"`
	Reason        string        `json:"reason,omitempty"` // why it is not ready
	SchemaVersion int64         `json:"schemaVersion"`
	Commit        string        `json:"commit"`
	Name          string        `json:"name"`
	Cluster       clusterStatus `json:"cluster"`
	Notices       []string      `json:"notices,omitempty"` // what the operator has to do now, a sentence each
	Storing       any           `json:"storing,omitempty"` // whether this member stores, and how its disk answers
	Disk          any           `json:"disk,omitempty"`    // bytes: free, in all, kept in reserve; and whether that is reached
}

// status is what this member knows by itself; it answers with or without a leader (reference ella_members, 1.3).
func (s *Server) status(q *Request) error {
	leader := s.Store.LeaderID()
	st := status{Version: s.Version, Ready: true, Commit: s.Commit, Name: s.Name, SchemaVersion: store.LatestSchema(), Revision: s.Store.Mirror.Revision(),
		Cluster: clusterStatus{Enabled: true, Role: "Follower", NodeID: s.Store.NodeID(), LeaderNodeID: leader, ClusterID: s.ClusterID}}
	if s.Notices != nil {
		st.Notices = s.Notices()
	}
	if s.Disk != nil {
		st.Disk = s.Disk()
	}
	if s.Storing != nil {
		var fault string
		if fault, st.Storing = s.Storing(); fault != "" {
			st.Ready, st.Reason = false, "this member cannot store: "+fault
		}
	}
	if s.Store.Leading() {
		st.Cluster.Role, st.Cluster.IsLeader, st.Revision = "Leader", true, s.Store.Revision()
	} else if leader == 0 {
		st.Cluster.Role = "Candidate"
	}
	st.Cluster.AppliedIndex = st.Revision
	// A new member has no replica for a moment; its status is not the place to wait for one.
	_ = s.Store.Read(q.Context(), store.Stale, func(v *store.View) error {
		_, founded, err := v.Cluster()
		if err != nil {
			return err
		}
		st.Initialized = founded
		if st.Cluster.AppliedSchemaVersion, err = v.SchemaVersion(); err != nil {
			return err
		}
		m, err := v.Member(leader)
		if err == nil && m != nil {
			st.Cluster.LeaderAPIAddress = "https://" + m.APIAddress
		}
		return err
	})
	q.W.Header().Set("X-Ella-Role", st.Cluster.Role) // for load balancers, as documented
	return q.Result(http.StatusOK, st)
}
