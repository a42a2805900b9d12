package handlers_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/client"
	"muster/handlers/internal/sole"
	"muster/store"
)

// frame is one server-sent event.
type frame struct{ id, event, data string }

// opened is a stream of events that a member has answered.
type opened struct {
	*http.Response
	lines *bufio.Scanner
}

// open asks the member at an address for a stream, which ends with the test; the answer may be a refusal.
func open(t *testing.T, addr, token, query, after string) *opened {
	t.Helper()
	if after != "" {
		after = "Last-Event-ID: " + after + "\r\n"
	}
	c := half(t, addr, "GET /api/v1/events"+query+" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+token+"\r\n"+
		after+"\r\n")
	_ = c.SetReadDeadline(time.Now().Add(sole.Generous))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	return &opened{resp, bufio.NewScanner(resp.Body)}
}

// addresses has each member serve the API.
func addresses(s *sole.Member) (list []string) {
	for _, m := range s.Members() {
		list = append(list, m.Serving())
	}
	return list
}

// next reads up to the next event; heartbeats and mere ids are left out, but the last id is kept.
func (s *opened) next() (f frame, ok bool) {
	for s.lines.Scan() {
		name, value, _ := strings.Cut(s.lines.Text(), ": ")
		switch name {
		case "id":
			f.id = value
		case "event":
			f.event = value
		case "data":
			f.data = value
		case "":
			if f.data != "" {
				return f, true
			}
			f = frame{id: f.id}
		}
	}
	return f, false
}

// TestResume: a reader that goes on at another member with the id of its last event gets what follows, once; and
// filters leave out what they say.
func TestResume(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	u, addrs := s.Root(), addresses(s)
	after := fmt.Sprint(s.Store.Revision())
	var ids, got []string
	for range 6 {
		ids = append(ids, u.JoinToken(`{}`).ID)
	}
	u.Do("PUT", "/api/v1/cluster/secrets/observed", `{"value":"aGVsbG8="}`)
	for i := range 6 { // each member in turn
		stream := open(t, addrs[i%2], s.Admin, "?type=token", after)
		if stream.StatusCode != 200 || stream.Header.Get("Content-Type") != "text/event-stream" {
			t.Fatalf("the stream begins with %d %v", stream.StatusCode, stream.Header)
		}
		f, ok := stream.next()
		if !ok || f.event != "token" {
			t.Fatalf("after %s: %+v", after, f)
		}
		var e client.Event
		if err := json.Unmarshal([]byte(f.data), &e); err != nil || e.ID() != f.id || e.Type != "token" {
			t.Errorf("%v: %+v", err, f)
		}
		got, after = append(got, strings.TrimPrefix(e.Object, "join_token/")), f.id
	}
	if !slices.Equal(got, ids) {
		t.Errorf("tokens\n%v were made, the readers were told of\n%v", ids, got)
	}
	// "From now on" is after what this member knows, and before what is asked for later.
	for i, addr := range addrs {
		name := fmt.Sprintf("observed-%d", i)
		before := fmt.Sprint(s.Store.Revision())
		u.Do("PUT", "/api/v1/cluster/secrets/"+name, `{"value":"aGVsbG8="}`)
		if f, ok := open(t, addr, s.Admin, "?type=secret", before).next(); !ok || !strings.Contains(f.data, name) {
			t.Fatalf("after %s: %+v", before, f)
		}
		stream := open(t, addr, s.Admin, "?type=secret,member", "")
		u.Do("DELETE", "/api/v1/cluster/secrets/"+name, "")
		if f, ok := stream.next(); !ok || !strings.Contains(f.data, `"action":"secret.delete"`) ||
			!strings.Contains(f.data, `"object":"secret/`+name+`"`) {
			t.Errorf("from now on: %+v", f)
		}
	}
}

// TestBadCursors: a stream that cannot begin where it should, or that the caller may not have, is refused by each
// member.
func TestBadCursors(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	u, addrs := s.Root(), addresses(s)
	for _, x := range []struct {
		query, after, body string
	}{
		{"?revision=x", "", `{"error":"revision must be a whole number, not negative"}`},
		{"?revision=-1", "", `{"error":"revision must be a whole number, not negative"}`},
		{"", "Last-Event-ID: 1.x", `{"error":"Last-Event-ID must be the id of an event, such as 12.1"}`},
		{"?type=token,nothing", "", `{"error":"type must be one or more of access, autopilot, `},
		{"?revision=900000000", "", `{"error":"revision 900000000 is in the future: the cluster is at revision `},
	} {
		for range 2 {
			var headers []string
			if x.after != "" {
				headers = []string{x.after}
			}
			if a := u.Do("GET", "/api/v1/events"+x.query, "", headers...); a.Status != 400 ||
				!strings.HasPrefix(a.Body, x.body) {
				t.Errorf("%s after %q: %v", x.query, x.after, a)
			}
		}
	}
	weak := s.As(u.APIToken("enroller", store.ScopeEnroll).Token)
	for range 2 {
		s.Nobody().Do("GET", "/api/v1/events", "").Expect(t, "no token", 401, `{"error":"Invalid token"}`)
		weak.Do("GET", "/api/v1/events", "").Expect(t, "a token that does not allow it", 403, `{"error":"Forbidden"}`)
	}
	// A token is good at every member as soon as it was made.
	for i := range 3 {
		fresh := u.APIToken(fmt.Sprintf("watcher-%d", i), store.ScopeClusterRead).Token
		for _, addr := range addrs {
			if stream := open(t, addr, fresh, "", ""); stream.StatusCode != 200 {
				t.Errorf("a new token: %d", stream.StatusCode)
			}
		}
	}
}
