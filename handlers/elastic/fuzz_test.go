package elastic

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"muster/handlers/internal/handlerstest"
)

func FuzzFilterPath(f *testing.F) {
	const answer = `{"nodes":{"a":{"http":{"bound":["1:1","2:2"]},"x":null}},"list":[{"k":1},{"v":2}],"n":1.0}`
	for _, seed := range []string{"nodes.*.http", "**.n,-list", "-", ",", "a.**.**.b", "[", "*a*a*a*.b", "**", "-**",
		"nodes.a.", "."} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, list string) {
		filter, err := parseFilterPath(list)
		if err != nil {
			handlerstest.RefusedWell(t, err)
			return
		}
		if len(filter.keep)+len(filter.drop) > maxPaths {
			t.Fatalf("%d paths", len(filter.keep)+len(filter.drop))
		}
		rec := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "/", http.NoBody)
		r.URL.RawQuery = url.Values{"filter_path": {list}}.Encode()
		w := newShaper(rec, r)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(answer))
		w.Finish()
		if !json.Valid(rec.Body.Bytes()) || rec.Body.Len() > len(answer) {
			t.Fatalf("%q makes %s", list, rec.Body)
		}
	})
}

func FuzzMalformedKey(f *testing.F) {
	f.Add("YTpi")
	f.Add("====")
	f.Fuzz(func(t *testing.T, text string) {
		if malformedKey(text) == "" {
			t.Fatal("it does not say what is wrong")
		}
	})
}
