package e2e

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// TestMembersAPI: what the members and Raft families answer while members drain, lead and die.
func TestMembersAPI(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	for _, x := range []struct {
		name string
		test func(*testing.T, *cluster)
	}{
		{"drain and resume", testMembersDrainTexts},
		{"autopilot answer", testAutopilotAnswer},
		{"Raft family: transfer", testRaftTransfer},
		{"Raft family: unhealthy", testRaftUnhealthy},
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
