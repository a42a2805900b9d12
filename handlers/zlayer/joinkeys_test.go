package zlayer_test

import (
	"strings"
	"testing"
	"time"

	"muster/api"
	"muster/client"
	"muster/handlers/internal/sole"
)

// TestJoinKeysRotated: tokens of before are good during the grace and not after it; a machine that came with one is
// recognised all the same.
func TestJoinKeysRotated(t *testing.T) {
	t.Parallel()
	u := sole.NewPair(t, beside).Root()
	const path = "/api/v1/cluster/join-keys/rotate"
	for _, format := range []string{"muster", "zlayer"} {
		create := func(uses string) string { return u.JoinToken(`{` + uses + `"format":"` + format + `"}`).Token }
		j := newMachine(t)
		again := func(when, token string, first client.JoinResponse) {
			t.Helper()
			for range 2 {
				if got := j.enter(t, u, token); got.NodeID != first.NodeID || got.RaftNodeID != first.RaftNodeID ||
					got.OverlayIP != first.OverlayIP || got.SliceCIDR != first.SliceCIDR {
					t.Errorf("%s: %s the same machine gets %+v, it had %+v", format, when, got, first)
				}
			}
		}
		old := create(`"maxUses":10,`)
		first := j.enter(t, u, old)
		keys := sole.Get[api.JoinKeys](u, "POST", path, `{"graceSeconds":3600}`)
		if len(keys.KIDs) != 2 || time.Until(keys.GraceUntil) < 30*time.Minute {
			t.Fatalf("%+v", keys)
		}
		young := newMachine(t).enter(t, u, old)
		if !strings.Contains(strings.Join(young.Warnings, "\n"), "a key that has been rotated since") {
			t.Errorf("%s: the warnings are %q", format, young.Warnings)
		}
		fresh := newMachine(t).enter(t, u, create(""))
		if strings.Contains(strings.Join(fresh.Warnings, "\n"), "rotated") {
			t.Errorf("%s: the warnings with a new token are %q", format, fresh.Warnings)
		}
		if a := u.Do("POST", path, `{"graceSeconds":0}`); a.Status != 200 {
			t.Fatal(a)
		}
		// The grace of the key before last goes on; that of the last one is over at once.
		newMachine(t).enter(t, u, old)
		again("after the rotations", old, first)
		short := create(`"maxUses":10,`)
		first = j.enter(t, u, short)
		if a := u.Do("POST", path, `{"graceSeconds":0}`); a.Status != 200 {
			t.Fatal(a)
		}
		newMachine(t).refused(t, u, short, "Unauthorized: …")
		again("when the grace is over", short, first)
	}
}

// TestJoinKeysRefused: a grace that is none is refused.
func TestJoinKeysRefused(t *testing.T) {
	t.Parallel()
	sole.NewPair(t).Unchanged(func(u *sole.User) {
		for _, body := range []string{`{"graceSeconds":-1}`, `{"graceSeconds":7776001}`, `{"graceSeconds":"7d"}`,
			`{"graceSeconds":1.5}`, `[]`, `{`, `"x"`} {
			a := u.Do("POST", "/api/v1/cluster/join-keys/rotate", body)
			if a.Envelope(t, body, "ella"); a.Status != 400 {
				t.Errorf("%s: %v", body, a)
			}
		}
	})
}
