package naming

import "strings"

// Suggest returns what to say of a name that is not in names: the most similar one, or all of them.
func Suggest(name string, names []string) string {
	if like := Nearest(name, names); like != "" {
		return "did you mean " + like + "?"
	}
	return "use one of " + strings.Join(names, ", ")
}

// Nearest returns the most similar of names, or the first that name begins; empty if none is similar.
func Nearest(name string, names []string) (best string) {
	least := 3 // with more edits it is another word
	for _, n := range names {
		if len(name) > len(n)+least || name == "" { // bounds the effort
			continue
		}
		if d := Edits(name, n); d < least || strings.HasPrefix(n, name) && best == "" {
			best, least = n, min(d, least)
		}
	}
	return best
}

// Edits returns Levenshtein's distance of a and b: the number of inserted, deleted or replaced bytes.
func Edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
