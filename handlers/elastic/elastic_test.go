package elastic

import (
	"bytes"
	"compress/gzip"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"muster/handlers"
)

// What a request asks of the shape of its answer, against what the original makes of the same.
func TestElasticShape(t *testing.T) {
	const body = `{"http_ca_key":"MII+/=","nodes":{"a":{"http":{"bound":["1:1","2:2"],"n":100.0},"x":null},` +
		`"b":{"http":{"bound":[]}}},"none":{},"list":[{"k":1,"v":"<&>"},{"v":2}]}`
	for _, x := range []struct {
		query  string
		status int
		want   string
	}{
		{"", 200, body},
		{"pretty=false", 200, body},
		{"filter_path=", 200, body},
		{"filter_path=http_*", 200, `{"http_ca_key":"MII+/="}`},
		{"filter_path=http_ca_key,none", 200, `{"http_ca_key":"MII+/=","none":{}}`},
		{"filter_path=nodes.*.http.bound", 200, `{"nodes":{"a":{"http":{"bound":["1:1","2:2"]}},"b":{"http":{"bound":[]}}}}`},
		{"filter_path=nodes.a", 200, `{"nodes":{"a":{"http":{"bound":["1:1","2:2"],"n":100.0},"x":null}}}`},
		{"filter_path=**.n", 200, `{"nodes":{"a":{"http":{"n":100.0}}}}`},
		{"filter_path=list.v", 200, `{"list":[{"v":"<&>"},{"v":2}]}`},
		{"filter_path=-nodes,-list", 200, `{"http_ca_key":"MII+/=","none":{}}`},
		{"filter_path=nodes,-**.bound,-**.x", 200, `{"nodes":{"a":{"http":{"n":100.0}}}}`},
		{"filter_path=nothing", 200, `{}`},
		{"filter_path=nothing", 404, body},
		{"filter_path=%5B", 200, `{}`},
		{"pretty&filter_path=http_*,none,list.k,nodes.b", 200,
			"{\n  \"http_ca_key\" : \"MII+/=\",\n  \"nodes\" : {\n    \"b\" : {\n      \"http\" : {\n        \"bound\" : [ " +
				"]\n      }\n    }\n  },\n  \"none\" : { },\n  \"list\" : [\n    {\n      \"k\" : 1\n    }\n  ]\n}\n"},
	} {
		rec := httptest.NewRecorder()
		w := newShaper(rec, httptest.NewRequest("GET", "/?"+x.query, nil))
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(x.status)
		if _, err := w.Write([]byte(body)); err != nil {
			t.Fatal(err)
		}
		w.Finish()
		if got := rec.Body.String(); got != x.want || rec.Code != x.status {
			t.Errorf("%s: %d\n%s\nwant\n%s", x.query, rec.Code, got, x.want)
		}
	}
}

func TestElasticMediaType(t *testing.T) {
	for _, x := range []struct{ accept, answer string }{
		{"", "application/json"},
		{"*/*", "application/json"},
		{"application/json", "application/json"},
		{"text/html,application/xhtml+xml", "application/json"},
		{"application/vnd.elasticsearch+json;compatible-with=7", "application/vnd.elasticsearch+json;compatible-with=7"},
		{"application/vnd.elasticsearch+json;compatible-with=8", "application/vnd.elasticsearch+json;compatible-with=8"},
		{"application/vnd.elasticsearch+json; compatible-with=9", "application/vnd.elasticsearch+json;compatible-with=9"},
		{"Application/VND.Elasticsearch+JSON ; Compatible-With=8", "application/vnd.elasticsearch+json;compatible-with=8"},
		{"application/vnd.elasticsearch+json;compatible-with=6", ""},
		{"application/vnd.elasticsearch+json;compatible-with=10", ""},
		{"application/vnd.elasticsearch+json;compatible-with=x", ""},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Accept", x.accept)
		if err := checkAccept(r); (err == nil) != (x.answer != "") {
			t.Errorf("%s: %v", x.accept, err)
		}
		if x.answer == "" {
			continue
		}
		rec := httptest.NewRecorder()
		w := newShaper(rec, r)
		writeJSON(w, 200, struct{}{})
		w.Finish()
		if got := rec.Header().Get("Content-Type"); got != x.answer {
			t.Errorf("%s: %s, want %s", x.accept, got, x.answer)
		}
	}
}

// A body may come compressed; unpacked it is bounded like any other.
func TestElasticUnzip(t *testing.T) {
	pack := func(text string) []byte {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	packed := pack(`{"name":"x"}`)
	for _, x := range []struct {
		name     string
		encoding string
		body     []byte
		want     string
		status   int
	}{
		{"packed", "gzip", packed, `{"name":"x"}`, 0},
		{"not packed", "", []byte(`{"name":"x"}`), `{"name":"x"}`, 0},
		{"cut off", "gzip", packed[:len(packed)-9], "", 400},
		{"not gzip", "gzip", []byte(`{"name":"x"}`), "", 400},
		{"a bomb", "gzip", pack(strings.Repeat(" ", handlers.BodyLimit+1)), "", 413},
		{"as large as may be", "gzip", pack(strings.Repeat(" ", handlers.BodyLimit)), strings.Repeat(" ", handlers.BodyLimit),
			0},
	} {
		q := &handlers.Request{Request: httptest.NewRequest("POST", "/_security/api_key", nil), Content: x.body,
			HasBody: true}
		q.Header.Set("Content-Type", "application/json")
		q.Header.Set("Content-Encoding", x.encoding)
		err := checkBody(q)
		if err == nil {
			err = unzip(q)
		}
		var e *apiError
		switch {
		case x.status == 0 && (err != nil || string(q.Content) != x.want):
			t.Errorf("%s: %v, %d bytes", x.name, err, len(q.Content))
		case x.status != 0 && (!errors.As(err, &e) || e.Status != x.status):
			t.Errorf("%s: %v, want %d", x.name, err, x.status)
		}
	}
}

func TestTimeValue(t *testing.T) {
	for text, want := range map[string]time.Duration{"30m": 30 * time.Minute, "1d": 24 * time.Hour,
		"2h": 2 * time.Hour, "90s": 90 * time.Second,
		"1500ms": 1500 * time.Millisecond, "1nanos": time.Second, "5micros": time.Second, "3650d": 3650 * 24 * time.Hour} {
		if got, err := timeValue("expiration", text); err != nil || got != want {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
	for text, why := range map[string]string{"30": "unit is missing or unrecognized",
		"":  "unit is missing or unrecognized",
		"m": "it must begin with a whole number", "1w": "unit is missing or unrecognized",
		"1.5h": "it must begin with a whole number", "0m": "it must be positive", "-1": "unit is missing or unrecognized",
		"-1d": "it must be positive", "1 d": "it must begin with a whole number",
		"9999999999d": "it must not be longer than ten years", "99999999999999999999d": "it must begin with a whole number"} {
		want := "failed to parse setting [expiration] with value [" + text + "] as a time value: " + why
		if got, err := timeValue("expiration", text); err == nil || err.Error() != want {
			t.Errorf("%q: %v, %v, want %s", text, got, err, want)
		}
	}
}
