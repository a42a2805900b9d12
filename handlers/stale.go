package handlers

import "strconv"

// Headers of a stale answer. Known-Leader is whether the member that answers knows a leader now; Last-Contact is how long
// ago, in milliseconds, it last knew one, and absent when it has known none since it started. The peering family has its own
// spelling of the same (reference consul_peering, section 1.1).
const (
	headerKnownLeader = "X-Muster-Known-Leader"
	headerLastContact = "X-Muster-Last-Contact"

	consulKnownLeader = "X-Consul-Knownleader"
	consulLastContact = "X-Consul-Lastcontact"
)

// sayAge says in the headers how old a stale answer may be.
func (s *Server) sayAge(q *request) {
	ago, known := s.Store.SinceLeader()
	h := q.w.Header()
	h.Set(headerKnownLeader, strconv.FormatBool(known && ago == 0))
	if known {
		h.Set(headerLastContact, strconv.FormatInt(ago.Milliseconds(), 10))
	}
	if familyOf(q.URL.Path) == consul {
		h.Set(consulKnownLeader, h.Get(headerKnownLeader))
		h.Set(consulLastContact, strconv.FormatInt(ago.Milliseconds(), 10))
	}
}

// unsayAge takes back what sayAge said, of a request that goes on to the leader.
func unsayAge(q *request) {
	for _, name := range []string{headerKnownLeader, headerLastContact, consulKnownLeader, consulLastContact} {
		q.w.Header().Del(name)
	}
}
