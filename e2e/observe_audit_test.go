package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"muster/client"
)

// testAudit: pages in both directions add up to the table, and filters select what sqlite3 selects.
func testAudit(t *testing.T, c *cluster) {
	u := c.admin(t)
	m := c.leader(t)
	u.do(m, "PUT", "/api/v1/cluster/leases/observed-1", `{"nodeId":1,"ttlSeconds":600}`)
	u.do(m, "DELETE", "/api/v1/cluster/leases/observed-1", "")
	end := c.revision(t)
	eventually(t, formed, "the mirror is there", func() error {
		if got := sqlite(t, m.db(), "SELECT revision FROM cluster"); got < fmt.Sprint(end) &&
			len(got) <= len(fmt.Sprint(end)) {
			return errors.New(got)
		}
		return nil
	})
	ids := func(where, order string) []string {
		text := sqlite(t, m.db(),
			fmt.Sprintf("SELECT revision || '.' || seq FROM audit WHERE revision <= %d AND %s ORDER BY revision %s, seq %s", end,
				where, order, order))
		return strings.Fields(text)
	}
	pages := func(m *member, query string, limit int) (all []string) {
		for after := ""; ; {
			path := fmt.Sprintf("/api/v1/audit?limit=%d%s", limit, query)
			if after != "" {
				path += "&after=" + after
			}
			page := get[client.AuditPage](t, u, m, "GET", path, "")
			if len(page.Entries) > limit {
				t.Fatalf("%s: a page of %d", path, len(page.Entries))
			}
			for _, e := range page.Entries {
				if e.Revision <= end {
					all = append(all, e.ID())
				}
			}
			if after = page.Next; after == "" {
				return all
			}
		}
	}
	half := sqlite(t, m.db(), "SELECT at FROM audit ORDER BY revision LIMIT 1 OFFSET (SELECT count(*) / 2 FROM audit)")
	admin := sqlite(t, m.db(), "SELECT id FROM api_tokens WHERE name = 'admin'")
	for _, x := range []struct {
		query, where, order string
		limit               int
	}{
		{"", "1", "ASC", 97},
		{"&order=desc", "1", "DESC", 97},
		{"&object=node/1", "object = 'node/1'", "ASC", 2},
		{"&object=lease/observed-1&order=desc", "object = 'lease/observed-1'", "DESC", 1},
		{"&action=leader.", "action LIKE 'leader.%'", "ASC", 3},
		{"&action=lease.grant", "action = 'lease.grant'", "ASC", 3},
		{"&actor=autopilot", "actor = 'autopilot'", "ASC", 1000},
		{"&actor=admin", "actor LIKE 'admin (%'", "ASC", 1000},
		{"&actor=" + admin, "actor LIKE 'admin (%'", "DESC", 1000},
		{"&node=1", "node_id = 1", "ASC", 1000},
		{"&since=" + half, "at >= '" + half + "'", "ASC", 1000},
		{"&until=" + half + "&order=desc", "at <= '" + half + "'", "DESC", 1000},
		{"&since=" + half + "&until=" + half + "&actor=admin", "at = '" + half + "' AND actor LIKE 'admin (%'", "ASC", 10},
		{"&since=2050-01-01T00:00:00Z", "0", "ASC", 10},
		{"&object=%25&actor=%25", "0", "ASC", 10},
	} {
		if strings.Contains(x.query, admin) {
			x.query += "&order=desc"
		}
		if got, want := pages(m, x.query, x.limit), ids(x.where, x.order); !slices.Equal(got, want) {
			t.Errorf("%s: %d entries, sqlite3 finds %d\n%v\n%v", x.query, len(got), len(want), got, want)
		}
	}
	auditRefusals(t, c, u, m)
}

// auditRefusals: queries that are wrong are refused, and the command shows the same rows.
func auditRefusals(t *testing.T, c *cluster, u *user, m *member) {
	t.Helper()
	for query, body := range map[string]string{
		"limit=0":                            `{"error":"limit must be a whole number between 1 and 1000"}`,
		"limit=1001":                         `{"error":"limit must be a whole number between 1 and 1000"}`,
		"order=up":                           `{"error":"order must be asc or desc"}`,
		"since=yesterday":                    `{"error":"since must be a time as in RFC 3339, such as 2030-01-02T15:04:05Z"}`,
		"until=1":                            `{"error":"until must be a time as in RFC 3339, such as 2030-01-02T15:04:05Z"}`,
		"node=0":                             `{"error":"node must be a member's number"}`,
		"after=x":                            `{"error":"after must be the id of an entry, such as 12.1, or a revision"}`,
		"action=" + strings.Repeat("a", 257): `{"error":"action must have at most 256 bytes"}`,
	} {
		u.do(m, "GET", "/api/v1/audit?"+query, "").expect(t, query, 400, body)
	}
	c.nobody(t).do(m, "GET", "/api/v1/audit", "").expect(t, "no token", 401, `{"error":"Invalid token"}`)

	cmd := command{env: c.env(c.token)}
	list := jsonOf[[]client.Event](t, cmd.ok(t, "audit", "--object", "lease/observed-1", "-o", "json"))
	if len(list) != 2 || list[0].Action != "lease.grant" || list[1].Action != "lease.release" || list[1].Remote == "" {
		t.Errorf("audit --object: %+v", list)
	}
	out := cmd.ok(t, "audit", "--limit", "3", "--action", "leader.", "--since", "1h")
	if lines := strings.Split(strings.TrimSpace(out.stdout), "\n"); len(lines) != 4 ||
		!strings.HasPrefix(lines[0], "AT ") || !strings.Contains(lines[3], "leader.elected") {
		t.Errorf("audit --limit 3: %s", out.stdout)
	}
	if out := cmd.run(t, "audit", "--since", "yesterday"); out.code != 2 {
		t.Errorf("audit --since yesterday: exit status %d", out.code)
	}
}

// testRefusals: attempts with wrong or weak credentials are kept, counted, without what was shown, and in bounds.
func testRefusals(t *testing.T, c *cluster) {
	u := c.admin(t)
	m := c.leader(t)
	follower := c.throughBoth(t)["follower"]
	start := c.revision(t)
	const guess = "guessed-secret-0123456789"
	thief := c.as(t, guess)
	for range 30 {
		thief.do(follower, "POST", "/api/v1/api-tokens", `{"name":"x","scopes":["management"]}`).expect(t, "a guess", 401,
			`{"error":"Invalid token"}`)
	}
	reader := c.as(t, u.apiToken(t, m, "only-reads", "cluster:read").Token)
	reader.do(m, "DELETE", "/api/v1/cluster/members/2", "").expect(t, "a weak token", 403, `{"error":"Forbidden"}`)
	thief.do(m, "POST", "/api/v1/cluster/join", joinBody(t, guess)).is(t, "a guessed join token", 401, "")
	thief.do(m, "GET", "/api/v1/cluster/members", "") // reading what any reader may: not kept
	path := fmt.Sprintf("/api/v1/audit?after=%d&action=access.refused", start)
	var found []client.Event
	eventually(t, formed, "the refusals are in the audit", func() error {
		found = get[client.AuditPage](t, u, m, "GET", path, "").Entries
		if len(found) < 3 {
			return fmt.Errorf("%d entries", len(found))
		}
		return nil
	})
	var guesses, weak, joins int
	for _, e := range found {
		switch {
		case e.Outcome != "refused" || e.Type != "access":
			t.Errorf("%+v", e)
		case e.Object == "POST /api/v1/api-tokens" && e.Remote == thief.from.String() &&
			strings.HasPrefix(e.Detail, "401 Invalid token"):
			guesses++
		case e.Object == "DELETE /api/v1/cluster/members/{id}" && strings.HasPrefix(e.Actor, "only-reads (") &&
			e.Detail == "403 Forbidden":
			weak++
		case e.Object == "POST /api/v1/cluster/join" && e.Remote == thief.from.String() &&
			e.Detail == "401 Invalid join token: malformed":
			joins++
		default:
			t.Errorf("unexpected: %+v", e)
		}
	}
	if guesses < 1 || guesses > 2 || weak != 1 || joins != 1 {
		t.Errorf("%d rows for 30 guesses, %d for the weak token, %d for the join: %+v", guesses, weak, joins, found)
	}
	if text, _ := json.Marshal(found); strings.Contains(string(text), "guessed-secret") {
		t.Errorf("the audit holds what was guessed: %s", text)
	}
	if got := sqlite(t, m.db(), "SELECT count(*) FROM members WHERE raft_node_id = 2"); got != "1" {
		t.Errorf("the refused removal has happened")
	}
}

// scrape reads the metrics of a member without a token.
func scrape(t *testing.T, c *cluster, m *member) (text string, values map[string]float64) {
	t.Helper()
	a := c.nobody(t).do(m, "GET", "/metrics", "")
	if a.err != nil || a.status != 200 || !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") {
		t.Fatalf("metrics of node %d: %d %v %v", m.n, a.status, a.header, a.err)
	}
	values = map[string]float64{}
	for line := range strings.Lines(a.body) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && !strings.HasPrefix(line, "#") {
			values[name], _ = strconv.ParseFloat(value, 64)
		}
	}
	return a.body, values
}

// testMetrics: numbers move when things happen, every member has them, and what is documented is what there is.
func testMetrics(t *testing.T, c *cluster) {
	u := c.admin(t)
	m := c.leader(t)
	_, before := scrape(t, c, m)
	for range 3 {
		u.create(t, m, `{}`)
	}
	revoked := u.create(t, m, `{}`)
	u.do(m, "DELETE", "/api/v1/cluster/join-tokens/"+revoked.ID, "").is(t, "revoke", 200, "")
	open := u.stream(t, m, "", "", 0)
	c.nobody(t).do(m, "GET", "/api/v1/cluster/members/1?a=b", "")
	c.nobody(t).do(m, "GET", "/no/such/path", "")
	text, after := scrape(t, c, m)
	open.cancel()
	grows := func(name string, by float64) {
		t.Helper()
		if got := after[name] - before[name]; got != by {
			t.Errorf("%s has grown by %v, not %v", name, got, by)
		}
	}
	grows(`muster_tokens{kind="join",state="valid"}`, 3)
	grows(`muster_tokens{kind="join",state="revoked"}`, 1)
	grows(`muster_http_requests_total{code="201",method="POST",route="/api/v1/cluster/join-tokens",via="api"}`, 4)
	grows(`muster_http_requests_total{code="401",method="GET",route="/api/v1/cluster/members/{id}",via="api"}`, 1)
	grows(`muster_http_requests_total{code="404",method="GET",route="other",via="api"}`, 1)
	grows(`muster_http_request_duration_seconds_count{method="POST",route="/api/v1/cluster/join-tokens"}`, 4)
	grows(`muster_event_readers`, 1)
	if after["muster_revision"] < before["muster_revision"]+5 ||
		after["muster_commit_duration_seconds_count"] < before["muster_commit_duration_seconds_count"]+5 ||
		after["muster_audit_rows"] < before["muster_audit_rows"]+5 {
		t.Errorf("revision, commits, audit: %v %v %v, before %v %v %v", after["muster_revision"],
			after["muster_commit_duration_seconds_count"], after["muster_audit_rows"],
			before["muster_revision"], before["muster_commit_duration_seconds_count"], before["muster_audit_rows"])
	}
	for name, want := range map[string]float64{"muster_voters": 3, "muster_failure_tolerance": 1,
		"muster_members_reachable": 3, "muster_is_leader": 1,
		`muster_role{role="voter"}`: 1, `muster_raft_servers{role="voter"}`: 3, "muster_has_leader": 1,
		"muster_dek_generation":                   1,
		`muster_tokens{kind="api",state="valid"}`: after[`muster_tokens{kind="api",state="valid"}`]} {
		if after[name] != want {
			t.Errorf("%s is %v, not %v", name, after[name], want)
		}
	}
	expires := after[`muster_certificate_expiry_timestamp_seconds{kind="http",of="member"}`]
	if days := time.Until(time.Unix(int64(expires), 0)).Hours() / 24; days < 80 || days > 91 {
		t.Errorf("this member's certificate expires in %v days", days)
	}
	for _, other := range c.others(m) {
		_, here := scrape(t, c, other)
		if here["muster_is_leader"] != 0 || here["muster_has_leader"] != 1 ||
			here[`muster_raft_servers{role="voter"}`] != 3 || here["muster_revision"] == 0 ||
			here[`muster_tokens{kind="api",state="valid"}`] == 0 || here["muster_disk_free_bytes"] == 0 ||
			here["muster_mirror_size_bytes"] == 0 {
			t.Errorf("node %d: %v", other.n, here)
		}
		if _, ok := here["muster_voters"]; ok {
			t.Errorf("node %d shows what only the leader's probes tell", other.n)
		}
	}
	for _, name := range []string{"node", "remote", "id", "path"} {
		if strings.Contains(text, `http`) && regexp.MustCompile(`muster_http[^\n]*\b`+name+`="`).MatchString(text) {
			t.Errorf("requests have a label %s", name)
		}
	}

	metricsAreListed(t, text)
}

// metricsAreListed: the document lists what is shown, what is listed is shown, and promtool can read it.
func metricsAreListed(t *testing.T, text string) {
	t.Helper()
	documented, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, f := range regexp.MustCompile("(?m)^\\| `(muster_[a-z_]+)`").FindAllSubmatch(documented, -1) {
		listed[string(f[1])] = true
	}
	shown := map[string]bool{}
	for _, f := range regexp.MustCompile(`(?m)^# TYPE (muster_[a-z_]+) `).FindAllStringSubmatch(text, -1) {
		shown[f[1]] = true
		if !listed[f[1]] {
			t.Errorf("docs/metrics.md does not list %s", f[1])
		}
	}
	for name := range listed {
		// There are no peerings, no backups and no workloads there.
		none := name == "muster_peerings" || strings.HasPrefix(name, "muster_backup_last_") ||
			strings.HasPrefix(name, "muster_workload_")
		if !shown[name] && !none {
			t.Errorf("docs/metrics.md lists %s, which the leader does not show", name)
		}
	}
	cmd := exec.Command(promtool(t), "check", "metrics")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool check metrics: %v: %s", err, out)
	}
}

// promtool finds Prometheus' own tool, which scripts/setup.sh puts into .deps.
func promtool(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		if path, err = filepath.Abs("../.deps/bin/promtool"); err == nil {
			_, err = os.Stat(path)
		}
	}
	if err != nil {
		t.Fatalf("%v: scripts/setup.sh test fetches it", err)
	}
	return path
}

// TestAlertRules: Prometheus accepts the alert rules, they fire when they should, and they and the dashboard ask for
// metrics that are documented.
func TestAlertRules(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"check", "rules", "alerts.yml"}, {"test", "rules", "alerts_test.yml"}} {
		cmd := exec.Command(promtool(t), args...)
		cmd.Dir = "../docs/metrics"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	documented, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"alerts.yml", "dashboard.json"} {
		text, err := os.ReadFile("../docs/metrics/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, ".json") && !json.Valid(text) {
			t.Errorf("%s is not JSON", name)
		}
		used := regexp.MustCompile(`muster_[a-z_]+`).FindAllString(string(text), -1)
		if len(used) < 10 {
			t.Errorf("%s uses %d metrics", name, len(used))
		}
		for _, m := range used {
			base := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(m, "")
			if !strings.Contains(string(documented), "`"+m+"`") && !strings.Contains(string(documented), "`"+base+"`") {
				t.Errorf("%s asks for %s, which docs/metrics.md does not list", name, m)
			}
		}
	}
}
