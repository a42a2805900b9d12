package elastic_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"muster/handlers"
	"muster/handlers/internal/sole"
)

// TestElasticVersions: every endpoint of the family names the version that it does not speak, where it reads one.
func TestElasticVersions(t *testing.T) {
	s := sole.New(t)
	for _, rt := range s.Routes() {
		if rt.Family.Name != "elastic" {
			continue
		}
		method, path, name := rt.Method, rt.Path, rt.Method+" "+rt.Path
		for _, version := range []string{"6", "10", "99", "x"} {
			kind := "application/vnd.elasticsearch+json;compatible-with=" + version
			w := s.Call(method, path, s.Admin, "", "Accept", kind)
			if why := `"reason":"Accept version must be either version 9 or 8, but found ` + version + ". Accept=" + kind +
				`"`; w.Code != 400 || strings.Count(w.Body.String(), why) < 2 {
				t.Errorf("%s: %d %s", name, w.Code, w.Body)
			}
			if !rt.Changes() {
				continue
			}
			w = s.Call(method, path, s.Admin, "{}", "Content-Type", kind)
			if why := `"reason":"Content-Type version must be either version 9 or 8, but found ` + version + ". Content-Type=" +
				kind + `"`; w.Code != 400 || strings.Count(w.Body.String(), why) < 2 {
				t.Errorf("%s: %d %s", name, w.Code, w.Body)
			}
		}
	}
}

// The rules of the family are complete: each of its routes has them.
func TestElasticEndpoints(t *testing.T) {
	s := sole.New(t)
	for _, rt := range s.Routes() {
		if rt.Family.Name != "elastic" {
			continue
		}
		if rt.Check == nil || rt.Admit == nil {
			t.Errorf("%s %s does not check the Accept header, or lets everybody in", rt.Method, rt.Path)
		}
	}
}

// Every endpoint of the family refuses a filter_path that is too long, whoever asks, and nothing else happens.
func TestFilterPathIsRefused(t *testing.T) {
	s := sole.New(t)
	poor := s.Token()
	long := strings.Repeat("a.**.", 2000) + "x"
	for _, rt := range s.Routes() {
		if rt.Family.Name != "elastic" {
			continue
		}
		for _, token := range []string{s.Admin, poor} {
			w := s.Call(rt.Method, rt.Path+"?filter_path="+long, token, "")
			if w.Code != 400 || !strings.Contains(w.Body.String(), "filter_path must") {
				t.Errorf("%s %s: %d %s", rt.Method, rt.Path, w.Code, w.Body)
			}
		}
	}
}

// TestKeyLists: the lists and patterns that name API keys are bounded.
func TestKeyLists(t *testing.T) {
	s := sole.New(t)
	ids := func(n int, id string) string {
		list := make([]string, n)
		for i := range list {
			list[i] = fmt.Sprintf("%s%d", id, i)
		}
		data, err := json.Marshal(map[string]any{"ids": list})
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	long := strings.Repeat("a*", handlers.MaxParameterBytes/2) + "a"
	for body, want := range map[string]string{
		ids(handlers.MaxListed, "x"): "", ids(handlers.MaxListed+1, "x"): "ids must be at most 1000",
		ids(1, long):            "an id must be at most 1024 bytes long",
		`{"id":"` + long + `"}`: "an id must be at most 1024 bytes long", `{"name":"` + long +
			`"}`: "name must be at most 1024 bytes long",
		`{"username":"` + long + `"}`: "username must be at most", `{"realm_name":"` + long +
			`"}`: "realm_name must be at most", `{"name":"` + long[:1000] + `"}`: "",
	} {
		w := s.Call("DELETE", "/_security/api_key", s.Admin, body, "Content-Type", "application/json")
		if status := map[bool]int{true: 200, false: 400}[want == ""]; w.Code != status ||
			!strings.Contains(w.Body.String(), want) {
			t.Errorf("%.60s: %d %.200s, want %d %s", body, w.Code, w.Body, status, want)
		}
	}
}
