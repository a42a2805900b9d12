package handlers_test

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"muster/handlers/internal/sole"
	"muster/store"
)

// TestPrometheusTargets: the answer is what Prometheus' HTTP service discovery reads, and a token that reads is enough.
func TestPrometheusTargets(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	w := s.Call("GET", "/api/v1/prometheus/targets", s.Token(store.ScopeClusterRead), "")
	var list []struct {
		Targets []string
		Labels  map[string]string
	}
	if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || w.Code != http.StatusOK || len(list) != 1 ||
		len(list[0].Targets) != 1 {
		t.Fatalf("%d %s, %v", w.Code, w.Body, err)
	}
	if kind := w.Header().Get("Content-Type"); kind != "application/json" {
		t.Errorf("Content-Type %q", kind)
	}
	m, err := s.Store.Members.Get(t.Context(), store.AsLeader, 1)
	if err != nil || list[0].Targets[0] != m.APIAddress || strings.Contains(list[0].Targets[0], "/") {
		t.Errorf("%v, %v", list[0].Targets, err)
	}
	labels := list[0].Labels
	if labels["__scheme__"] != "https" || labels["__meta_muster_node_id"] != "1" ||
		labels["__meta_muster_name"] != m.Name ||
		labels["__meta_muster_cluster_id"] != s.ClusterID {
		t.Errorf("%v", labels)
	}
	for name := range labels {
		if !regexp.MustCompile(`^__(meta_muster_[a-z_]+|scheme__|metrics_path__)$`).MatchString(name) {
			t.Errorf("%s is no label of a target that is to be discovered", name)
		}
	}
}

// TestForeignMediaType: a client that names Elasticsearch's media type gets its envelope wherever nobody else serves
// the path; others get that of the path, and so does that client where somebody serves it.
func TestForeignMediaType(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	const own = "application/vnd.elasticsearch+json;compatible-with=9"
	for _, x := range []struct {
		method, path, header, kind string
		elastic                    bool
	}{
		{"GET", "/my-index/_search", "Accept", own, true},
		{"PUT", "/my-index", "Content-Type", own, true},
		{"POST", "/my-index/_doc", "Accept", "Application/VND.Elasticsearch+json; compatible-with=8", true},
		{"GET", "/my-index/_search", "Accept", "application/json", false},
		{"GET", "/v1/nothing", "Accept", "text/plain", false},
		{"GET", "/_nothing", "Accept", "application/json", true},
		{"GET", "/api/v1/status", "Accept", own, false},
	} {
		w := s.Call(x.method, x.path, s.Admin, "", x.header, x.kind)
		is := strings.Contains(w.Body.String(), "no handler found for uri")
		if is != x.elastic || is != (w.Header().Get("X-Elastic-Product") != "") || is && w.Code != http.StatusBadRequest {
			t.Errorf("%s %s, %s: %s: %d %s", x.method, x.path, x.header, x.kind, w.Code, w.Body)
		}
	}
}

// TestForeignLinks: links that other products' command lines print lead to the page, and to no other host.
func TestForeignLinks(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	for path, want := range map[string]string{
		"/ui/servers":                    "/ui/#/members",
		"/ui/servers/node-1.global":      "/ui/#/members",
		"/ui/servers?region=global":      "/ui/#/members",
		"/ui/jobs":                       "/ui/#/overview",
		"/ui/dc1/peers":                  "/ui/#/peerings",
		"/ui/dc1/overview/server-status": "/ui/#/overview",
		"/ui/nothing":                    "",
		"/ui/dc1/nothing":                "",
		"/ui/servers?to=//example.com":   "/ui/#/members",
		"/ui//example.com/":              "",
	} {
		w := s.Call("GET", path, "", "")
		if to := w.Header().Get("Location"); to != want && !(want == "" && strings.HasPrefix(to, "/ui/")) || want != "" &&
			w.Code != http.StatusFound {
			t.Errorf("%s: %d, to %q", path, w.Code, to)
		}
	}
	w := s.Call("GET", "/v1/operator/raft/configuration", s.Admin, "")
	if body := w.Body.String(); !strings.Contains(body, `"RaftProtocol":"3","Voter":true,"LastIndex":`) ||
		!strings.Contains(body, `"ProtocolVersion":"3"`) {
		t.Error(body)
	}
}
