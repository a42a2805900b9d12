package handlers

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"muster/netlimit"
)

// overfullConn is a connection beyond the limit.
func overfullConn(t *testing.T) net.Conn {
	t.Helper()
	l := netlimit.New(netlimit.Limits{All: 1})
	for {
		a, b := net.Pipe()
		t.Cleanup(func() { a.Close(); b.Close() })
		c := l.Admit(a)
		if c == nil {
			t.Fatal("no connection is beyond the limit")
		}
		if c.Overfull() {
			return c
		}
		c.Proven()
	}
}

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
	} {
		begin := time.Now()
		_, err := peeringFilter(httptest.NewRequest("GET", "/v1/peerings?filter="+url.QueryEscape(x.filter), nil))
		if (err == nil) != x.ok {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "Failed to create boolean expression evaluator: ") {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(begin); took > generous {
			t.Errorf("%s took %v", name, took)
		}
	}
}

// What a filter_path costs grows with its length and with the answer, not faster; it is bounded and says so.
func TestFilterPathBounds(t *testing.T) {
	deep := `1`
	for range 200 {
		deep = fmt.Sprintf(`{"a":%s,"b":1}`, deep)
	}
	dec := json.NewDecoder(strings.NewReader(deep))
	tree, err := readNode(dec)
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range []string{strings.Repeat("**.a.", 63) + "c", strings.Repeat("*a*.**.", 60) + "c", "-" + strings.Repeat("**.a.", 60) + "c",
		strings.Repeat("**.c,", 63)} {
		f, err := parseFilterPath(list)
		if err != nil {
			t.Fatalf("%.20s…: %v", list, err)
		}
		done := make(chan struct{})
		go func() { defer close(done); filterPaths(context.Background(), tree, f) }()
		select {
		case <-done:
		case <-time.After(generous):
			t.Fatalf("%.20s… takes far too long", list)
		}
	}
	for _, list := range []string{strings.Repeat("a.**.", 2000), strings.Repeat("a,", maxPaths+1), strings.Repeat("a.b.", maxSegments), strings.Repeat("x", maxPathsBytes+1)} {
		if _, err := parseFilterPath(list); err == nil {
			t.Errorf("%.20s… is taken", list)
		}
	}
	if f, err := parseFilterPath(strings.TrimSuffix(strings.Repeat("**.", 1000), ".")); err != nil || len(f.keep) != 1 || len(f.keep[0]) != 1 {
		t.Errorf("a row of ** is one: %v, %v", f, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	f, _ := parseFilterPath("**.b")
	big := &node{kind: '{'}
	for i := range 1000 {
		big.keys, big.items = append(big.keys, fmt.Sprint(i)), append(big.items, tree)
	}
	if got := filterPaths(ctx, big, f); len(got.items) >= 1000 {
		t.Error("nobody waits for it, and it goes on")
	}
}

// Every endpoint of the family refuses a filter_path that is too long, whoever asks, and nothing else happens.
func TestFilterPathIsRefused(t *testing.T) {
	s := newTestServer(t)
	poor := s.token()
	long := strings.Repeat("a.**.", 2000) + "x"
	for _, rt := range s.Routes() {
		if rt.Family.Name != "elastic" {
			continue
		}
		for _, token := range []string{s.admin, poor} {
			w := s.call(rt.Method, rt.Path+"?filter_path="+long, token, "")
			if w.Code != 400 || !strings.Contains(w.Body.String(), "filter_path must") {
				t.Errorf("%s %s: %d %s", rt.Method, rt.Path, w.Code, w.Body)
			}
		}
	}
}
