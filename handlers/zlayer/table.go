package zlayer

import (
	"muster/handlers"
)

// routes are the rows of the family.
func (s *service) routes() []handlers.Route {
	return []handlers.Route{
		{
			Method: "POST",
			Path:   "/api/v1/cluster/join",
			Plain:  true,
			Proves: true,
			Serve:  s.join,
		},
	}
}
