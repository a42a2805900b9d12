package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"muster/client"
)

// testSlowReader: who does not read is not waited for and costs no memory; it is told from where to go on, and nothing
// is missing then.
func testSlowReader(t *testing.T, c *cluster) {
	u := c.admin(t)
	m := c.leader(t)
	start := c.revision(t)
	slow := u.stream(t, m, fmt.Sprintf("?revision=%d", start), "", 64<<10)
	stop := run(16, func() { u.do(m, "POST", "/api/v1/cluster/join-tokens", `{}`) })
	defer stop()
	eventually(t, formed, "the window has moved past the reader", func() error {
		if rev := c.revision(t); rows(t, u, m, start) < 1500 {
			return fmt.Errorf("revision %d", rev)
		}
		return nil
	})
	stop()
	var ids []string
	dropped := false
	for {
		f, ok := slow.next()
		if !ok {
			break
		}
		if f.event == "dropped" {
			dropped = true
			if len(ids) == 0 || f.id != ids[len(ids)-1] || !strings.Contains(f.data, `"resume":"`+f.id+`"`) {
				t.Errorf("dropped with %+v", f)
			}
			continue
		}
		ids = append(ids, f.id)
	}
	if !dropped {
		t.Fatalf("the stream ended after %d events without saying why", len(ids))
	}
	want := strings.Split(auditIDs(t, u, m, start), "\n")
	rest := u.stream(t, m, "", ids[len(ids)-1], 0)
	for len(ids) < len(want) {
		f, ok := rest.next()
		if !ok || f.event == "dropped" {
			t.Fatalf("going on ends after %d of %d events: %+v", len(ids), len(want), f)
		}
		ids = append(ids, f.id)
	}
	if !slices.Equal(ids, want) {
		t.Errorf("the slow reader has seen\n%v\nthe audit has\n%v", ids, want)
	}
}

// rows counts the audit entries after a revision, a thousand at most by page.
func rows(t *testing.T, u *user, m *member, after uint64) int {
	t.Helper()
	return len(strings.Fields(auditIDs(t, u, m, after)))
}

func auditIDs(t *testing.T, u *user, m *member, start uint64) string {
	t.Helper()
	var ids []string
	for after := fmt.Sprint(start); after != ""; {
		page := get[client.AuditPage](t, u, m, "GET", "/api/v1/audit?limit=1000&after="+after, "")
		for _, e := range page.Entries {
			ids = append(ids, e.ID())
		}
		after = page.Next
	}
	return strings.Join(ids, "\n")
}
