package consul

import (
	"net/http"
	"regexp"
	"strings"

	"github.com/hashicorp/go-bexpr"
)

// Bounds of a filter. What it costs to read and to apply grows with these, not faster.
const (
	maxFilterBytes = 2048
	maxFilterDepth = 8      // of parentheses and of `not`
	maxFilterSteps = 50_000 // of the parser, which goes back on its tracks
)

// peeringFilter reads the filter of a list, or nil. It is for callers that are known: the parser of the
// library costs far more than the text is long.
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
		_, err = filter.Evaluate(peering{Meta: map[string]string{}}) // fields that there are not
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

// checkFilter says what is too much about a filter, "" when nothing is.
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
	// Each of `any` and `all` within another multiplies the steps by the length of a list.
	if strings.Contains(quoted.ReplaceAllString(text, `""`), "{") {
		return "filter must not have any or all"
	}
	// A counted repetition can make a pattern of ten bytes need a hundred megabytes.
	if matches.MatchString(text) && strings.Contains(text, "{") {
		return "a pattern of filter must not have a counted repetition"
	}
	return ""
}
