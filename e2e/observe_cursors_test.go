package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"muster/client"
)

// testResume: a reader that goes on at another member with the id of its last event gets what follows, once; and
// filters leave out what they say.
func testResume(t *testing.T, c *cluster) {
	u := c.admin(t)
	start := c.revision(t)
	var ids []string
	for range 6 {
		ids = append(ids, u.create(t, c.members[0], `{}`).ID)
	}
	u.do(c.members[0], "PUT", "/api/v1/cluster/secrets/observed", `{"value":"aGVsbG8="}`)
	var got []string
	after := fmt.Sprint(start)
	for i := range 6 { // two at each member, in turns
		s := u.stream(t, c.members[i%3], "?type=token", after, 0)
		if s.StatusCode != 200 || s.Header.Get("Content-Type") != "text/event-stream" {
			t.Fatalf("the stream begins with %d %v", s.StatusCode, s.Header)
		}
		f, ok := s.next()
		if !ok || f.event != "token" {
			t.Fatalf("after %s: %+v", after, f)
		}
		var e client.Event
		if err := json.Unmarshal([]byte(f.data), &e); err != nil || e.ID() != f.id || e.Type != "token" {
			t.Errorf("%v: %+v", err, f)
		}
		got, after = append(got, strings.TrimPrefix(e.Object, "join_token/")), f.id
		s.cancel()
	}
	if !slices.Equal(got, ids) {
		t.Errorf("tokens\n%v were made, the readers were told of\n%v", ids, got)
	}
	// "From now on" is after what was answered before, and before what is asked for later.
	s := u.stream(t, c.others(c.leader(t))[0], "?type=secret,member", "", 0)
	u.do(c.members[0], "DELETE", "/api/v1/cluster/secrets/observed", "")
	if f, ok := s.next(); !ok || !strings.Contains(f.data, `"action":"secret.delete"`) ||
		!strings.Contains(f.data, `"object":"secret/observed"`) {
		t.Errorf("from now on: %+v", f)
	}
}

func testBadCursors(t *testing.T, c *cluster) {
	u := c.admin(t)
	for _, m := range c.throughBoth(t) {
		for _, x := range []struct {
			query, after, body string
			status             int
		}{
			{"?revision=x", "", `{"error":"revision must be a whole number, not negative"}`, 400},
			{"?revision=-1", "", `{"error":"revision must be a whole number, not negative"}`, 400},
			{"", "1.x", `{"error":"Last-Event-ID must be the id of an event, such as 12.1"}`, 400},
			{"?type=token,nothing", "", `{"error":"type must be one or more of access, autopilot, `, 400},
			{"?revision=900000000", "", `{"error":"revision 900000000 is in the future: the cluster is at revision `, 400},
		} {
			s := u.stream(t, m, x.query, x.after, 0)
			var body bytes.Buffer
			_, _ = body.ReadFrom(s.Body)
			if s.StatusCode != x.status || !strings.HasPrefix(body.String(), x.body) {
				t.Errorf("%s after %q: %d %s", x.query, x.after, s.StatusCode, body.String())
			}
		}
		c.nobody(t).do(m, "GET", "/api/v1/events", "").expect(t, "no token", 401, `{"error":"Invalid token"}`)
		weak := c.as(t, u.apiToken(t, m, "enroller", "enroll").Token)
		eventually(t, formed, "a token that does not allow it", func() error {
			if a := weak.do(m, "GET", "/api/v1/events", ""); a.status != 403 || a.body != `{"error":"Forbidden"}` {
				return errors.New(a.String())
			}
			return nil
		})
		// A token is good at every member as soon as it was made.
		fresh := c.as(t, u.apiToken(t, m, "watcher", "cluster:read").Token)
		for _, other := range c.members {
			if s := fresh.stream(t, other, "", "", 0); s.StatusCode != 200 {
				t.Errorf("a new token at node %d: %d", other.n, s.StatusCode)
			}
		}
	}
}

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
