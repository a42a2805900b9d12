package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// memory reads a figure of a process in MB: VmRSS, or VmHWM, the most since resetPeak.
func (p *process) memory(t *testing.T, figure string) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(figure + `:\s+(\d+) kB`).FindSubmatch(text)
	if found == nil {
		t.Fatalf("no %s in the status of the process", figure)
	}
	n, _ := strconv.Atoi(string(found[1]))
	return n >> 10
}

func (p *process) resetPeak(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.cmd.Process.Pid), []byte("5"), 0); err != nil {
		t.Skip("the peak of a process's memory cannot be reset here:", err)
	}
}

// A member's memory and its writes do not depend on what is asked of its SQL window.
func TestSQLLimits(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	m, u := c.members[0], c.admin(t)
	endless := "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
	doubling := "WITH t0(x) AS (SELECT 1)"
	for i := 1; i < 40; i++ {
		doubling += fmt.Sprintf(", t%d(x) AS (SELECT a.x FROM t%d a, t%d b)", i, i-1, i-1)
	}
	queries := []string{
		"PRAGMA hard_heap_limit = 1", "PRAGMA soft_heap_limit = 1", "PRAGMA temp_store_directory = '/nowhere'",
		"PRAGMA hard_heap_limit",
		"SELECT zeroblob(300000000)", "SELECT randomblob(300000000)", "SELECT hex(zeroblob(100000000))",
		"SELECT printf('%300000000d', 1)",
		"SELECT replace(printf('%250000d', 1), ' ', printf('%250000d', 1))", doubling + " SELECT count(*) FROM t39",
		endless + "SELECT group_concat(printf('%1000d', i)) FROM n", endless +
			"SELECT printf('%1000d', i) AS p FROM n ORDER BY p DESC",
		endless + "SELECT DISTINCT printf('%1000d', i) FROM n ORDER BY 1",
		"WITH RECURSIVE n(i) AS (SELECT 1 UNION SELECT i + 1 FROM n) SELECT count(*) FROM n",
	}
	m.resetPeak(t)
	before := m.memory(t, "VmRSS")
	var all sync.WaitGroup
	for range 2 {
		for _, query := range queries {
			all.Go(func() {
				body, _ := json.Marshal(map[string]string{"query": query})
				begin := time.Now()
				a := u.do(m, "POST", "/api/v1/sql", string(body))
				if a.status != 400 && a.status != 503 {
					t.Errorf("%.60s: %d %.100s", query, a.status, a.body)
				}
				if took := time.Since(begin); took > 30*time.Second {
					t.Errorf("%.60s: answered after %v", query, took)
				}
			})
		}
	}
	all.Wait()
	peak := m.memory(t, "VmHWM")
	t.Logf("memory: %d MB before, %d MB at most", before, peak)
	if peak-before > 200 { // measured: about 40; the first query of the list alone took 1 700 once
		t.Errorf("the queries took %d MB of a member's memory", peak-before)
	}
	u.apiToken(t, m, "after", "cluster:read")
	body, _ := json.Marshal(map[string]string{"query": endless + "SELECT printf('%100000d', i) AS p FROM n"})
	a := u.do(m, "POST", "/api/v1/sql", string(body))
	if a.status != 200 || len(a.body) > 5<<20 ||
		!strings.HasSuffix(strings.TrimSpace(string(a.body)), `"truncated":true}}`) {
		t.Errorf("a long answer: %d, %d bytes", a.status, len(a.body))
	}
}
