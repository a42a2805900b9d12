package native

import (
	"slices"

	"muster/handlers"
	"muster/store"
)

// routes returns the family's rows of the route table.
func (s *service) routes() []handlers.Route {
	return slices.Concat(s.clusterRoutes(), s.credentialRoutes(), s.keyRoutes(), s.observeRoutes(),
		s.backupRoutes(), s.loginRoutes())
}

func (s *service) clusterRoutes() []handlers.Route {
	return []handlers.Route{
		{
			Method: "GET",
			Path:   "/api/v1/cluster/autopilot/config",
			Scope:  store.ScopeClusterRead,
			At:     handlers.HereStale,
			Serve:  s.getAutopilotConfig,
		},
		{Method: "PUT", Path: "/api/v1/cluster/autopilot/config", Scope: store.ScopeClusterManage,
			Serve: s.putAutopilotConfig},
		{
			Method: "GET",
			Path:   "/api/v1/cluster/raft/diff",
			Scope:  store.ScopeClusterRead,
			At:     handlers.HereStale,
			Serve:  s.raftDiff,
		},
		{
			Method: "GET",
			Path:   "/api/v1/cluster/upgrade",
			Scope:  store.ScopeClusterRead,
			At:     handlers.HereStale,
			Serve:  s.getUpgrade,
		},
		{
			Method: "GET",
			Path:   "/api/v1/cluster/schema",
			Scope:  store.ScopeClusterRead,
			At:     handlers.HereStale,
			Serve:  s.getSchema,
		},
		{
			Method: "POST",
			Path:   "/api/v1/cluster/schema/migrate",
			Scope:  store.ScopeClusterManage,
			Within: handlers.Slow,
			Serve:  s.migrateSchema,
		},
		{
			Method: "GET",
			Path:   "/api/v1/cluster/leases",
			Scope:  store.ScopeClusterRead,
			At:     handlers.HereStale,
			Serve:  s.listLeases,
		},
		{Method: "PUT", Path: "/api/v1/cluster/leases/{id}", Scope: store.ScopeClusterManage, Serve: s.putLease},
		{Method: "DELETE", Path: "/api/v1/cluster/leases/{id}", Scope: store.ScopeClusterManage, Serve: s.deleteLease},
		{
			Method: "GET",
			Path:   "/api/v1/cluster/settings",
			Scope:  store.ScopeClusterRead,
			At:     handlers.HereStale,
			Serve:  s.getSettings,
		},
		{Method: "PUT", Path: "/api/v1/cluster/settings", Scope: store.ScopeClusterManage, Serve: s.putSettings},
		{Method: "POST", Path: "/api/v1/workloads", Scope: store.ScopeClusterManage, Serve: s.createWorkload},
		{
			Method: "GET",
			Path:   "/api/v1/workloads",
			Scope:  store.ScopeClusterRead,
			At:     handlers.HereStale,
			Serve:  s.listWorkloads,
		},
		{
			Method: "GET",
			Path:   "/api/v1/workloads/{id}",
			Scope:  store.ScopeClusterRead,
			At:     handlers.HereStale,
			Serve:  s.getWorkload,
		},
		{Method: "DELETE", Path: "/api/v1/workloads/{id}", Scope: store.ScopeClusterManage, Serve: s.deleteWorkload},
	}
}

func (s *service) credentialRoutes() []handlers.Route {
	return []handlers.Route{
		{
			Method: "GET",
			Path:   "/api/v1/whoami",
			At:     handlers.HereStale,
			Admit:  handlers.AdmitKnown,
			Serve:  s.whoami,
		},
		{Method: "POST", Path: "/api/v1/cluster/join-tokens", Scope: store.ScopeClusterManage, Serve: s.createJoinToken},
		{
			Method: "GET",
			Path:   "/api/v1/cluster/join-tokens",
			Scope:  store.ScopeClusterRead,
			At:     handlers.HereStale,
			Serve:  s.listJoinTokens,
		},
		{Method: "DELETE", Path: "/api/v1/cluster/join-tokens/{id}", Scope: store.ScopeClusterManage,
			Serve: s.revokeJoinToken},
		{Method: "POST", Path: "/api/v1/cluster/node-token", Scope: store.ScopeClusterRead, Serve: s.renewNodeToken},
		{Method: "POST", Path: "/api/v1/api-tokens", Scope: store.ScopeManagement, Serve: s.createAPIToken},
		{
			Method: "GET",
			Path:   "/api/v1/api-tokens",
			Scope:  store.ScopeManagement,
			At:     handlers.HereStale,
			Serve:  s.listAPITokens,
		},
		{Method: "DELETE", Path: "/api/v1/api-tokens/{id}", Scope: store.ScopeManagement, Serve: s.deleteAPIToken},
		{Method: "POST", Path: "/api/v1/cluster/enrollment-tokens", Scope: store.ScopeEnroll, Serve: s.createEnrollToken},
		{
			Method: "GET",
			Path:   "/api/v1/cluster/enrollment-tokens",
			Scope:  store.ScopeEnroll,
			At:     handlers.HereStale,
			Serve:  s.listEnrollTokens,
		},
		{Method: "DELETE", Path: "/api/v1/cluster/enrollment-tokens/{id}", Scope: store.ScopeEnroll,
			Serve: s.revokeEnrollToken},
		{
			Method: "GET",
			Path:   "/api/v1/cluster/enrollments",
			Scope:  store.ScopeEnroll,
			At:     handlers.HereStale,
			Serve:  s.listEnrollments,
		},
		{Method: "DELETE", Path: "/api/v1/cluster/enrollments/{id}", Scope: store.ScopeEnroll, Serve: s.revokeEnrollment},
	}
}

func (s *service) keyRoutes() []handlers.Route {
	return []handlers.Route{
		{Method: "POST", Path: "/api/v1/cluster/join-keys/rotate", Scope: store.ScopeKeysManage, Serve: s.rotateJoinKeys},
		{Method: "GET", Path: "/.well-known/jwks.json", Serve: s.jwks},
		{
			Method: "GET",
			Path:   "/api/v1/cluster/keys",
			Scope:  store.ScopeKeysManage,
			At:     handlers.HereStale,
			Serve:  s.listGenerations,
		},
		{Method: "POST", Path: "/api/v1/cluster/keys/rotate", Scope: store.ScopeKeysManage, Serve: s.rotateDEK},
		{
			Method: "GET",
			Path:   "/api/v1/cluster/ca",
			Scope:  store.ScopeClusterRead,
			At:     handlers.HereStale,
			Serve:  s.showCA,
		},
		{Method: "POST", Path: "/api/v1/cluster/ca/rotate", Scope: store.ScopeManagement, Serve: s.rotateCA},
		{
			Method: "GET",
			Path:   "/api/v1/cluster/certificates",
			Scope:  store.ScopeClusterRead,
			At:     handlers.HereStale,
			Serve:  s.listCertificates,
		},
		{
			Method: "GET",
			Path:   "/api/v1/cluster/secrets",
			Scope:  store.ScopeKeysManage,
			At:     handlers.HereStale,
			Serve:  s.listSecrets,
		},
		{Method: "PUT", Path: "/api/v1/cluster/secrets/{name}", Scope: store.ScopeKeysManage, Serve: s.putSecret},
		{Method: "GET", Path: "/api/v1/cluster/secrets/{name}", Scope: store.ScopeKeysManage, Serve: s.getSecret},
		{Method: "DELETE", Path: "/api/v1/cluster/secrets/{name}", Scope: store.ScopeKeysManage, Serve: s.deleteSecret},
		{Method: "GET", Path: "/.well-known/spiffe/bundle", At: handlers.Here, Serve: s.trustBundle},
		{Method: "GET", Path: "/.well-known/http.crl", Serve: s.httpCRL},
		{Method: "GET", Path: "/.well-known/transport.crl", Serve: s.transportCRL},
	}
}

func (s *service) observeRoutes() []handlers.Route {
	return []handlers.Route{
		{
			Method: "GET",
			Path:   "/api/v1/openapi.yaml",
			At:     handlers.Here,
			Plain:  true,
			Serve:  s.openapi,
		},
		{
			Method: "GET",
			Path:   "/api/v1/cluster/history",
			Scope:  store.ScopeClusterRead,
			At:     handlers.Here,
			Serve:  s.history,
		},
		{
			Method: "GET",
			Path:   "/api/v1/peerings/{name}/members",
			Scope:  store.ScopePeeringRead,
			At:     handlers.HereStale,
			Serve:  s.listPeerMembers,
		},
		{
			Method: "POST",
			Path:   "/api/v1/sql",
			Scope:  store.ScopeManagement,
			At:     handlers.Here,
			Serve:  s.sql,
		},
		{
			Method: "GET",
			Path:   "/api/v1/events",
			Scope:  store.ScopeClusterRead,
			At:     handlers.Here,
			Stream: true,
		},
		{
			Method: "GET",
			Path:   "/api/v1/audit",
			Scope:  store.ScopeClusterRead,
			At:     handlers.HereStale,
			Serve:  s.audit,
		},
		{
			Method: "GET",
			Path:   "/api/v1/prometheus/targets",
			Scope:  store.ScopeClusterRead,
			At:     handlers.HereStale,
			Serve:  s.prometheusTargets,
		},
		{
			Method: "GET",
			Path:   "/metrics",
			At:     handlers.Here,
			Plain:  true,
			Serve:  handlers.ServeMetrics,
		},
	}
}

func (s *service) backupRoutes() []handlers.Route {
	return []handlers.Route{
		{
			Method: "GET",
			Path:   "/api/v1/backups",
			Scope:  store.ScopeClusterRead,
			At:     handlers.HereStale,
			Serve:  s.listBackups,
		},
		{Method: "POST", Path: "/api/v1/backups", Scope: store.ScopeClusterManage, Serve: s.runBackup},
		{
			Method: "GET",
			Path:   "/api/v1/backups/status",
			Scope:  store.ScopeClusterRead,
			At:     handlers.HereStale,
			Serve:  s.backupStatus,
		},
		{
			Method: "GET",
			Path:   "/api/v1/backups/{id}",
			Scope:  store.ScopeClusterRead,
			At:     handlers.HereStale,
			Serve:  s.getBackup,
		},
		{
			Method: "POST",
			Path:   "/api/v1/backups/{id}/verify",
			Scope:  store.ScopeClusterManage,
			Within: handlers.Long,
			Serve:  s.verifyBackup,
		},
		{
			Method: "GET",
			Path:   "/api/v1/backups/{id}/file",
			Scope:  store.ScopeManagement,
			At:     handlers.HereStale,
			Whole:  true,
			Within: handlers.Long,
			Serve:  s.backupFile,
		},
	}
}
