package consul

import (
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// Filters are bounded in length, depth and in what the parser does with them; what is refused is refused at once.
func TestFilterBounds(t *testing.T) {
	for name, x := range map[string]struct {
		filter string
		ok     bool
	}{
		"plain":          {`Name == "x"`, true},
		"and, or, not":   {`not (Name == "x" and State != "ACTIVE") or "y" in Meta`, true},
		"depth":          {`((Name == "x"))`, true},
		"a regexp":       {`Name matches "^x.*"`, true},
		"brackets":       {`Name == "(((((((((((((((((("`, true},
		"too deep":       {strings.Repeat("(", 12) + `Name == "x"` + strings.Repeat(")", 12), false},
		"only brackets":  {strings.Repeat("(", 12), false},
		"eight brackets": {strings.Repeat("(", 8), false},
		"60 kB":          {strings.Repeat("(", 60_000), false},
		"too long":       {`Name == "` + strings.Repeat("x", maxFilterBytes) + `"`, false},
		"nots":           {strings.Repeat("not ", 400) + `Name == "x"`, false},
		"repetition":     {`Name matches "(\\pL{1000}){1}"`, false},
		"not a field":    {`Nothing == "x"`, false},
		"all":            {`all PeerServerAddresses as a { a == "x" }`, false},
		"any of any":     {strings.Repeat(`any Meta as k, v { `, 6) + `v == "x"` + strings.Repeat(" }", 6), false},
		"braces in text": {`Name == "any x as y { }"`, true},
	} {
		begin := time.Now()
		_, err := peeringFilter(httptest.NewRequest("GET", "/v1/peerings?filter="+url.QueryEscape(x.filter), nil))
		if (err == nil) != x.ok {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "Failed to create boolean expression evaluator: ") {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(begin); took > 20*time.Second {
			t.Errorf("%s took %v", name, took)
		}
	}
}
