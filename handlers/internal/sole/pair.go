package sole

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"muster/internal/await"
	"muster/store"
)

// steady is a network latency for Raft with which a busy machine holds no elections: the leader of a pair stays.
const steady = 500 * time.Millisecond

// NewPair founds a cluster of two voters, both in this process: users ask both in turn. change adjusts the
// configuration of the handlers of each.
func NewPair(t testing.TB, change ...func(*Config)) *Member {
	t.Helper()
	s := found(t, steady, change...)
	s.AddVoter(func() bool { return true })
	peer := s.peer.Load()
	cfg := NewConfig(peer, s.ClusterID, "two")
	cfg.Peers = over{s}
	for _, c := range change {
		c(cfg)
	}
	s.follower = &Member{Server: Serve(cfg), Store: peer, T: t, Admin: s.Admin}
	roles := []store.RoleChange{{NodeID: 2, Role: store.RoleVoter, Reason: "test"}}
	if err := s.Store.Members.SetRoles(t.Context(), store.Actor{Name: "test"}, roles); err != nil {
		t.Fatal(err)
	}
	await.True(t, "the second knows who leads", func() bool { return peer.LeaderID() == 1 })
	return s
}

// over forwards requests to the leader, in the same process.
type over struct{ leader *Member }

func (o over) Forward(r *http.Request, _ uint64) (*http.Response, error) {
	if a := store.AttemptOf(r.Context()); a != nil {
		in := *a
		in.Epoch = o.leader.Store.Epoch()
		in.Tell = func(made []byte) { a.Made = made }
		r = r.WithContext(store.WithAttempt(r.Context(), &in))
	}
	r.Host = "node-1"
	w := httptest.NewRecorder()
	o.leader.Internal().ServeHTTP(w, r)
	return w.Result(), nil
}

// AwaitMirrors waits until every member's mirror has all that is committed now.
func (s *Member) AwaitMirrors() {
	s.T.Helper()
	now := s.Store.Revision()
	await.True(s.T, "the mirrors catch up", func() bool {
		for _, m := range s.Members() {
			if m.Store.Mirror.Revision() < now {
				return false
			}
		}
		return true
	})
}
