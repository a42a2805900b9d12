package faults

import (
	"net/http"
	"testing"

	"github.com/anishathalye/porcupine"
)

// TestModels: each model takes a record that one machine can have given, and none that it cannot.
func TestModels(t *testing.T) {
	ok, maybe, no := done.String(), unknown.String(), refused.String()
	put := func(value string, version, status int, call, ret int64) *op {
		return &op{
			Kind:    "put",
			Value:   value,
			Version: version,
			Status:  status,
			Verdict: ok,
			Call:    call,
			Return:  ret,
		}
	}
	get := func(got string, version int, call, ret int64) *op {
		return &op{
			Kind:    "get",
			Got:     got,
			Version: version,
			Verdict: ok,
			Call:    call,
			Return:  ret,
		}
	}
	lost := &op{
		Kind:    "put",
		Value:   "b",
		Verdict: maybe,
		Call:    3,
		Return:  4,
	}
	join := func(key string, id uint64, verdict string, call, ret int64) *op {
		return &op{
			Kind:    "join",
			Key:     key,
			ID:      id,
			Verdict: verdict,
			Call:    call,
			Return:  ret,
		}
	}
	mint := func(id uint64, call, ret int64) *op {
		return &op{
			Kind:    "mint",
			ID:      id,
			Verdict: ok,
			Call:    call,
			Return:  ret,
		}
	}
	list := func(call, ret int64, ids ...uint64) *op {
		return &op{
			Kind:    "tokens",
			IDs:     ids,
			Verdict: ok,
			Call:    call,
			Return:  ret,
		}
	}
	remove := &op{
		Kind:    "remove",
		ID:      7,
		Verdict: ok,
		Call:    3,
		Return:  4,
	}
	place := map[uint64]int{10: 0, 11: 1}
	for _, x := range []struct {
		what string
		fits bool
		test func([]porcupine.Operation) bool
		ops  []*op
	}{
		{"what was stored is read", true, fits(stepRegister), []*op{put("a", 1, 201, 1, 2), get("a", 1, 3, 4)}},
		{"what was stored is lost", false, fits(stepRegister), []*op{put("a", 1, 201, 1, 2), get("", 0, 3, 4)}},
		{"a stale read", false, fits(stepRegister), []*op{put("a", 1, 201, 1, 2), put("b", 2, 200, 3, 4), get("a", 1, 5, 6)}},
		{"stored twice", false, fits(stepRegister), []*op{put("a", 1, 201, 1, 2), put("b", 3, 200, 3, 4)}},
		{"an unknown outcome shows late", true, fits(stepRegister),
			[]*op{put("a", 1, 201, 1, 2), lost, get("a", 1, 5, 6), get("b", 2, 7, 8)}},
		{"a deletion of unknown outcome", true, fits(stepRegister),
			[]*op{put("a", 1, 201, 1, 2), {Kind: "delete", Verdict: maybe, Call: 3, Return: 4}, get("", 0, 5, 6)}},
		{"a strange answer says nothing", true, fits(stepRegister),
			[]*op{put("a", 1, 201, 1, 2), {Kind: "delete", Verdict: strange.String(), Call: 3, Return: 4}, get("", 0, 5, 6)}},
		{"an unknown outcome comes and goes", false, fits(stepRegister),
			[]*op{put("a", 1, 201, 1, 2), lost, get("b", 2, 5, 6), get("a", 1, 7, 8)}},
		{"two uses of two", true, fits(stepUses(2)),
			[]*op{join("a", 1, ok, 1, 2), join("b", 2, ok, 1, 3), join("c", 0, no, 4, 5)}},
		{"three uses of two", false, fits(stepUses(2)),
			[]*op{join("a", 1, ok, 1, 2), join("b", 2, ok, 1, 3), join("c", 3, ok, 4, 5)}},
		{"refused though there is a use left", false, fits(stepUses(2)),
			[]*op{join("a", 1, ok, 1, 2), join("c", 0, no, 4, 5)}},
		{"another id for the same key", false, fits(stepUses(2)), []*op{join("a", 1, ok, 1, 2), join("a", 2, ok, 4, 5)}},
		{"the log grows", true, fits(stepLog(place)),
			[]*op{mint(10, 1, 2), list(3, 4, 10), mint(11, 5, 6), list(7, 8, 11, 10)}},
		{"a list is behind", false, fits(stepLog(place)), []*op{mint(10, 1, 2), mint(11, 3, 4), list(5, 6, 10)}},
		{"a list has a hole", false, fits(stepLog(place)), []*op{mint(10, 1, 2), mint(11, 1, 4), list(2, 3, 11)}},
		{"a member goes", true, fits(stepLife(7)), []*op{join("a", 7, ok, 1, 2), remove, list(5, 6, 8)}},
		{"a member comes back", false, fits(stepLife(7)), []*op{join("a", 7, ok, 1, 2), remove, list(5, 6, 7)}},
	} {
		if got := x.test(timeline(x.ops, func(*op) bool { return true })); got != x.fits {
			t.Errorf("%s: taken is %v", x.what, got)
		}
	}
}

func fits[S comparable](step func(S, *op) (bool, S)) func([]porcupine.Operation) bool {
	return func(list []porcupine.Operation) bool {
		var zero S
		return porcupine.CheckOperations(porcupine.Model{Init: func() any { return zero }, Step: stepOf(step)}, list)
	}
}

// TestJudge: what each family says is taken for what it means, and for nothing else.
func TestJudge(t *testing.T) {
	const (
		ours, raft = "/api/v1/cluster/members/1", "/v1/operator/raft/transfer-leadership?id=x"
		maybe      = ": the request may or may not have been carried out; look before you repeat it"
	)
	for _, x := range []struct {
		method, path string
		status       int
		body         string
		headers      []string
		want         verdict
	}{
		{"GET", ours, 200, "", nil, done},
		{"DELETE", ours, 503, `{"error":"raft commit timeout` + maybe + `"}`, []string{"X-Muster-Outcome", "unknown"},
			unknown},
		{"DELETE", ours, 503, `{"error":"raft commit timeout` + maybe + `"}`, nil, strange},
		{"DELETE", ours, 503, `{"error":"raft commit timeout"}`, []string{"X-Muster-Outcome", "unknown"}, strange},
		{"POST", joinPath, 503, `{"error":"service_unavailable","message":"Service unavailable: the outcome is not known` +
			maybe + `"}`, []string{"X-Muster-Outcome", "unknown"}, strange},
		{"POST", joinPath, 503, `{"error":"service_unavailable","message":"Service unavailable: the outcome is not known` +
			maybe + `"}`, []string{"X-Muster-Outcome", "unknown", "Retry-After", "1"}, unknown},
		{"PUT", ours, 503, `{"error":"no cluster leader: raft commit timeout"}`, []string{"Retry-After", "1"}, nothing},
		{"PUT", ours, 503, `{"error":"no cluster leader: raft commit timeout"}`, nil, strange},
		{"PUT", ours, 500, `{"error":"internal error"}`, nil, strange},
		{"PUT", ours, 410, "node-id 1 is not a current cluster member", nil, strange},
		{"PUT", ours, 409, `{"error":"x"}`, nil, refused},
		{"GET", ours, 401, `{"error":"Invalid token"}`, nil, strange},
		{"POST", joinPath, 401, `{"error":"unauthorized","message":"Unauthorized: Join token was already used"}`, nil,
			refused},
		{"PUT", raft, 500, "No cluster leader", []string{"Retry-After", "1"}, nothing},
		{"PUT", raft, 500, "leadership lost while committing log" + maybe, []string{"X-Muster-Outcome", "unknown"}, unknown},
		{"PUT", raft, 500, "failed to transfer leadership: node 3 does not answer", nil, refused},
		{"PUT", raft, 500, "internal error", nil, strange},
	} {
		h := http.Header{}
		for i := 0; i+1 < len(x.headers); i += 2 {
			h.Set(x.headers[i], x.headers[i+1])
		}
		if got := judge(x.method, x.path, answer{status: x.status, body: x.body}, h); got != x.want {
			t.Errorf("%s %s: %d %s %v is %v, want %v", x.method, x.path, x.status, x.body, h, got, x.want)
		}
	}
}

// TestPlans: the same seed plans the same, another one something else, and a short plan ends with a restore.
func TestPlans(t *testing.T) {
	text := func(seed uint64) (s string) {
		for _, x := range newPlan(seed, 3, 20).steps {
			s += x.String() + "\n"
		}
		return s
	}
	if first := text(1); first != text(1) || first == text(2) {
		t.Error("a seed does not decide the plan")
	}
	if p := newPlan(1, 5, 20); len(p.steps) != 20 || p.steps[19].kind != "restore" {
		t.Errorf("%d steps, the last is %v", len(p.steps), p.steps[19])
	}
}
