package e2e

import (
	"net/http"
	"testing"

	"muster/handlers/native/openapi"
	"muster/internal/described"
)

// TestOpenAPI: a member serves the description to anybody.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	c := found(t)
	a := c.nobody(t).do(c.members[0], "GET", "/api/v1/openapi.yaml", "")
	if a.status != 200 || a.body != string(openapi.Document()) || a.header.Get("Content-Type") != "application/yaml" {
		t.Errorf("%d %s, %d bytes", a.status, a.header.Get("Content-Type"), len(a.body))
	}
}

// recorded holds one exchange of each shape.
var recorded described.Book

// record keeps an exchange for the end of the run, when it is compared with the description of the API.
func record(req *http.Request, body string, a answer) {
	if a.err == nil {
		recorded.Record(described.Exchange{
			Method: req.Method,
			Target: req.URL.RequestURI(),
			Header: req.Header.Clone(),
			Body:   body,
			Status: a.status,
			Answer: a.header,
			Text:   a.body,
		})
	}
}
