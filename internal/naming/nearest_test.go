package naming

import "testing"

func TestSuggest(t *testing.T) {
	names := []string{"audit.max_age", "audit.max_rows", "limits.leases"}
	for name, want := range map[string]string{
		"audit.maxage":   "did you mean audit.max_age?",
		"Audit.max_rows": "did you mean audit.max_rows?",
		"audit":          "did you mean audit.max_age?",
		"limits.lease":   "did you mean limits.leases?",
		"lîmits.leases":  "did you mean limits.leases?",
		"":               "use one of audit.max_age, audit.max_rows, limits.leases",
		"x":              "use one of audit.max_age, audit.max_rows, limits.leases",
	} {
		if got := Suggest(name, names); got != want {
			t.Errorf("%s: %s, not %s", name, got, want)
		}
	}
}
