package elastic

import (
	"muster/handlers"
	"muster/store"
)

// endpoints returns the family's routes with their attributes.
func (s *service) endpoints() []endpoint {
	return append(s.keyEndpoints(), s.infoEndpoints()...)
}

func (s *service) keyEndpoints() []endpoint {
	return []endpoint{
		{
			Route: handlers.Route{
				Method:  "GET",
				Path:    "/_security/enroll/node",
				Scope:   store.ScopeEnroll,
				Keyed:   true,
				Enrolls: true,
				Within:  handlers.Slow,
				Serve:   s.enrollNode,
			},
			action: "cluster:admin/xpack/security/enroll/node", privileges: privilegesManage, gated: true,
		},
		{
			Route: handlers.Route{
				Method:  "GET",
				Path:    "/_security/enroll/kibana",
				Scope:   store.ScopeEnrollKibana,
				Keyed:   true,
				Enrolls: true,
				Serve:   s.enrollKibana,
			},
			action: "cluster:admin/xpack/security/enroll/kibana", privileges: privilegesManage, gated: true,
		},
		{
			Route: handlers.Route{Method: "POST", Path: "/_security/api_key", Scope: store.ScopeEnroll,
				Serve: s.createAPIKey},
			action:     actionCreateKey,
			privileges: privilegesOwnKey,
			params:     []string{"refresh"},
			body:       true,
		},
		{
			Route: handlers.Route{
				Method: "PUT",
				Path:   "/_security/api_key",
				Scope:  store.ScopeEnroll,
				Keyed:  true,
				Serve:  s.createAPIKey,
			},
			action:     actionCreateKey,
			privileges: privilegesOwnKey,
			params:     []string{"refresh"},
			body:       true,
		},
		{
			Route:  handlers.Route{Method: "GET", Path: "/_security/api_key", Scope: store.ScopeEnroll, Serve: s.getAPIKeys},
			action: actionGetKey, privileges: privilegesOwnKey, params: []string{"id", "name", "username", "realm_name",
				"owner", "active_only", "with_limited_by", "with_profile_uid"},
		},
		{
			Route: handlers.Route{Method: "DELETE", Path: "/_security/api_key", Scope: store.ScopeEnroll,
				Serve: s.invalidateAPIKeys},
			action: actionInvalidateKey, privileges: privilegesOwnKey, body: true,
		},
	}
}

func (s *service) infoEndpoints() []endpoint {
	return []endpoint{
		{
			Route:  handlers.Route{Method: "GET", Path: "/_security/_authenticate", Serve: s.self},
			action: "cluster:admin/xpack/security/user/authenticate",
		},
		{
			Route:  handlers.Route{Method: "GET", Path: "/_cluster/health", Scope: store.ScopeClusterRead, Serve: s.health},
			action: "cluster:monitor/health", privileges: privilegesMonitor, params: []string{"level", "local",
				"master_timeout", "timeout"},
		},
		{
			Route:  handlers.Route{Method: "GET", Path: "/_nodes", Scope: store.ScopeClusterRead, Serve: s.listNodes},
			action: "cluster:monitor/nodes/info", privileges: privilegesMonitor, params: []string{"timeout", "flat_settings"},
		},
		{
			Route:  handlers.Route{Method: "GET", Path: "/_nodes/http", Scope: store.ScopeClusterRead, Serve: s.listNodes},
			action: "cluster:monitor/nodes/info", privileges: privilegesMonitor, params: []string{"timeout", "flat_settings"},
		},
		{
			Route:  handlers.Route{Method: "GET", Path: "/_nodes/_local", Scope: store.ScopeClusterRead, Serve: s.localNode},
			action: "cluster:monitor/nodes/info", privileges: privilegesMonitor, params: []string{"timeout", "flat_settings"},
		},
		{
			Route: handlers.Route{Method: "GET", Path: "/_nodes/_local/http", Scope: store.ScopeClusterRead,
				Serve: s.localNode},
			action: "cluster:monitor/nodes/info", privileges: privilegesMonitor, params: []string{"timeout", "flat_settings"},
		},
		{
			Route:  handlers.Route{Method: "GET", Path: "/", Serve: s.info},
			action: "cluster:monitor/main", privileges: privilegesMonitor,
		},
	}
}
