package nomad

import (
	"context"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"sync"

	"muster/cluster/autopilot"
	"muster/handlers"
	"muster/store"
)

func (s *service) regions(q *handlers.Request) error { return writeJSON(q, []string{region}) }

// statusLeader answers with the leader's address; with `stale` and no leader, with the empty string.
func (s *service) statusLeader(q *handlers.Request) error {
	members, err := s.Members.List(q.Context(), q.Consistency())
	if err != nil {
		return err
	}
	leader := s.Replica.LeaderID()
	for i := range members {
		if members[i].NodeID == leader {
			return writeJSON(q, members[i].RaftAddress)
		}
	}
	return writeJSON(q, "")
}

// statusPeers lists the addresses of the Raft configuration, in its order.
func (s *service) statusPeers(q *handlers.Request) error {
	list, err := s.raftServers(q)
	if err != nil {
		return err
	}
	peers := []string{}
	for _, v := range list {
		if v.Address != "" { // empty for a server that this replica does not know yet
			peers = append(peers, v.Address)
		}
	}
	return writeJSON(q, peers)
}

type health struct {
	OK      bool   `json:"ok"`
	Message string `json:"message"`
}

// agentHealth reports whether this member can write to its disk and knows a leader. As documented, a bad state is a 500
// in text/plain with the same JSON.
func (s *service) agentHealth(q *handlers.Request) error {
	kind := q.URL.Query().Get("type")
	switch kind {
	case "", "server":
	case "client":
		return badHealth("client", "client not enabled")
	default:
		return handlers.Fail(http.StatusBadRequest, "type must be server or client")
	}
	if fault := s.Cluster.StorageFault(); fault != "" {
		return badHealth("server", "this member cannot store: "+fault)
	}
	if handlers.IsStale(q.Request) {
		if s.Replica.LeaderID() == 0 {
			return badHealth("server", "no leader")
		}
	} else {
		ctx, cancel := context.WithTimeout(q.Context(), handlers.AnswerWithin-handlers.AnswerWithin/10)
		defer cancel()
		if _, err := s.Replica.AwaitLeader(ctx); err != nil {
			return badHealth("server", noLeader)
		}
	}
	return writeJSON(q, map[string]any{"server": map[string]any{"ok": true, "message": "ok"}})
}

func badHealth(kind, text string) error {
	return handlers.Fail(http.StatusInternalServerError,
		string(handlers.MustJSON(map[string]health{kind: {Message: text}})))
}

// agentMember is a member in this family's form; keys in alphabetical order.
type agentMember struct {
	Addr        string
	DelegateCur int
	DelegateMax int
	DelegateMin int
	Name        string
	Port        int
	ProtocolCur int
	ProtocolMax int
	ProtocolMin int
	Status      string
	Tags        map[string]string
}

func (s *service) agentMember(m *store.Member, datacenter, status string) agentMember {
	host, port, err := net.SplitHostPort(m.RaftAddress)
	if err != nil {
		host = m.RaftAddress
	}
	number, _ := strconv.Atoi(port)
	out := agentMember{
		Addr:        host,
		Port:        number,
		Name:        m.Name + "." + region,
		Status:      status,
		DelegateCur: 4,
		DelegateMax: 5,
		DelegateMin: 2,
		ProtocolCur: 2,
		ProtocolMax: 5,
		ProtocolMin: 1,
		Tags: map[string]string{"role": "nomad", "region": region, "dc": datacenter, "build": m.BinaryVersion, "id": m.ID,
			"port": port, "rpc_addr": host, "raft_vsn": "3", "vsn": "1", "revision": ""},
	}
	if m.NodeID == s.Replica.NodeID() {
		out.Tags["revision"] = s.Commit
	}
	return out
}

// raftMembers lists the members that are Raft servers and asks each whether it is alive. It needs no leader; on the
// leader it uses the results of the probes.
func (s *service) raftMembers(q *handlers.Request, datacenter string) ([]agentMember, *agentMember, error) {
	members, err := s.Members.List(q.Context(), store.Stale)
	if err != nil {
		return nil, nil, err
	}
	var servers []*store.Member
	for i := range members {
		if m := &members[i]; m.Role != store.RoleNone || m.NodeID == s.Replica.NodeID() {
			servers = append(servers, m)
		}
	}
	list := make([]agentMember, len(servers))
	self := 0
	var wait sync.WaitGroup
	for i, m := range servers {
		if m.NodeID == s.Replica.NodeID() {
			list[i], self = s.agentMember(m, datacenter, autopilot.StatusAlive), i
			continue
		}
		wait.Go(func() {
			list[i] = s.agentMember(m, datacenter, s.serfStatus(q, m))
		})
	}
	wait.Wait()
	if len(list) == 0 {
		return list, &agentMember{}, nil
	}
	return list, &list[self], nil
}

// serfStatus is how a member is, in this family's words: alive, left or failed. Where this member does not lead it asks
// the member itself.
func (s *service) serfStatus(q *handlers.Request, m *store.Member) string {
	status := s.Cluster.Alive(m.NodeID)
	if status == autopilot.StatusUnknown {
		switch {
		case s.Cluster.Reachable(q.Context(), m.NodeID) == nil:
			status = autopilot.StatusAlive
		case m.LeftAt != nil:
			status = autopilot.StatusLeft
		}
	}
	if status == autopilot.StatusAlive || status == autopilot.StatusLeft {
		return status
	}
	return statusFailed
}

func (s *service) agentMembers(q *handlers.Request) error {
	datacenter, err := s.Settings.Datacenter(q.Context())
	if err != nil {
		return err
	}
	list, _, err := s.raftMembers(q, datacenter)
	if err != nil {
		return err
	}
	return writeJSON(q, struct {
		Members      []agentMember
		ServerDC     string
		ServerName   string
		ServerRegion string
	}{list, datacenter, s.Name, region})
}

// agentSelf describes the member that received the request.
func (s *service) agentSelf(q *handlers.Request) error {
	datacenter, err := s.Settings.Datacenter(q.Context())
	if err != nil {
		return err
	}
	_, self, err := s.raftMembers(q, datacenter)
	if err != nil {
		return err
	}
	servers := s.Replica.OwnServers(q.Context())
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	raft := map[string]string{"last_log_index": number(s.Mirror.Revision()),
		"num_peers":        strconv.Itoa(max(0, len(servers)-1)),
		"protocol_version": "3", "state": "Follower"}
	if s.Replica.Leading() {
		raft["state"] = "Leader"
	}
	return writeJSON(q, struct {
		Config map[string]any               `json:"config"`
		Member *agentMember                 `json:"member"`
		Stats  map[string]map[string]string `json:"stats"`
	}{
		map[string]any{"Datacenter": datacenter, "NodeName": s.Name, "Region": region,
			"Server": map[string]any{"Enabled": true},
			"Client": map[string]any{"Enabled": false}, "UI": map[string]any{"Enabled": false},
			"Version": map[string]string{"Version": s.Version, "Revision": s.Commit}},
		self,
		map[string]map[string]string{
			"nomad": {"server": "true", "leader": strconv.FormatBool(s.Replica.Leading()), "bootstrap": "false",
				"known_regions": "1"},
			"raft": raft,
			"runtime": {"arch": runtime.GOARCH, "kernel.name": runtime.GOOS, "version": runtime.Version(),
				"goroutines": strconv.Itoa(runtime.NumGoroutine()), "cpu_count": strconv.Itoa(runtime.NumCPU())},
		},
	})
}
