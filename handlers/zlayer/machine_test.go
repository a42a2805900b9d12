package zlayer_test

import (
	"encoding/json"
	"strings"
	"sync/atomic"
	"testing"

	"muster/api"
	"muster/client"
	"muster/handlers/internal/sole"
)

// machine is a joiner with a key and an address of its own.
type machine struct {
	public []int
	port   int64 // for Raft
}

var machinePorts atomic.Int64

// beside is the configuration of a pair beside which there are machines that join and never run.
func beside(c *sole.Config) {
	c.Cluster.Life = func(nodeID uint64) string {
		if nodeID > 2 {
			return "down"
		}
		return "alive"
	}
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	return &machine{newKey(t), 2 + machinePorts.Add(1)}
}

// key is the machine's public key.
func (j *machine) key() (out []byte) {
	for _, b := range j.public {
		out = append(out, byte(b))
	}
	return out
}

// body is the machine's join with a token and with fields changed as in joinBody.
func (j *machine) body(t *testing.T, token string, change ...any) string {
	t.Helper()
	return joinBody(t, token, append([]any{"secrets_pubkey", j.public, "raft_port", j.port}, change...)...)
}

// admitted is the answer to a join that must succeed.
func admitted(t *testing.T, what string, a sole.Answer) client.JoinResponse {
	t.Helper()
	var r client.JoinResponse
	if err := json.Unmarshal([]byte(a.Body), &r); a.Status != 200 || err != nil {
		t.Fatalf("%s: %v", what, a)
	}
	return r
}

// enter joins the machine.
func (j *machine) enter(t *testing.T, u *sole.User, token string, change ...any) client.JoinResponse {
	t.Helper()
	r := admitted(t, "a join", u.Do("POST", "/api/v1/cluster/join", j.body(t, token, change...)))
	u.Secret("a join secret", r.JoinSecret)
	if r.NodeJWT != "" {
		u.Secret("a node identity", r.NodeJWT)
	}
	return r
}

// refused tries a join that must not succeed. A message that ends in "…" is the beginning of one.
func (j *machine) refused(t *testing.T, u *sole.User, token, message string) {
	t.Helper()
	a := u.Do("POST", "/api/v1/cluster/join", j.body(t, token))
	var e struct{ Message string }
	_ = json.Unmarshal([]byte(a.Body), &e)
	beginning, some := strings.CutSuffix(message, "…")
	if a.Status != 401 || e.Message != message && !(some && strings.HasPrefix(e.Message, beginning)) {
		t.Errorf("got %v, want 401 %s", a, message)
	}
}

// listed finds a join token in the list.
func listed(t *testing.T, u *sole.User, id string) api.JoinToken {
	t.Helper()
	for _, x := range sole.Get[[]api.JoinToken](u, "GET", "/api/v1/cluster/join-tokens", "") {
		if x.ID == id {
			return x
		}
	}
	t.Fatalf("join token %s is not in the list", id)
	return api.JoinToken{}
}
