package ella

import (
	"muster/handlers"
	"muster/store"
)

// routes returns the family's rows of the route table.
func (s *service) routes() []handlers.Route {
	return []handlers.Route{
		{
			Method: "GET",
			Path:   "/api/v1/status",
			At:     handlers.Here,
			Plain:  true,
			Serve:  s.status,
		},
		{
			Method: "GET",
			Path:   "/api/v1/cluster/members",
			Scope:  store.ScopeClusterRead,
			At:     handlers.HereStale,
			Serve:  s.listMembers,
		},
		{
			Method: "GET",
			Path:   "/api/v1/cluster/members/{id}",
			Scope:  store.ScopeClusterRead,
			At:     handlers.HereStale,
			Serve:  s.getMember,
		},
		{
			Method: "DELETE",
			Path:   "/api/v1/cluster/members/{id}",
			Scope:  store.ScopeClusterManage,
			Within: handlers.Slow,
			Serve:  s.removeMember,
		},
		{
			Method: "POST",
			Path:   "/api/v1/cluster/members/{id}/promote",
			Scope:  store.ScopeClusterManage,
			Within: handlers.Slow,
			Serve:  s.promoteMember,
		},
		{
			Method: "POST",
			Path:   "/api/v1/cluster/members/{id}/drain",
			Scope:  store.ScopeClusterManage,
			Within: handlers.Slow,
			Serve:  s.drainMember,
		},
		{
			Method: "POST",
			Path:   "/api/v1/cluster/members/{id}/resume",
			Scope:  store.ScopeClusterManage,
			Within: handlers.Slow,
			Serve:  s.resumeMember,
		},
		{
			Method: "GET",
			Path:   "/api/v1/cluster/autopilot",
			Scope:  store.ScopeClusterRead,
			At:     handlers.HereStale,
			Serve:  s.autopilot,
		},
		{Method: "POST", Path: "/api/v1/cluster/pki/join-tokens", Scope: store.ScopeClusterManage, Serve: s.mintJoinToken},
	}
}
