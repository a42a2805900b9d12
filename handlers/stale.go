package handlers

import (
	"net/http"
	"strconv"
)

// Headers of a stale answer. Known-Leader is whether the member that answers knows a leader now; Last-Contact is how
// long ago, in milliseconds, it last knew one, and absent when it has known none since it started.
const (
	HeaderKnownLeader = "X-Muster-Known-Leader"
	HeaderLastContact = "X-Muster-Last-Contact"
)

// IsStale reads the `stale` parameter; its value was checked before.
func IsStale(r *http.Request) bool {
	v, given := r.URL.Query()["stale"]
	if !given {
		return false
	}
	on, err := strconv.ParseBool(v[0])
	return v[0] == "" || err == nil && on
}

// CheckStale refuses a `stale` that is neither true nor false, with the text that the raft family documents.
func CheckStale(r *http.Request) error {
	if v, given := r.URL.Query()["stale"]; given && v[0] != "" {
		if _, err := strconv.ParseBool(v[0]); err != nil {
			return Fail(http.StatusBadRequest, "Expect `true` or `false` for `stale` query string parameter")
		}
	}
	return nil
}

// stale reports whether the member that was asked answers by itself. What waits for a change asks the leader, which
// knows of changes first.
func (rt *Route) stale(r *http.Request) bool {
	return rt.At == HereStale && IsStale(r) && !(rt.Blocks && r.URL.Query().Has("index"))
}

// sayAge says in the headers how old a stale answer may be.
func (s *Server) sayAge(q *Request) {
	ago, known := s.Store.SinceLeader()
	h := q.W.Header()
	knows, contact := strconv.FormatBool(known && ago == 0), strconv.FormatInt(ago.Milliseconds(), 10)
	h.Set(HeaderKnownLeader, knows)
	if known {
		h.Set(HeaderLastContact, contact)
	}
	if own := q.route.Family.Age; own != nil {
		h.Set(own.KnownLeader, knows)
		h.Set(own.LastContact, contact)
	}
}

// unsayAge takes back what sayAge said, of a request that goes on to the leader.
func unsayAge(q *Request) {
	h := q.W.Header()
	h.Del(HeaderKnownLeader)
	h.Del(HeaderLastContact)
	if own := q.route.Family.Age; own != nil {
		h.Del(own.KnownLeader)
		h.Del(own.LastContact)
	}
}
