package handlers

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
)

// Bounds of the parameters of all queries. Lists and patterns cost what they are long; expressions have bounds of their own.
const (
	maxParameters     = 64
	maxParameterBytes = 1024
	maxListed         = 1000 // ids that one request may name in its body
)

// longParameters have a rule and a text of their own.
var longParameters = []string{"filter", "filter_path"}

// checkParameters refuses a query with too many parameters, or one with too much of them.
func checkParameters(query url.Values) error {
	count := 0
	for _, name := range slices.Sorted(maps.Keys(query)) {
		count += len(query[name])
		if len(name) > maxParameterBytes {
			return fail(http.StatusBadRequest, fmt.Sprintf("the name of a query parameter must be at most %d bytes long", maxParameterBytes))
		}
		for _, v := range query[name] {
			if len(v) > maxParameterBytes && !slices.Contains(longParameters, name) {
				return fail(http.StatusBadRequest, fmt.Sprintf("%s must be at most %d bytes long", name, maxParameterBytes))
			}
		}
	}
	if count > maxParameters {
		return fail(http.StatusBadRequest, fmt.Sprintf("a query must have at most %d parameters", maxParameters))
	}
	return nil
}
