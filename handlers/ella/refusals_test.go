package ella_test

import (
	"fmt"
	"slices"
)

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
	return slices.Concat(removalRefusals(l, f), changeRefusals(l, f), methodRefusals(f))
}

// removalRefusals is about reading and removing, for the leader's number and a follower's.
func removalRefusals(l, f int) []memberRefusal {
	active := fmt.Sprintf(`{"error":"Node is not drained (state=active); drain it first via POST `+
		`/api/v1/cluster/members/%d/drain, or pass ?force=true to skip"}`, f)
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
	}
}

// changeRefusals is about promoting, draining and resuming.
func changeRefusals(l, f int) []memberRefusal {
	return []memberRefusal{
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
	}
}

// methodRefusals is about methods and paths that there are not.
func methodRefusals(f int) []memberRefusal {
	notAllowed := func(method string) string {
		return fmt.Sprintf(`{"error":"the method %s is not allowed here"}`, method)
	}
	return []memberRefusal{
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
