package native

import (
	"muster/handlers"
	"muster/handlers/native/openapi"
)

// openapi serves the OpenAPI description of all endpoints.
func (s *service) openapi(q *handlers.Request) error {
	q.W.Header().Set("Content-Type", "application/yaml")
	_, err := q.W.Write(openapi.Document())
	return err
}
