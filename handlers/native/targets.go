package native

import (
	"encoding/json"
	"net/http"
	"strconv"

	"muster/handlers"
	"muster/store"
)

// promTargets is a target group of Prometheus' HTTP service discovery
// (https://prometheus.io/docs/prometheus/latest/http_sd/).
type promTargets struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// prometheusTargets lists all members for Prometheus to scrape. The answer is the bare list that Prometheus reads.
func (s *service) prometheusTargets(q *handlers.Request) error {
	members, err := s.Members.List(q.Context(), q.Consistency())
	if err != nil {
		return err
	}
	list := make([]promTargets, 0, len(members))
	for i := range members {
		if members[i].APIAddress != "" {
			list = append(list, s.promTarget(&members[i]))
		}
	}
	text, err := json.Marshal(list)
	if err != nil {
		return err
	}
	q.W.Header().Set("Content-Type", "application/json")
	q.W.WriteHeader(http.StatusOK)
	_, _ = q.W.Write(text)
	return nil
}

func (s *service) promTarget(m *store.Member) promTargets {
	role := string(m.Role)
	if role == "" {
		role = "none"
	}
	return promTargets{[]string{m.APIAddress}, map[string]string{
		"__scheme__":               "https",
		"__metrics_path__":         "/metrics",
		"__meta_muster_cluster_id": s.ClusterID,
		"__meta_muster_node_id":    strconv.FormatUint(m.NodeID, 10),
		"__meta_muster_name":       m.Name,
		"__meta_muster_zone":       m.Zone,
		"__meta_muster_role":       role,
		"__meta_muster_mode":       m.Mode,
		"__meta_muster_drain":      m.DrainState,
		"__meta_muster_version":    m.BinaryVersion,
	}}
}
