package nomad

import (
	"muster/handlers"
	"muster/store"
)

// routes returns the family's rows of the route table.
func (s *service) routes() []handlers.Route {
	return []handlers.Route{
		{
			Method: "DELETE",
			Path:   "/v1/operator/raft/peer",
			Scope:  store.ScopeManagement,
			Within: handlers.Slow,
			Check:  checkRemovePeer,
			Serve:  s.removePeer,
		},
		{
			Method:    "PUT",
			Path:      "/v1/operator/raft/transfer-leadership",
			Scope:     store.ScopeManagement,
			Check:     checkTransfer,
			CheckHere: s.checkTransferHost,
			Serve:     s.transferLeadership,
		},
		{
			Method:    "POST",
			Path:      "/v1/operator/raft/transfer-leadership",
			Scope:     store.ScopeManagement,
			Check:     checkTransfer,
			CheckHere: s.checkTransferHost,
			Serve:     s.transferLeadership,
		},
		{
			Method: "GET",
			Path:   raftConfigurationPath,
			NoHead: true,
			Scope:  store.ScopeManagement,
			At:     handlers.HereStale,
			Check:  checkStale,
			Serve:  s.raftConfiguration,
		},
		{
			Method: "GET",
			Path:   "/v1/operator/autopilot/configuration",
			Scope:  store.ScopeClusterRead,
			At:     handlers.HereStale,
			Check:  checkStale,
			Serve:  s.getAutopilot,
		},
		{
			Method: "PUT",
			Path:   "/v1/operator/autopilot/configuration",
			Scope:  store.ScopeClusterManage,
			Check:  checkRegion,
			Serve:  s.putAutopilot,
		},
		{
			Method: "GET",
			Path:   "/v1/operator/autopilot/health",
			Scope:  store.ScopeClusterRead,
			Check:  checkStale,
			Serve:  s.autopilotHealth,
		},
		{
			Method: "GET",
			Path:   "/v1/operator/snapshot",
			Scope:  store.ScopeManagement,
			At:     handlers.HereStale,
			Whole:  true,
			Within: handlers.Long,
			Check:  checkStale,
			Serve:  s.saveSnapshot,
		},
		{
			Method: "PUT",
			Path:   "/v1/operator/snapshot",
			Scope:  store.ScopeManagement,
			Whole:  true,
			Within: handlers.Long,
			Check:  checkRegion,
			Serve:  s.restoreSnapshot,
		},
		{
			Method: "POST",
			Path:   "/v1/operator/snapshot",
			Scope:  store.ScopeManagement,
			Whole:  true,
			Within: handlers.Long,
			Check:  checkRegion,
			Serve:  s.restoreSnapshot,
		},
		{
			Method: "GET",
			Path:   "/v1/status/leader",
			At:     handlers.HereStale,
			Check:  checkStale,
			Serve:  s.statusLeader,
		},
		{
			Method: "GET",
			Path:   "/v1/status/peers",
			At:     handlers.HereStale,
			Check:  checkStale,
			Serve:  s.statusPeers,
		},
		{
			Method: "GET",
			Path:   "/v1/regions",
			At:     handlers.Here,
			Check:  checkStale,
			Serve:  s.regions,
		},
		{
			Method: "GET",
			Path:   "/v1/agent/members",
			Scope:  store.ScopeClusterRead,
			At:     handlers.Here,
			Check:  checkStale,
			Serve:  s.agentMembers,
		},
		{
			Method: "GET",
			Path:   "/v1/agent/self",
			Scope:  store.ScopeClusterRead,
			At:     handlers.Here,
			Check:  checkStale,
			Serve:  s.agentSelf,
		},
		{
			Method: "GET",
			Path:   "/v1/agent/health",
			At:     handlers.Here,
			Check:  checkStale,
			Serve:  s.agentHealth,
		},
	}
}
