package ella_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"muster/handlers/internal/sole"
)

// documented is how a member's documented fields begin its object, in their order; member 1 leads.
func documented(n int) string {
	return fmt.Sprintf(`{"nodeId":%d,"raftAddress":"127.0.0.1:700%d","apiAddress":"https://127.0.0.1:500%d",`+
		`"binaryVersion":"","suffrage":"voter","isLeader":%v,"drainState":"active",`, n, n, n, n == 1)
}

func memberURL(id int, action string) string {
	return fmt.Sprintf("/api/v1/cluster/members/%d%s", id, action)
}

// TestMembersList: the documented answers, text by text, from the leader and from a follower.
func TestMembersList(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	u := s.Root()
	own := func(name string) string {
		return fmt.Sprintf(`"id":"[0-9a-f-]{36}","name":"%s","mode":"full","role":"voter","status":"alive",`+
			`"overlayIp":"10\.200\.[0-9.]+","sliceCidr":"[0-9.]+/28","joinedAt":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"}`, name)
	}
	var items []string
	for i, name := range []string{"one", "two"} {
		items = append(items, regexp.QuoteMeta(documented(i+1))+own(name))
	}
	want := regexp.MustCompile(`^\{"result":\[` + strings.Join(items, ",") + `\]\}$`)
	bodies := map[string]bool{}
	for range 2 {
		a := u.Do("GET", "/api/v1/cluster/members", "")
		if a.Status != 200 || !want.MatchString(a.Body) {
			t.Errorf("the list: %v\nwant %v", a, want)
		}
		bodies[a.Body] = true
		for name, value := range map[string]string{
			"Content-Type": "application/json", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
			"Cache-Control":             "no-store",
			"Content-Security-Policy":   "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'",
			"Strict-Transport-Security": "max-age=63072000; includeSubDomains",
		} {
			if got := a.Header.Get(name); got != value {
				t.Errorf("%s: %q, want %q", name, got, value)
			}
		}
		for i := range items {
			a := u.Do("GET", memberURL(i+1, ""), "")
			// One member also shows its public key.
			if one := regexp.MustCompile(`^\{"result":` + strings.TrimSuffix(items[i], "}") +
				`,"recipient":"age1[0-9a-z]{58}"\}\}$`); a.Status != 200 || !one.MatchString(a.Body) {
				t.Errorf("node %d: %v\nwant %v", i+1, a, one)
			}
		}
	}
	if len(bodies) != 1 {
		t.Errorf("leader and follower list differently: %v", bodies)
	}
}

// TestMembersRefusals: the order of the checks and the texts of what is refused; none of it changes anything.
func TestMembersRefusals(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	const leader, f = 1, 2
	rows := memberRefusals(leader, f)
	reader := s.As(s.Root().APIToken("members-reader", "cluster:read").Token)
	s.Unchanged(func(u *sole.User) {
		for range 2 {
			for _, x := range rows {
				what := x.method + " " + x.path + " " + x.body
				a := u.Do(x.method, "/api/v1/cluster/members"+x.path, x.body)
				a.Expect(t, what, x.status, x.want)
				if kind := a.Header.Get("Content-Type"); kind != "application/json" {
					t.Errorf("%s: Content-Type %q", what, kind)
				}
				if got := strings.Join(a.Header.Values("Allow"), ","); !sameSet(got, x.allow) {
					t.Errorf("%s: Allow is %q, want %q", what, got, x.allow)
				}
				if x.status == 405 || x.want == nothingHere {
					continue
				}
				s.Nobody().Do(x.method, "/api/v1/cluster/members"+x.path, x.body).Expect(t, what+" without a token", 401,
					`{"error":"Invalid token"}`)
				if x.method != "GET" {
					reader.Do(x.method, "/api/v1/cluster/members"+x.path, x.body).Expect(t, what+" with a token for reading", 403,
						`{"error":"Forbidden"}`)
				}
			}
			a := u.Do("POST", memberURL(f, "/drain"), `{"deadlineSeconds":-1}`, "Content-Type: ")
			a.Expect(t, "no Content-Type", 400, outOfBounds)
		}
	})
}

func sameSet(a, b string) bool {
	x, y := strings.Split(strings.ReplaceAll(a, " ", ""), ","), strings.Split(b, ",")
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(slices.Compact(x), y)
}

func TestMembersMint(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	const (
		decode = `{"error":"decode body: the body must be a JSON object"}`
		noID   = `{"error":"decode body: nodeID must be a whole number between 1 and 9007199254740991"}`
		noTTL  = `{"error":"decode body: ttlSeconds must be a whole number between 300 and 86400"}`
		nodeID = `{"error":"nodeID must be in [1, 9007199254740991]"}`
		ttl    = `{"error":"ttlSeconds must be between 300 and 86400"}`
	)
	u := s.Root()
	next := 1000
	for range 2 {
		for _, x := range []struct {
			body   string // %d stands for an id that is free
			status int
			want   string
		}{
			{"", 400, decode}, {"{", 400, decode}, {"[]", 400, decode}, {`{"nodeID":"2"}`, 400, noID},
			{`{"nodeID":1.5}`, 400, noID},
			{`{"nodeID":%d,"ttlSeconds":"300"}`, 400, noTTL},
			{"{}", 400, nodeID}, {`{"nodeID":0}`, 400, nodeID}, {`{"nodeID":-1}`, 400, nodeID},
			{`{"nodeID":9007199254740992}`, 400, nodeID},
			{`{"nodeID":null}`, 400, nodeID}, {`{"nodeID":0,"ttlSeconds":1}`, 400, nodeID},
			{`{"nodeID":%d,"ttlSeconds":299}`, 400, ttl}, {`{"nodeID":%d,"ttlSeconds":86401}`, 400, ttl},
			{`{"nodeID":%d,"ttlSeconds":-1}`, 400, ttl},
			{`{"nodeID":1,"ttlSeconds":299}`, 400, ttl},
			{`{"nodeID":1}`, 409, `{"error":"node 1 is already a member of the cluster"}`},
			{`{"nodeID":2}`, 409, `{"error":"node 2 is already a member of the cluster"}`},
			{`{"nodeID":%d}`, 201, `{"result":{"token":"AQAA`},
			{`{"nodeID":%d,"ttlSeconds":0}`, 201, `{"result":{"token":"AQAA`},
			{`{"nodeid":%d,"TTLSECONDS":300,"more":{}} x`, 201, `{"result":{"token":"AQAA`},
			{`{"nodeID":%d,"ttlSeconds":86400}`, 201, `{"result":{"token":"AQAA`},
		} {
			next++
			body := strings.ReplaceAll(x.body, "%d", fmt.Sprint(next))
			what := "mint " + body
			a := u.Do("POST", "/api/v1/cluster/pki/join-tokens", body, "Content-Type: ")
			if x.status == 201 {
				if a.Status != 201 || !strings.HasPrefix(a.Body, x.want) {
					t.Errorf("%s: %v", what, a)
				}
				if !regexp.MustCompile(
					`^\{"result":\{"token":"[A-Za-z0-9_-]+","expiresAt":\d+,"id":"[0-9a-f]{32}"\}\}$`).MatchString(a.Body) {
					t.Errorf("%s: %v", what, a)
				}
				continue
			}
			a.Expect(t, what, x.status, x.want)
		}
	}
}
