package e2e

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestMembersAPI: the documented answers of the members family, text by text, from the leader and from a follower.
func TestMembersAPI(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	for _, x := range []struct {
		name string
		test func(*testing.T, *cluster)
	}{
		{"list", testMembersList}, {"refusals", testMembersRefusals}, {"drain and resume", testMembersDrainTexts},
		{"mint", testMembersMint},
		{"autopilot answer", testAutopilotAnswer},
	} {
		t.Run(x.name, func(t *testing.T) { x.test(t, c) })
	}
}

// documented is how a member's documented fields begin its object, in their order.
func documented(m *member, leader bool, drain string) string {
	return fmt.Sprintf(`{"nodeId":%d,"raftAddress":"%s","apiAddress":"https://%s","binaryVersion":"dev",`+
		`"suffrage":"voter","isLeader":%v,"drainState":%s,`,
		m.n, m.raft, m.api, leader, drain)
}

func testMembersList(t *testing.T, c *cluster) {
	u := c.admin(t)
	leader := c.leader(t)
	own := func(m *member) string {
		return fmt.Sprintf(`"id":"[0-9a-f-]{36}","name":"node-%d","mode":"full","role":"voter","status":"alive",`+
			`"overlayIp":"10\.200\.[0-9.]+","sliceCidr":"[0-9.]+/28","joinedAt":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"}`, m.n)
	}
	var items []string
	for _, m := range c.members {
		items = append(items, regexp.QuoteMeta(documented(m, m == leader, `"active"`))+own(m))
	}
	want := regexp.MustCompile(`^\{"result":\[` + strings.Join(items, ",") + `\]\}$`)
	bodies := map[string]bool{}
	for role, m := range c.throughBoth(t) {
		a := u.do(m, "GET", "/api/v1/cluster/members", "")
		if a.status != 200 || !want.MatchString(a.body) {
			t.Errorf("the list of the %s: %v\nwant %v", role, a, want)
		}
		bodies[a.body] = true
		for name, value := range map[string]string{
			"Content-Type": "application/json", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
			"Cache-Control":             "no-store",
			"Content-Security-Policy":   "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'",
			"Strict-Transport-Security": "max-age=63072000; includeSubDomains",
		} {
			if got := a.header.Get(name); got != value {
				t.Errorf("%s on the %s: %q, want %q", name, role, got, value)
			}
		}
		for i, x := range c.members {
			a := u.do(m, "GET", memberURL(x.n, ""), "")
			// One member also shows its public key.
			if one := regexp.MustCompile(`^\{"result":` + strings.TrimSuffix(items[i], "}") +
				`,"recipient":"age1[0-9a-z]{58}"\}\}$`); a.status != 200 || !one.MatchString(a.body) {
				t.Errorf("node %d from the %s: %v\nwant %v", x.n, role, a, one)
			}
		}
	}
	if len(bodies) != 1 {
		t.Errorf("leader and follower list differently: %v", bodies)
	}
}

// testMembersRefusals: the order of the checks and the texts of what is refused; none of it changes anything.
func testMembersRefusals(t *testing.T, c *cluster) {
	leader := c.leader(t)
	f := c.others(leader)[0].n
	rows := memberRefusals(leader.n, f)
	reader := c.as(t, c.admin(t).apiToken(t, leader, "members-reader", "cluster:read").Token)
	unchanged(t, c, func(u *user) {
		for role, m := range c.throughBoth(t) {
			for _, x := range rows {
				what := fmt.Sprintf("%s %s %s on the %s", x.method, x.path, x.body, role)
				a := u.do(m, x.method, "/api/v1/cluster/members"+x.path, x.body)
				a.expect(t, what, x.status, x.want)
				if kind := a.header.Get("Content-Type"); kind != "application/json" {
					t.Errorf("%s: Content-Type %q", what, kind)
				}
				if got := strings.Join(a.header.Values("Allow"), ","); !sameSet(got, x.allow) {
					t.Errorf("%s: Allow is %q, want %q", what, got, x.allow)
				}
				if x.status == 405 || x.want == nothingHere {
					continue
				}
				c.nobody(t).do(m, x.method, "/api/v1/cluster/members"+x.path, x.body).expect(t, what+" without a token", 401,
					`{"error":"Invalid token"}`)
				if x.method != "GET" {
					reader.do(m, x.method, "/api/v1/cluster/members"+x.path, x.body).expect(t, what+" with a token for reading", 403,
						`{"error":"Forbidden"}`)
				}
			}
			a := u.chunked(m, "POST", memberURL(f, "/drain"), `{"deadlineSeconds":-1}`)
			a.expect(t, "a chunked body on the "+role, 400, outOfBounds)
			a = u.do(m, "POST", memberURL(f, "/drain"), `{"deadlineSeconds":-1}`, "Content-Type: ")
			a.expect(t, "no Content-Type on the "+role, 400, outOfBounds)
		}
	})
}

// What the members API says when it refuses.
const (
	invalidNode   = `{"error":"Invalid node ID"}`
	unknownMember = `{"error":"Cluster member not found"}`
	removesLeader = `{"error":"Cannot remove the current leader; drain this node first so leadership transfers, then ` +
		`retry"}`
	votesAlready  = `{"error":"Node is already a voter"}`
	invalidBody   = `{"error":"Invalid request body"}`
	outOfBounds   = `{"error":"deadlineSeconds must be between 0 and 3600"}`
	nothingHere   = `{"error":"there is nothing at this path"}`
	memberResumed = `{"result":{"message":"Cluster member resumed"}}`
)

// memberRefusal is a request below /api/v1/cluster/members and its answer.
type memberRefusal struct {
	method, path, body string
	status             int
	want               string
	allow              string
}

// memberRefusals lists what is refused, and what is as harmless, for the leader's number and a follower's.
func memberRefusals(l, f int) []memberRefusal {
	active := fmt.Sprintf(`{"error":"Node is not drained (state=active); drain it first via POST `+
		`/api/v1/cluster/members/%d/drain, or pass ?force=true to skip"}`, f)
	notAllowed := func(method string) string {
		return fmt.Sprintf(`{"error":"the method %s is not allowed here"}`, method)
	}
	return []memberRefusal{
		{"GET", "/x", "", 400, invalidNode, ""},
		{"GET", "/99", "", 404, unknownMember, ""},
		{"GET", "/0", "", 404, unknownMember, ""},

		{"DELETE", "/x", "", 400, invalidNode, ""},
		{"DELETE", "/1.5", "", 400, invalidNode, ""},
		{"DELETE", "/%20", "", 400, invalidNode, ""},
		{"DELETE", "/99999999999999999999", "", 400, invalidNode, ""},
		{"DELETE", "/0", "", 404, unknownMember, ""},
		{"DELETE", "/-1", "", 404, unknownMember, ""},
		{"DELETE", "/0?force=true", "", 404, unknownMember, ""},
		{"DELETE", "/99", "", 404, unknownMember, ""},
		{"DELETE", "/99?force=true", "", 404, unknownMember, ""},
		{"DELETE", "/99%3Fforce=true", "", 404, unknownMember, ""},
		{"DELETE", "/x%3Fforce=true", "", 400, invalidNode, ""},
		{"DELETE", fmt.Sprintf("/%d", l), "", 409, removesLeader, ""},
		{"DELETE", fmt.Sprintf("/%d?force=true", l), "", 409, removesLeader, ""},
		{"DELETE", fmt.Sprintf("/%d%%3Fforce=true", l), "", 409, removesLeader, ""},
		{"DELETE", fmt.Sprintf("/+%d", l), "", 409, removesLeader, ""},
		{"DELETE", fmt.Sprintf("/0%d", l), "", 409, removesLeader, ""},
		{"DELETE", fmt.Sprintf("/%d", f), "", 409, active, ""},
		{"DELETE", fmt.Sprintf("/%d?force=1", f), "", 409, active, ""},
		{"DELETE", fmt.Sprintf("/%d?force=True", f), "", 409, active, ""},
		{"DELETE", fmt.Sprintf("/%d?force", f), "", 409, active, ""},
		{"DELETE", fmt.Sprintf("/%d?force=false", f), "", 409, active, ""},
		{"DELETE", fmt.Sprintf("/%d%%3Fforce=1", f), "", 409, active, ""},

		{"POST", "/x/promote", "", 400, invalidNode, ""},
		{"POST", "/0/promote", "", 404, unknownMember, ""},
		{"POST", "/-1/promote", "", 404, unknownMember, ""},
		{"POST", "/99/promote", "", 404, unknownMember, ""},
		{"POST", fmt.Sprintf("/%d/promote", f), "", 409, votesAlready, ""},
		{"POST", fmt.Sprintf("/%d/promote", l), "", 409, votesAlready, ""},

		{"POST", "/x/drain", "", 400, invalidNode, ""},
		{"POST", "/0/drain", "", 400, invalidNode, ""},
		{"POST", "/-1/drain", "", 400, invalidNode, ""},
		{"POST", "/0/drain", `{"deadlineSeconds":-1}`, 400, invalidNode, ""},
		{"POST", "/99/drain", "", 404, unknownMember, ""},
		{"POST", "/99/drain", "{", 404, unknownMember, ""},
		{"POST", fmt.Sprintf("/%d/drain", f), "{", 400, invalidBody, ""},
		{"POST", fmt.Sprintf("/%d/drain", f), "[]", 400, invalidBody, ""},
		{"POST", fmt.Sprintf("/%d/drain", f), `"x"`, 400, invalidBody, ""},
		{"POST", fmt.Sprintf("/%d/drain", f), "5", 400, invalidBody, ""},
		{"POST", fmt.Sprintf("/%d/drain", f), `{"deadlineSeconds":"5"}`, 400, invalidBody, ""},
		{"POST", fmt.Sprintf("/%d/drain", f), `{"deadlineSeconds":1.5}`, 400, invalidBody, ""},
		{"POST", fmt.Sprintf("/%d/drain", f), `{"deadlineSeconds":true}`, 400, invalidBody, ""},
		{"POST", fmt.Sprintf("/%d/drain", f), `{"deadlineSeconds":[1]}`, 400, invalidBody, ""},
		{"POST", fmt.Sprintf("/%d/drain", f), `{"deadlineSeconds":1e30}`, 400, invalidBody, ""},
		{"POST", fmt.Sprintf("/%d/drain", f), `{"deadlineSeconds":-1}`, 400, outOfBounds, ""},
		{"POST", fmt.Sprintf("/%d/drain", f), `{"deadlineSeconds":3601}`, 400, outOfBounds, ""},
		{"POST", fmt.Sprintf("/%d/drain", f), `{"deadlineSeconds":9223372036854775807}`, 400, outOfBounds, ""},
		{"POST", fmt.Sprintf("/%d/drain", f), `{"x":[],"DEADLINESECONDS":3601} and more`, 400, outOfBounds, ""},

		{"POST", "/x/resume", "", 400, invalidNode, ""},
		{"POST", "/0/resume", "", 400, invalidNode, ""},
		{"POST", "/-1/resume", "", 400, invalidNode, ""},
		{"POST", "/99/resume", "", 404, unknownMember, ""},
		{"POST", fmt.Sprintf("/%d/resume", f), "", 200, memberResumed, ""},
		{"POST", fmt.Sprintf("/%d/resume", l), "", 200, memberResumed, ""},

		{"GET", fmt.Sprintf("/%d/drain", f), "", 405, notAllowed("GET"), "POST"},
		{"DELETE", fmt.Sprintf("/%d/resume", f), "", 405, notAllowed("DELETE"), "POST"},
		{"PUT", fmt.Sprintf("/%d/promote", f), "", 405, notAllowed("PUT"), "POST"},
		{"POST", fmt.Sprintf("/%d", f), "", 405, notAllowed("POST"), "GET,DELETE"},
		{"PATCH", fmt.Sprintf("/%d", f), "", 405, notAllowed("PATCH"), "GET,DELETE"},
		{"POST", "", "", 405, notAllowed("POST"), "GET"},
		{"GET", fmt.Sprintf("/%d/nothing", f), "", 404, nothingHere, ""},
		{"GET", fmt.Sprintf("/%d//", f), "", 404, nothingHere, ""},
	}
}

func sameSet(a, b string) bool {
	x, y := strings.Split(strings.ReplaceAll(a, " ", ""), ","), strings.Split(b, ",")
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(slices.Compact(x), y)
}

// testMembersDrainTexts: the documented life of a drain, with all that is answered on the way.
func testMembersDrainTexts(t *testing.T, c *cluster) {
	u := c.admin(t)
	for role, m := range c.throughBoth(t) {
		leader := c.leader(t)
		target := c.others(leader)[0].n
		what := func(s string) string { return s + " through the " + role }
		refused := func(state string) string {
			return fmt.Sprintf(`{"error":"Node is not drained (state=%s); drain it first via POST `+
				`/api/v1/cluster/members/%d/drain, or pass ?force=true to skip"}`, state, target)
		}
		begun := fmt.Sprintf(`{"result":{"drainState":"draining","deadline":"%s`, "20")
		u.lease(m, "texts", target, 60).is(t, what("lease"), 201,
			fmt.Sprintf(`{"result":{"id":"texts","nodeId":%d,"createdAt":"20`, target))
		first := u.chunked(m, "POST", memberURL(target, "/drain"), `{"deadlineSeconds":3600}`)
		first.is(t, what("drain with a deadline, in chunks"), 200, begun)
		u.drain(m, target, `{"deadlineSeconds":1}`).expect(t, what("drain again with another deadline"), 200, first.body)
		u.drain(m, target, "").expect(t, what("drain again without a deadline"), 200, first.body)
		u.drain(m, target, "{").expect(t, what("drain again with a bad body"), 400, `{"error":"Invalid request body"}`)
		u.do(m, "DELETE", memberURL(target, ""), "").expect(t, what("remove while draining"), 409, refused("draining"))
		u.do(m, "POST", memberURL(target, "/promote"), "").expect(t, what("promote while draining"), 409,
			`{"error":"Node is already a voter"}`)
		u.do(m, "GET", memberURL(target, ""), "").is(t, what("get while draining"), 200,
			`{"result":`+documented(c.member(t, uint64(target)), false, `"draining"`)+`"drainUpdatedAt":"20`)
		for range 2 {
			u.resume(m, target).expect(t, what("resume"), 200, `{"result":{"message":"Cluster member resumed"}}`)
		}
		u.do(m, "GET", memberURL(target, ""), "").is(t, what("get after the resume"), 200,
			`{"result":`+documented(c.member(t, uint64(target)), false, `"active"`)+`"drainUpdatedAt":"20`)

		// Without a deadline, or with 0, leases are not looked at.
		for _, body := range []string{"", "{}", `{"deadlineSeconds":0}`, `{"deadlineSeconds":null}`, "null", " "} {
			for range 2 {
				u.drain(m, target, body).expect(t, what("drain with "+body), 200, `{"result":{"drainState":"drained"}}`)
			}
			u.drain(m, target, `{"deadlineSeconds":5}`).expect(t, what("drain what is drained"), 200,
				`{"result":{"drainState":"drained"}}`)
			u.drain(m, target, `{"deadlineSeconds":3601}`).expect(t, what("drain what is drained, badly"), 400,
				`{"error":"deadlineSeconds must be between 0 and 3600"}`)
			u.resume(m, target).expect(t, what("resume"), 200, `{"result":{"message":"Cluster member resumed"}}`)
		}
		u.do(m, "DELETE", "/api/v1/cluster/leases/texts", "").expect(t, what("give the lease back"), 200,
			`{"result":{"message":"Lease released"}}`)

		// The bounds are inclusive; without leases the drain ends at once.
		for _, deadline := range []int{1, 3600} {
			u.drain(m, target, fmt.Sprintf(`{"deadlineSeconds":%d}`, deadline)).is(t, what("drain"), 200, begun)
			u.awaitDrain(t, m, target, "drained", formed)
			u.resume(m, target).expect(t, what("resume"), 200, `{"result":{"message":"Cluster member resumed"}}`)
		}
	}
	c.awaitVoters(t)
}

func testMembersMint(t *testing.T, c *cluster) {
	const (
		decode = `{"error":"decode body: the body must be a JSON object"}`
		noID   = `{"error":"decode body: nodeID must be a whole number between 1 and 9007199254740991"}`
		noTTL  = `{"error":"decode body: ttlSeconds must be a whole number between 300 and 86400"}`
		nodeID = `{"error":"nodeID must be in [1, 9007199254740991]"}`
		ttl    = `{"error":"ttlSeconds must be between 300 and 86400"}`
	)
	u := c.admin(t)
	next := 1000
	for role, m := range c.throughBoth(t) {
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
			{`{"nodeID":3}`, 409, `{"error":"node 3 is already a member of the cluster"}`},
			{`{"nodeID":%d}`, 201, `{"result":{"token":"AQAA`},
			{`{"nodeID":%d,"ttlSeconds":0}`, 201, `{"result":{"token":"AQAA`},
			{`{"nodeid":%d,"TTLSECONDS":300,"more":{}} x`, 201, `{"result":{"token":"AQAA`},
			{`{"nodeID":%d,"ttlSeconds":86400}`, 201, `{"result":{"token":"AQAA`},
		} {
			next++
			body := strings.ReplaceAll(x.body, "%d", fmt.Sprint(next))
			what := "mint " + body + " on the " + role
			a := u.do(m, "POST", "/api/v1/cluster/pki/join-tokens", body, "Content-Type: ")
			if x.status == 201 {
				a.is(t, what, 201, x.want)
				if !regexp.MustCompile(
					`^\{"result":\{"token":"[A-Za-z0-9_-]+","expiresAt":\d+,"id":"[0-9a-f]{32}"\}\}$`).MatchString(a.body) {
					t.Errorf("%s: %v", what, a)
				}
				continue
			}
			a.expect(t, what, x.status, x.want)
		}
	}
}

// testAutopilotAnswer: the documented fields of the autopilot answer, in their order, from any member.
func testAutopilotAnswer(t *testing.T, c *cluster) {
	u := c.admin(t)
	leader := c.leader(t)
	u.awaitSettled(t, leader, 1, 2, 3)
	var servers []string
	for _, m := range c.members {
		servers = append(servers,
			fmt.Sprintf(`\{"nodeId":%d,"raftAddress":"%s","nodeStatus":"alive","healthy":true,"isLeader":%v,`+
				`"hasVotingRights":true,"stableSince":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ",[^{}]*"reason":"[^"]+"\}`,
				m.n, regexp.QuoteMeta(m.raft), m == leader))
	}
	want := regexp.MustCompile(fmt.Sprintf(`^\{"result":\{"healthy":true,"failureTolerance":1,"leaderNodeId":%d,`+
		`"voters":\[1,2,3\],"servers":\[%s\]\}\}$`, leader.n, strings.Join(servers, ",")))
	for role, m := range c.throughBoth(t) {
		if a := u.do(m, "GET", "/api/v1/cluster/autopilot", ""); a.status != http.StatusOK || !want.MatchString(a.body) {
			t.Errorf("the %s answers %v\nwant %v", role, a, want)
		}
		u.do(m, "POST", "/api/v1/cluster/autopilot", "").expect(t, "POST", 405,
			`{"error":"the method POST is not allowed here"}`)
	}
}
