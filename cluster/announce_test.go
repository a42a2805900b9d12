package cluster

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"filippo.io/age"

	"muster/store"
)

// A member that is no Raft server yet believes for seconds only who leads. It announces itself again also when it has
// forgotten that by the time the leader answers; otherwise it would know no leader from then on, and refuse the
// leader's own calls.
func TestAnnouncesAgain(t *testing.T) {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(store.Config{
		Dir:      t.TempDir(),
		NodeID:   2,
		Identity: identity,
		Logger:   slog.New(slog.DiscardHandler),
		Dial:     func(context.Context, uint64) (net.Conn, error) { return nil, net.ErrClosed },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = st.Close(ctx)
	})
	an := &announcer{member: &member{Config: Config{Store: st}}}
	if st.Outside() || an.announcesAgain(t.Context()) == 0 {
		t.Error("nobody has named a leader: it must go on announcing itself")
	}
	st.HintLeader(1, time.Minute)
	if !st.Outside() || an.announcesAgain(t.Context()) == 0 {
		t.Error("others have named the leader: it must go on announcing itself")
	}
	if leads := startMember(t); leads.member.Store.Outside() ||
		(&announcer{member: leads.member}).announcesAgain(t.Context()) != 0 {
		t.Error("a Raft server that knows the leader announces itself when leadership turns")
	}
}
