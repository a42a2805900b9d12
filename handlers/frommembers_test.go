package handlers_test

import (
	"testing"

	"muster/handlers"
	"muster/handlers/internal/sole"
)

// A client cannot send what members say to each other: a request with such a header is answered like one without it, by
// the leader and by another member.
func TestHeadersOfMembers(t *testing.T) {
	t.Parallel()
	s := sole.NewPair(t)
	for _, at := range s.Members() {
		u := at.Here(s.Admin)
		for _, name := range handlers.FromMembers {
			for _, value := range []string{"1", "dropped", "100h", "192.0.2.1:1"} {
				header := name + ": " + value
				if a := u.Do("GET", "/api/v1/whoami", "", header); a.Status != 200 {
					t.Errorf("%s: %v", header, a)
				}
				if a := u.Do("POST", "/api/v1/cluster/join-tokens", `{"ttlSeconds":600}`, header); a.Status != 201 {
					t.Errorf("%s: %v", header, a)
				}
			}
		}
	}
	s.AwaitMirrors()
	s.AwaitSQL(`SELECT count(*) FROM audit WHERE remote LIKE '192.0.2.1%'`, "0")
}
