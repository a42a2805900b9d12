package elastic

import (
	"path"
	"strings"
)

// Bounds of a filter_path. The cost to parse and apply it is linear in these.
const (
	maxPathsBytes = 4096
	maxPaths      = 64  // of a filter_path
	maxSegments   = 128 // of all of them together
)

// pathFilter is a filter_path: patterns of the paths to keep and to drop. Dots separate segments, * matches any text
// within a segment and ** any number of segments; arrays have no segment of their own.
type pathFilter struct{ keep, drop pathPatterns }

// pathPatterns are the patterns of one list.
type pathPatterns [][]string

// parseFilterPath reads a filter_path within its bounds.
func parseFilterPath(list string) (f pathFilter, err error) {
	if len(list) > maxPathsBytes {
		return f, illegalArgument("filter_path must be at most %d bytes long", maxPathsBytes)
	}
	paths, segments := 0, 0
	for p := range strings.SplitSeq(list, ",") {
		p = strings.TrimSpace(p)
		if p == "" {
			continue
		}
		bare, minus := strings.CutPrefix(p, "-")
		if minus = minus && bare != ""; !minus {
			bare = p
		}
		pattern := simplified(strings.Split(bare, "."))
		paths++
		if segments += len(pattern); paths > maxPaths || segments > maxSegments {
			return f, illegalArgument("filter_path must have at most %d paths with at most %d segments together", maxPaths,
				maxSegments)
		}
		if minus {
			f.drop = append(f.drop, pattern)
		} else {
			f.keep = append(f.keep, pattern)
		}
	}
	return f, nil
}

// simplified collapses repeated ** segments.
func simplified(pattern []string) []string {
	out := pattern[:0]
	for _, segment := range pattern {
		if segment != "**" || len(out) == 0 || out[len(out)-1] != "**" {
			out = append(out, segment)
		}
	}
	return out
}

// position is the state of each pattern: the set of segments that may match the next key. Being a set, it never holds
// more entries than the pattern has segments, so a step is linear.
type position [][]bool

func (p pathPatterns) begin() position {
	at := make(position, len(p))
	for i := range p {
		at[i] = make([]bool, len(p[i]))
		at[i][0] = true
	}
	return at
}

// advance returns the state of the patterns below a key, nil when none matches, and whether one of them ends with the
// key.
func (p pathPatterns) advance(at position, key string) (below position, whole bool) {
	below = make(position, len(p))
	found := false
	for i, pattern := range p {
		for j, here := range at[i] {
			if !here {
				continue
			}
			ends, more := step(pattern, j, key)
			whole = whole || ends
			for _, k := range more {
				if below[i] == nil {
					below[i] = make([]bool, len(pattern))
				}
				below[i][k], found = true, true
			}
		}
	}
	if !found {
		return nil, whole
	}
	return below, whole
}

// step matches one key from segment j on: whether the pattern ends with it, and which segments may match the next one.
func step(pattern []string, j int, key string) (ends bool, next []int) {
	if pattern[j] == "**" {
		if j == len(pattern)-1 {
			return true, nil
		}
		next = append(next, j)
		j++
	}
	if ok, err := path.Match(pattern[j], key); err == nil && ok {
		if j == len(pattern)-1 {
			return true, next
		}
		next = append(next, j+1)
	}
	return false, next
}
