package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"muster/handlers/native/openapi"
)

// harmlessRequest is a documented operation with arguments that change nothing of what is there.
type harmlessRequest struct{ method, path, target, body string }

// harmlessRequests lists all documented operations but those that stream.
func harmlessRequests(t *testing.T) (list []harmlessRequest) {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(openapi.Document())
	if err != nil {
		t.Fatal(err)
	}
	token, err := json.Marshal(map[string]any{"CA": []string{}, "ServerAddresses": []string{"127.0.0.1:1"}, "PeerID": "x"})
	if err != nil {
		t.Fatal(err)
	}
	bodies := map[string]string{"/v1/peering/token": `{"PeerName":"x"}`, "/_security/api_key": `{"name":"x","id":"x"}`,
		"/api/v1/sql": `{"query":"SELECT 1"}`, "/api/v1/cluster/join": `{"token":"x"}`,
		"/api/v1/cluster/pki/join-tokens": `{"nodeID":77}`,
		"/api/v1/api-tokens":              `{"name":"q","scopes":["cluster:read"]}`,
		"/v1/peering/establish": fmt.Sprintf(`{"PeerName":"x","PeeringToken":%q}`,
			base64.StdEncoding.EncodeToString(token))}
	queries := map[string]string{"/v1/operator/raft/peer": "?id=999999",
		"/v1/operator/raft/transfer-leadership": "?id=11111111-2222-4333-8444-555555555555"}
	values := strings.NewReplacer("{id}", "999999", "{node}", "999999", "{name}", "nothing", "{file}", "nothing")
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			if path == "/api/v1/events" {
				continue
			}
			r := harmlessRequest{method, path, values.Replace(path) + queries[path], ""}
			if method == http.MethodPost || method == http.MethodPut {
				if r.body = bodies[path]; r.body == "" {
					r.body = "{}"
				}
			}
			list = append(list, r)
		}
	}
	slices.SortFunc(list, func(a, b harmlessRequest) int { return strings.Compare(a.path+a.method, b.path+b.method) })
	return list
}

// sendAll sends all requests at once; the answers come when they are there.
func (u *user) sendAll(m *member, list []harmlessRequest) <-chan []answer {
	answers := make([]answer, len(list))
	var all sync.WaitGroup
	for i, r := range list {
		all.Go(func() { answers[i] = u.do(m, r.method, r.target, r.body) })
	}
	done := make(chan []answer, 1)
	go func() { all.Wait(); done <- answers }()
	return done
}

// askAll sends all requests at once and checks what each answer owes its caller: it comes, in its family's envelope,
// and says whether something may have happened and when to try again.
func (u *user) askAll(t *testing.T, m *member, situation string, list []harmlessRequest) {
	t.Helper()
	answers := awaitAll(t, situation, u.sendAll(m, list))
	for i, a := range answers {
		if a.err != nil {
			t.Errorf("%s: %s %s: %v", situation, list[i].method, list[i].target, a.err)
		}
	}
	judgeAll(t, situation, list, answers)
}

func awaitAll(t *testing.T, situation string, done <-chan []answer) []answer {
	t.Helper()
	select {
	case answers := <-done:
		return answers
	case <-time.After(2 * formed):
		t.Fatalf("%s: not everything is answered", situation)
		return nil
	}
}

// judgeAll checks the answers that came.
func judgeAll(t *testing.T, situation string, list []harmlessRequest, answers []answer) {
	t.Helper()
	for i, r := range list {
		a := answers[i]
		if a.err != nil {
			continue
		}
		what := fmt.Sprintf("%s: %s %s: %d %.200s", situation, r.method, r.target, a.status, a.body)
		unknown := a.header.Get("X-Muster-Outcome") == "unknown"
		keyed := strings.HasPrefix(r.path, "/_security/enroll/") // a GET that makes something new
		// What the original answers with 500, and a health that is one.
		refusal := r.path == "/v1/operator/snapshot" && strings.Contains(a.body, "failed to restore from snapshot") ||
			r.path == "/v1/operator/raft/peer" && strings.Contains(a.body, "was not found") || r.path == "/v1/agent/health"
		switch {
		case a.status >= 400 && strings.Contains(a.body, "internal error"):
			t.Errorf("%s: an internal error", what)
		case a.status >= 500 && !unknown && !refusal && a.header.Get("Retry-After") == "":
			t.Errorf("%s: nothing has happened, and nothing says when to try again", what)
		case a.status >= 400 && unknown != strings.Contains(a.body, "may or may not have been carried out") &&
			r.method != http.MethodHead:
			t.Errorf("%s: text and header disagree", what)
		case unknown && r.method == http.MethodGet && !keyed:
			t.Errorf("%s: a read has no outcome", what)
		case a.status >= 400 && !strings.HasPrefix(r.path, "/v1/") &&
			!strings.Contains(a.header.Get("Content-Type"), "json") && r.method != http.MethodHead:
			t.Errorf("%s: not the family's envelope: %s", what, a.header.Get("Content-Type"))
		}
	}
}

// TestEverySituation walks over all documented operations while the leader hangs, has just died, the majority hangs and
// is dead, and while a member starts alone.
func TestEverySituation(t *testing.T) {
	t.Parallel()
	list := harmlessRequests(t)
	if len(list) < 90 {
		t.Errorf("only %d operations", len(list))
	}
	c := newCluster(t, 3)
	u := c.admin(t)
	asked, other := c.members[0], c.members[1]
	u.lead(t, other)
	other.pause()
	u.askAll(t, asked, "the leader hangs", list)
	other.carryOn()
	c.awaitVoters(t)
	u.lead(t, other)
	other.kill()
	u.askAll(t, asked, "the leader has just died", list)
	c.members[2].pause()
	u.askAll(t, asked, "the majority hangs", list)
	u.askAll(t, asked, "nobody leads", list)
	asked.stop(t)
	asked.start(t)
	asked.awaitReady(t)
	u.askAll(t, asked, "it has started without a majority", list)
	c.members[2].carryOn()
}

// TestRemovedSituation walks over all documented operations on a member that has been removed while it hung, be it the
// leader of that time, and that learns of it while it answers. It ends as removed members do, and nothing is carried
// out for it.
func TestRemovedSituation(t *testing.T) {
	t.Parallel()
	list := harmlessRequests(t)
	for what, leads := range map[string]bool{"a follower has been removed": false, "the leader has been removed": true} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, 3)
			u := c.admin(t)
			left, gone := c.members[0], c.members[2]
			if leads {
				u.lead(t, gone)
			} else {
				u.lead(t, left)
			}
			gone.pause()
			t.Cleanup(gone.carryOn)
			if a := u.patiently(left, "DELETE", memberURL(gone.n, "")+"?force=true", ""); a.status != 200 {
				t.Fatalf("removal: %v", a)
			}
			removal := left.status(t).Revision
			sent := u.sendAll(gone, list) // they wait for its process
			gone.carryOn()
			answers := awaitAll(t, what, sent)
			judgeAll(t, what, list, answers)
			answered := 0
			for i, a := range answers {
				if a.err != nil {
					continue // it has ended
				}
				answered++
				if a.status < 300 && changes(list[i]) {
					t.Errorf("%s %s: %d %.200s", list[i].method, list[i].target, a.status, a.body)
				}
			}
			t.Logf("%d of %d requests were answered", answered, len(list))
			gone.awaitExpelled(t)
			c.members = c.others(gone)
			c.awaitVoters(t)
			left.awaitSQL(t, fmt.Sprintf("SELECT count(*) FROM audit WHERE node_id = %d AND revision > %d", gone.n,
				removal), "0")
		})
	}
}

// TestFencedSituation walks over all documented operations on a member that the others have removed while it hung, and
// that cannot hear of it because they hang now: it answers as any member without a leader. Nothing of that is carried
// out when they wake up, they refuse the member, and it ends.
func TestFencedSituation(t *testing.T) {
	t.Parallel()
	list := harmlessRequests(t)
	c := newCluster(t, 3)
	u := c.admin(t)
	left, other, gone := c.members[0], c.members[1], c.members[2]
	u.lead(t, left)
	gone.pause()
	t.Cleanup(gone.carryOn)
	if a := u.patiently(left, "DELETE", memberURL(gone.n, "")+"?force=true", ""); a.status != 200 {
		t.Fatalf("removal: %v", a)
	}
	removal := left.status(t).Revision
	for _, m := range []*member{left, other} {
		m.pause()
		t.Cleanup(m.carryOn)
	}
	gone.carryOn()
	const what = "it is removed, and cannot hear of it"
	answers := awaitAll(t, what, u.sendAll(gone, list))
	judgeAll(t, what, list, answers)
	for i, a := range answers {
		if a.err != nil {
			t.Errorf("%s: %s %s: %v", what, list[i].method, list[i].target, a.err)
		}
		if changes(list[i]) && a.status < 300 {
			t.Errorf("%s: %s %s: %d %.200s", what, list[i].method, list[i].target, a.status, a.body)
		}
	}
	left.carryOn()
	other.carryOn()
	gone.awaitExpelled(t)
	c.members = c.others(gone)
	c.awaitVoters(t)
	left.awaitSQL(t, fmt.Sprintf("SELECT count(*) FROM audit WHERE node_id = %d AND revision > %d", gone.n, removal), "0")
}

// changes reports whether a request would change something.
func changes(r harmlessRequest) bool {
	return r.method != http.MethodGet && r.method != http.MethodHead && r.path != "/api/v1/sql"
}
