package elastic

import (
	"encoding/json"
	"net"
	"net/http"

	"muster/cluster/autopilot"
	"muster/handlers"
	"muster/handlers/internal/membership"
	"muster/store"
)

// clusterName is the cluster name in this family's answers; muster's clusters have only an id.
const clusterName = "muster"

// info answers the request by which clients identify the server (HEAD: whether it is up).
func (s *service) info(q *handlers.Request) error {
	type version struct {
		Number       string `json:"number"`
		Flavor       string `json:"build_flavor"`
		Type         string `json:"build_type"`
		Hash         string `json:"build_hash"`
		Date         string `json:"build_date"`
		Snapshot     bool   `json:"build_snapshot"`
		Lucene       string `json:"lucene_version"`
		MinimumWire  string `json:"minimum_wire_compatibility_version"`
		MinimumIndex string `json:"minimum_index_compatibility_version"`
	}
	writeJSON(q.W, http.StatusOK, struct {
		Name    string  `json:"name"`
		Cluster string  `json:"cluster_name"`
		UUID    string  `json:"cluster_uuid"`
		Version version `json:"version"`
		Tagline string  `json:"tagline"`
	}{s.Name, clusterName, s.ClusterID, version{
		Number:       spokenVersion,
		Flavor:       "muster",
		Type:         "binary",
		Hash:         s.Commit,
		Date:         "1970-01-01T00:00:00Z",
		Lucene:       "0.0.0",
		MinimumWire:  "7.0.0",
		MinimumIndex: "7.0.0",
	}, "muster " + s.Version})
	return nil
}

// self describes the caller's credential.
func (s *service) self(q *handlers.Request) error {
	type realm struct {
		Name string `json:"name"`
		Type string `json:"type"`
	}
	out := struct {
		Username string            `json:"username"`
		Roles    []string          `json:"roles"`
		FullName *string           `json:"full_name"`
		Email    *string           `json:"email"`
		Metadata map[string]string `json:"metadata"`
		Enabled  bool              `json:"enabled"`
		Realm    realm             `json:"authentication_realm"`
		Lookup   realm             `json:"lookup_realm"`
		Type     string            `json:"authentication_type"`
		APIKey   *struct {
			ID   string `json:"id"`
			Name string `json:"name"`
		} `json:"api_key,omitempty"`
	}{
		Username: q.Token.Name,
		Roles:    q.Token.Scopes,
		Metadata: map[string]string{},
		Enabled:  true,
		Realm:    realm{realmName, realmName},
		Lookup:   realm{realmName, realmName},
		Type:     "realm",
	}
	if q.Key != nil {
		out.Username, out.Roles, out.Type = q.Key.OwnerName, []string{}, "api_key"
		out.APIKey = &struct {
			ID   string `json:"id"`
			Name string `json:"name"`
		}{q.Key.ID, q.Key.Name}
	}
	writeJSON(q.W, http.StatusOK, out)
	return nil
}

// health is green when every voter is alive and yellow otherwise. Without a majority there is no answer, so never red.
func (s *service) health(q *handlers.Request) error {
	if err := s.Replica.Confirm(q.Context()); err != nil {
		return err
	}
	members, err := s.Members.List(q.Context(), store.AsLeader)
	if err != nil {
		return err
	}
	status, alive := s.healthOf(members)
	writeJSON(q.W, http.StatusOK, struct {
		Cluster       string          `json:"cluster_name"`
		Status        string          `json:"status"`
		TimedOut      bool            `json:"timed_out"`
		Nodes         int             `json:"number_of_nodes"`
		DataNodes     int             `json:"number_of_data_nodes"`
		Primaries     int             `json:"active_primary_shards"`
		Shards        int             `json:"active_shards"`
		Relocating    int             `json:"relocating_shards"`
		Initializing  int             `json:"initializing_shards"`
		Unassigned    int             `json:"unassigned_shards"`
		UnassignedPri int             `json:"unassigned_primary_shards"`
		Delayed       int             `json:"delayed_unassigned_shards"`
		Pending       int             `json:"number_of_pending_tasks"`
		InFlight      int             `json:"number_of_in_flight_fetch"`
		Waiting       int             `json:"task_max_waiting_in_queue_millis"`
		Percent       json.RawMessage `json:"active_shards_percent_as_number"`
	}{
		Cluster:   clusterName,
		Status:    status,
		Nodes:     alive,
		DataNodes: alive,
		Percent:   json.RawMessage("100.0"),
	})
	return nil
}

// healthOf returns green when every voter is alive, else yellow, and the number of members that are alive.
func (s *service) healthOf(members []store.Member) (status string, alive int) {
	roles, status := membership.Roles(s.Replica.Servers()), "green"
	for i := range members {
		id := members[i].NodeID
		switch {
		case !autopilot.Gone(s.Cluster.Status(&members[i])):
			alive++
		case roles[id] == store.RoleVoter:
			status = "yellow"
		}
	}
	return status, alive
}

type nodeInfo struct {
	Name             string            `json:"name"`
	TransportAddress string            `json:"transport_address"`
	Host             string            `json:"host"`
	IP               string            `json:"ip"`
	Version          string            `json:"version"`
	Flavor           string            `json:"build_flavor"`
	Type             string            `json:"build_type"`
	Hash             string            `json:"build_hash"`
	Roles            []string          `json:"roles"`
	Attributes       map[string]string `json:"attributes"`
	HTTP             struct {
		Bound   []string `json:"bound_address"`
		Publish string   `json:"publish_address"`
		Most    int      `json:"max_content_length_in_bytes"`
	} `json:"http"`
}

func (s *service) showNode(m *store.Member) nodeInfo {
	host, _, _ := net.SplitHostPort(m.APIAddress)
	n := nodeInfo{
		Name:             m.Name,
		TransportAddress: m.RaftAddress,
		Host:             host,
		IP:               host,
		Version:          spokenVersion,
		Flavor:           "muster",
		Type:             "binary",
		Hash:             m.BinaryVersion,
		Roles:            []string{},
		Attributes:       map[string]string{},
	}
	if m.Mode != store.ModeReplicate {
		n.Roles = append(n.Roles, "master")
	}
	n.HTTP.Bound, n.HTTP.Publish, n.HTTP.Most = []string{m.APIAddress}, m.APIAddress, handlers.BodyLimit
	return n
}

func writeNodes(q *handlers.Request, nodes map[string]nodeInfo) error {
	type counts struct {
		Total      int `json:"total"`
		Successful int `json:"successful"`
		Failed     int `json:"failed"`
	}
	writeJSON(q.W, http.StatusOK, struct {
		Counts  counts              `json:"_nodes"`
		Cluster string              `json:"cluster_name"`
		Nodes   map[string]nodeInfo `json:"nodes"`
	}{counts{Total: len(nodes), Successful: len(nodes)}, clusterName, nodes})
	return nil
}

// listNodes lists all members; clients use it to discover addresses (sniffing).
func (s *service) listNodes(q *handlers.Request) error {
	members, err := s.Members.List(q.Context(), store.Linearisable)
	if err != nil {
		return err
	}
	nodes := map[string]nodeInfo{}
	for i := range members {
		nodes[members[i].ID] = s.showNode(&members[i])
	}
	return writeNodes(q, nodes)
}

// localNode describes the member that received the request.
func (s *service) localNode(q *handlers.Request) error {
	m, err := s.Members.Get(q.Context(), store.AsLeader, q.Asked)
	if err != nil {
		return err
	}
	nodes := map[string]nodeInfo{}
	if m != nil {
		nodes[m.ID] = s.showNode(m)
	}
	return writeNodes(q, nodes)
}
