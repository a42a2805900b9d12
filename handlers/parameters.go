package handlers

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
)

// Bounds of query parameters. The cost of lists and patterns grows with their length; expressions have their own
// bounds.
const (
	maxParameters     = 64
	MaxParameterBytes = 1024
	MaxListed         = 1000 // ids that one request may name in its body
)

// longParameters have their own limit and error text.
var longParameters = []string{"filter", "filter_path"}

// checkParameters rejects a query with too many parameters or too long ones.
func checkParameters(query url.Values) error {
	if len(query) == 0 {
		return nil
	}
	count := 0
	for _, name := range slices.Sorted(maps.Keys(query)) {
		count += len(query[name])
		if len(name) > MaxParameterBytes {
			return Fail(http.StatusBadRequest,
				fmt.Sprintf("the name of a query parameter must be at most %d bytes long", MaxParameterBytes))
		}
		for _, v := range query[name] {
			if len(v) > MaxParameterBytes && !slices.Contains(longParameters, name) {
				return Fail(http.StatusBadRequest, fmt.Sprintf("%s must be at most %d bytes long", name, MaxParameterBytes))
			}
		}
	}
	if count > maxParameters {
		return Fail(http.StatusBadRequest, fmt.Sprintf("a query must have at most %d parameters", maxParameters))
	}
	return nil
}
