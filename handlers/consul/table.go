package consul

import (
	"muster/handlers"
	"muster/store"
)

// routes returns the family's rows of the route table.
func (s *service) routes() []handlers.Route {
	return []handlers.Route{
		{
			Method: "POST",
			Path:   "/v1/peering/token",
			Scope:  store.ScopePeeringWrite,
			Vet:    vetTokenRequest,
			Serve:  s.generatePeeringToken,
		},
		{
			Method: "POST",
			Path:   "/v1/peering/establish",
			Scope:  store.ScopePeeringWrite,
			Within: establishWithin,
			Vet:    vetEstablishRequest,
			Serve:  s.establishPeering,
		},
		{
			Method: "GET",
			Path:   "/v1/peering/{name:.*}",
			NoHead: true,
			Scope:  store.ScopePeeringRead,
			At:     handlers.HereStale,
			Blocks: true,
			Check:  checkPeeringRead,
			Serve:  s.readPeering,
		},
		{
			Method: "DELETE",
			Path:   "/v1/peering/{name:.*}",
			Scope:  store.ScopePeeringWrite,
			Check:  checkPeeringName,
			Serve:  s.deletePeering,
		},
		{
			Method: "GET",
			Path:   "/v1/peerings",
			NoHead: true,
			Scope:  store.ScopePeeringRead,
			At:     handlers.HereStale,
			Blocks: true,
			Check:  checkPeeringList,
			Serve:  s.listPeerings,
		},
	}
}
