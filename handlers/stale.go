package handlers

import (
	"net/http"
	"strconv"
)

// Headers of a stale answer. Known-Leader is whether the answering member knows a leader now; Last-Contact is how long
// ago, in milliseconds, it last knew one, and is absent when it has known none since it started.
const (
	HeaderKnownLeader = "X-Muster-Known-Leader"
	HeaderLastContact = "X-Muster-Last-Contact"
)

// IsStale reads the `stale` parameter, which CheckStale has checked.
func IsStale(r *http.Request) bool {
	v, given := r.URL.Query()["stale"]
	if !given {
		return false
	}
	on, err := strconv.ParseBool(v[0])
	return v[0] == "" || err == nil && on
}

// CheckStale rejects a `stale` that is neither true nor false, with the text that Nomad documents.
func CheckStale(r *http.Request) error {
	if v, given := r.URL.Query()["stale"]; given && v[0] != "" {
		if _, err := strconv.ParseBool(v[0]); err != nil {
			return Fail(http.StatusBadRequest, "Expect `true` or `false` for `stale` query string parameter")
		}
	}
	return nil
}

// stale reports whether the member that received the request answers it. Blocking queries go to the leader, which sees
// changes first.
func (rt *Route) stale(r *http.Request) bool {
	return rt.At == HereStale && IsStale(r) && !(rt.Blocks && r.URL.Query().Has("index"))
}

// sayAge sets the headers with the age of a stale answer.
func (s *Server) sayAge(q *Request) {
	ago, known := s.Replica.SinceLeader()
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

// unsayAge removes the headers that sayAge set, for a request that is forwarded to the leader after all.
func unsayAge(q *Request) {
	h := q.W.Header()
	h.Del(HeaderKnownLeader)
	h.Del(HeaderLastContact)
	if own := q.route.Family.Age; own != nil {
		h.Del(own.KnownLeader)
		h.Del(own.LastContact)
	}
}
