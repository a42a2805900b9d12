package consul

import (
	"net/http"
	"regexp"
	"strings"

	"github.com/hashicorp/go-bexpr"
)

// Bounds of a filter. The cost to parse and apply it is linear in these.
const (
	maxFilterBytes = 2048
	maxFilterDepth = 8      // of parentheses and of `not`
	maxFilterSteps = 50_000 // of the parser, which backtracks
)

// peeringFilter parses the filter of a list; nil without one. It must only be called for authenticated callers, because
// the library's parser is expensive.
func peeringFilter(r *http.Request) (*bexpr.Evaluator, error) {
	text := r.URL.Query().Get("filter")
	if text == "" {
		return nil, nil
	}
	const failed = "Failed to create boolean expression evaluator: "
	if why := checkFilter(text); why != "" {
		return nil, bad("%s%s", failed, why)
	}
	filter, err := bexpr.CreateEvaluator(text, bexpr.WithMaxExpressions(maxFilterSteps))
	if err == nil {
		_, err = filter.Evaluate(peering{Meta: map[string]string{}}) // fails for unknown fields
	}
	if err != nil {
		return nil, bad("%s%s", failed, err)
	}
	return filter, nil
}

var (
	quoted  = regexp.MustCompile("\"[^\"]*\"|`[^`]*`")
	negated = regexp.MustCompile(`(?i)\bnot\b`)
	matches = regexp.MustCompile(`(?i)\bmatches\b`)
)

// checkFilter returns which bound a filter exceeds, or "".
func checkFilter(text string) string {
	if len(text) > maxFilterBytes {
		return "filter must be at most 2048 bytes long"
	}
	depth, deepest := 0, 0
	for _, c := range quoted.ReplaceAllString(text, `""`) {
		switch c {
		case '(':
			depth++
		case ')':
			depth--
		}
		deepest = max(deepest, depth)
	}
	if deepest > maxFilterDepth {
		return "filter must not have more than 8 parentheses within each other"
	}
	if len(negated.FindAllString(quoted.ReplaceAllString(text, `""`), -1)) > 2*maxFilterDepth {
		return "filter must not have more than 16 times not"
	}
	// Each nested `any` or `all` multiplies the steps by the length of a list.
	if strings.Contains(quoted.ReplaceAllString(text, `""`), "{") {
		return "filter must not have any or all"
	}
	// With a counted repetition a pattern of ten bytes can need a hundred megabytes.
	if matches.MatchString(text) && strings.Contains(text, "{") {
		return "a pattern of filter must not have a counted repetition"
	}
	return ""
}
