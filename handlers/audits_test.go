package handlers_test

import (
	"strings"
	"testing"

	"muster/handlers/internal/sole"
)

// The audit names what a caller changed and says how, on every route that changes something.
func TestAuditOfEveryRoute(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	s.Option("enrollment.enabled", "true")
	for _, rt := range s.Routes() {
		name := rt.Method + " " + rt.Path
		c, there := changes[name]
		if !there { // TestReplaysOfEveryRoute demands a request or a reason
			continue
		}
		path, body := c.aim(s, rt)
		before := s.Query("SELECT revision FROM cluster")
		if w := s.Call(rt.Method, path, s.Admin, body, "Content-Type", "application/json"); w.Code/100 != 2 {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
			continue
		}
		rows := s.Query("SELECT action || '|' || object || '|' || detail || char(10) FROM audit " +
			"WHERE outcome = 'ok' AND revision > " + before)
		if rows == "" {
			t.Errorf("%s has no audit row", name)
		}
		for row := range strings.Lines(rows) {
			action, said, _ := strings.Cut(strings.TrimSpace(row), "|")
			if object, detail, _ := strings.Cut(said, "|"); object == "" || detail == "" {
				t.Errorf("%s: %s has the object %q and the detail %q", name, action, object, detail)
			}
		}
	}
}

// The audit says of an end what has ended.
func TestAuditOfEnds(t *testing.T) {
	t.Parallel()
	s := sole.New(t)
	for _, x := range []struct{ method, path, action, detail string }{
		{"DELETE", "/api/v1/cluster/join-tokens/%", "join_token.revoke", "was=valid used=0 uses=3 mode=full"},
		{"DELETE", "/api/v1/cluster/secrets/s", "secret.delete", "version 2"},
		{"DELETE", "/v1/peering/p", "peering.delete", "was=PENDING members=0"},
	} {
		id := ""
		switch x.action {
		case "join_token.revoke":
			id = made(s, s.Call("POST", "/api/v1/cluster/join-tokens", s.Admin, `{"maxUses":3,"mode":"full"}`))
		case "secret.delete":
			s.Call("PUT", "/api/v1/cluster/secrets/s", s.Admin, `{"value":"x"}`)
			s.Call("PUT", "/api/v1/cluster/secrets/s", s.Admin, `{"value":"y"}`)
		default:
			s.Call("POST", "/v1/peering/token", s.Admin, `{"PeerName":"p"}`)
		}
		if w := s.Call(x.method, strings.ReplaceAll(x.path, "%", id), s.Admin, ""); w.Code/100 != 2 {
			t.Errorf("%s: %d %s", x.path, w.Code, w.Body)
		}
		if got := s.Query("SELECT detail FROM audit WHERE action = '" + x.action + "'"); got != x.detail {
			t.Errorf("%s: %q, not %q", x.action, got, x.detail)
		}
	}
}
