package handlers

import (
	"net/http"
	"net/http/httptest"
	"slices"
)

// What tests of the whole table see of the engine.

// The headers between members, and of an unknown outcome.
const (
	HeaderForwarded = headerForwarded
	HeaderRemote    = headerRemote
	HeaderNotLeader = headerNotLeader
	HeaderOutcome   = headerOutcome
	OutcomeUnknown  = outcomeUnknown
	LeaderChanged   = leaderChanged
	MayHaveHappened = mayHaveHappened
)

// MayRead returns why a reader of events that has been told of the revision since may not go on, nil when it may.
func (s *Server) MayRead(r *http.Request, since uint64) error {
	i := slices.IndexFunc(s.routes, func(rt *Route) bool { return rt.Path == "/api/v1/events" })
	rt := s.routes[i]
	_, err := s.mayRead(rt, origin{}, &Request{Request: r, W: httptest.NewRecorder(), server: s, route: rt}, since)
	return err
}

// FailuresPerMinute is how often an address may fail.
const FailuresPerMinute = failuresPerMinute

// RefusedConnections is the limit of connections, as the metric has it.
const RefusedConnections = refusedConnections

// WithConnection is what Serve does to each connection.
var WithConnection = withConnection

// Families returns those of the table.
func (s *Server) Families() []*Family { return s.families }

// FamilyOf finds the family that a path belongs to.
func (s *Server) FamilyOf(path string) *Family {
	return s.familyOf(httptest.NewRequest("GET", path, nil))
}

// ForgetFailures begins to count failed attempts from zero; FailingHosts is how many addresses are counted.
func (s *Server) ForgetFailures() { s.failures = newFailureLimiter() }

// FailingHosts returns how many addresses have failed attempts.
func (s *Server) FailingHosts() int { return len(s.failures.hosts) }

// AwayPerAddress is how many answers that send an address away may wait.
const AwayPerAddress = awayPerAddress

// KnownBytes is how much of bodies one credential may have in memory; BodyBytes is how much there is of all.
const KnownBytes = knownBytes

// BodyBytes returns how many bytes of the bodies of known callers are in memory.
func (s *Server) BodyBytes() int {
	s.bodies.mu.Lock()
	defer s.bodies.mu.Unlock()
	return s.bodies.taken
}

// Working, Strangers and Waiting return how many slots, places of strangers and places of blocking queries are taken.
func (s *Server) Working() int { return len(s.slots) }

// Strangers returns how many requests of strangers there are.
func (s *Server) Strangers() int { return s.rooms.open() }

// Waiting returns how many blocking queries wait.
func (s *Server) Waiting() int { return s.waiting.taken() }

// BoundAnswers sets how many bytes of unread answers one credential, one address and all together may have.
func (s *Server) BoundAnswers(who, from, all int) {
	s.answersOf, s.answersTo = newRations(who, all), newRations(from, all)
}

// AnswerCost is what an unread answer counts besides its bytes.
const AnswerCost = answerCost

// UnreadBytes returns how many bytes of answers wait to be read.
func (s *Server) UnreadBytes() int {
	s.answersOf.mu.Lock()
	defer s.answersOf.mu.Unlock()
	return s.answersOf.taken
}

// FromMembers are the headers of forwarded requests.
var FromMembers = fromMembers
