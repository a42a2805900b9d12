package docs

import (
	"fmt"
	"regexp"
	"strings"
)

// What differs from run to run: ids, fingerprints, times, versions, counts.
var (
	cutShort = regexp.MustCompile(`\b([0-9a-f]+|[0-9A-Z]{3,})…|…`)
	varies   = []*regexp.Regexp{
		regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`),
		regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`),
		regexp.MustCompile(`\b[0-9a-fA-F]{7,}\b`),
		regexp.MustCompile(`\d+([.:]\d+)*`),
	}
	spaces = regexp.MustCompile(`\s+`)
)

func normal(line string) string {
	line = strings.TrimSpace(spaces.ReplaceAllString(line, " "))
	for _, r := range varies {
		line = r.ReplaceAllString(line, "#")
	}
	return line
}

// pattern is what a line of a document has to fit.
func pattern(line string) *regexp.Regexp {
	parts := strings.Split(cutShort.ReplaceAllString(line, "…"), "…")
	for i, part := range parts {
		parts[i] = regexp.QuoteMeta(normal(part))
	}
	return regexp.MustCompile("^" + strings.Join(parts, ".*") + "$")
}

// missing finds the first line of want that got does not show behind the lines before it.
func missing(want []string, got string) error {
	lines := strings.Split(got, "\n")
	next := 0
	for _, w := range want {
		if strings.Trim(w, "… ") == "" || w == "^C" {
			continue
		}
		p := pattern(w)
		for ; next < len(lines) && !p.MatchString(normal(lines[next])); next++ {
		}
		if next == len(lines) {
			return fmt.Errorf("it does not print this line, or not in this place:\n  %s", w)
		}
		next++
	}
	return nil
}
