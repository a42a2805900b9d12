package addr

import (
	"strings"
	"testing"
)

func TestAllows(t *testing.T) {
	l, err := ParseHostList(SplitHostList("db1, Web.Example.ORG., *.internal.example.org,10.0.0.0/8, " +
		"192.0.2.7,2001:db8::/32"))
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]struct{ allows, names bool }{
		"db1": {true, true}, "DB1": {true, true}, "db1.": {true, true}, "db11": {}, "x.db1": {},
		"web.example.org":   {true, true},
		"a.web.example.org": {}, "example.org": {}, "a.internal.example.org": {true, false},
		"a.b.internal.example.org": {true, false},
		"internal.example.org":     {}, "ainternal.example.org": {}, "10.255.0.1": {true, false}, "11.0.0.1": {},
		"192.0.2.7":        {true, true},
		"::ffff:192.0.2.7": {true, true}, "192.0.2.8": {}, "2001:db8::1": {true, false}, "2001:db9::1": {}, "": {},
		"*.internal.example.org": {true, false},
	} {
		if got := l.Allows(host); got != want.allows {
			t.Errorf("%q: allowed: %t", host, got)
		}
		if got := l.Names(host); got != want.names {
			t.Errorf("%q: named: %t", host, got)
		}
	}
	var none HostList
	if none.Allows("localhost") || none.Allows("127.0.0.1") || none.Names("") {
		t.Error("the empty list allows something")
	}
}

func TestParseRefuses(t *testing.T) {
	for _, bad := range []string{"", "*", "*.", "a.*.example", "*a.example", "**.example", "*.10.0.0.1", "10.0.0.1/8",
		"10.0.0.256", "a b", "a:1", "https://a",
		"0.0.0.0", "224.0.0.1", "169.254.1.1", "fe80::1%eth0", "-a", "::ffff:10.0.0.0/104", "a..b", strings.Repeat("a", 64),
		"*.*.example"} {
		if l, err := ParseHostList([]string{bad}); err == nil {
			t.Errorf("%q: %+v", bad, l)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := ParseHostList(make([]string, maxHosts+1)); err == nil {
		t.Error("a list without end")
	}
	if l, err := ParseHostList(SplitHostList(NoHosts)); err != nil || l.Exact != nil {
		t.Error(l, err)
	}
	if _, err := ParseHostList(SplitHostList("")); err == nil {
		t.Error("an empty text")
	}
}
