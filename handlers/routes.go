package handlers

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"muster/store"
)

// Route is one row of the route table. A family declares its routes; the engine does the rest.
type Route struct {
	Method  string
	Path    string
	Family  *Family // set by the engine
	Scope   string  // scope that the credential needs; "": open to everybody
	At      Place
	Within  time.Duration // limit of the time to answer; 0: AnswerWithin
	Whole   bool          // body and answer are streams of any length
	Plain   bool          // also served without TLS, where that is enabled
	Keyed   bool          // creates something, although it is not a POST
	Enrolls bool          // an enrollment token may use it
	Stream  bool          // a stream of events; Serve is not used
	Blocks  bool          // supports blocking queries (index, wait)
	NoHead  bool          // a GET whose original rejects HEAD
	HasBody bool          // a DELETE with a meaningful body
	Proves  bool          // the body holds a credential, which is valid if the request succeeds

	// Checks that do not depend on the caller: of the request line and headers, of the body, and against this member's own
	// replica. Each may be nil; Check of a HereStale route is CheckStale then.
	Check     func(*http.Request) error
	Vet       func(*Request) error
	CheckHere func(*http.Request) error

	// Admit authenticates and authorizes a request and sets its Token and Key; nil means the common way.
	Admit func(*Request) error
	Serve func(*Request) error
}

// Place is which member answers.
type Place int

const (
	AtLeader  Place = iota // the leader, whichever member receives the request
	Here                   // the member that receives the request
	HereStale              // the leader, or with ?stale the member that receives the request
)

// Slow is the time limit of requests that wait for machines, not only for the database.
const Slow = 70 * time.Second

// Long is the time limit of a snapshot or a restore; the listener's own limit is a little longer.
const Long = 9 * time.Minute

// Changes reports whether the route's method changes something.
func (rt *Route) Changes() bool { return rt.Method != http.MethodGet && rt.Method != http.MethodHead }

// Sensitive reports whether refused attempts at the route are audited: attempts to change something, or to read
// something that needs more than cluster:read.
func (rt *Route) Sensitive() bool {
	switch rt.Scope {
	case store.ScopeClusterRead, store.ScopePeeringRead:
		return rt.Changes()
	case "":
		return rt.Changes()
	}
	return true
}

// Heads reports whether the route also answers HEAD: every GET does, except those whose original rejects it and those
// that create something.
func (rt *Route) Heads() bool { return rt.Method == http.MethodGet && !rt.Keyed && !rt.NoHead }

// asks reports whether the route authenticates its caller.
func (rt *Route) asks() bool { return rt.Scope != "" || rt.Admit != nil }

// fits reports whether a path matches the route's pattern, in which {x} stands for one segment.
func (rt *Route) fits(path string) bool {
	p, q := strings.Split(rt.Path, "/"), strings.Split(path, "/")
	return slices.EqualFunc(p, q, func(p, q string) bool { return p == q || strings.HasPrefix(p, "{") })
}

// Routes returns the table, of all families.
func (s *Server) Routes() []*Route { return s.routes }

// enter adds the families and their routes.
func (s *Server) enter(families []*Family) {
	s.families = append(s.families, families...)
	for _, f := range families {
		for i := range f.Routes {
			f.Routes[i].Family = f
			s.routes = append(s.routes, &f.Routes[i])
		}
	}
}

// familyOf returns the family that a request belongs to: the family of a route that its path fits, or else the family
// whose client sends it, or else the one with the longest matching prefix.
func (s *Server) familyOf(r *http.Request) *Family {
	path := r.URL.Path
	for _, rt := range s.routes {
		if rt.fits(path) {
			return rt.Family
		}
	}
	for _, f := range s.families {
		if f.Speaks != nil && f.Speaks(r) {
			return f
		}
	}
	found, longest := s.families[0], -1
	for _, f := range s.families {
		for _, p := range f.Paths {
			if strings.HasPrefix(path, p) && len(p) > longest {
				found, longest = f, len(p)
			}
		}
	}
	return found
}

// methodsOf lists the methods of the routes that a path fits.
func (s *Server) methodsOf(path string) (methods []string) {
	for _, rt := range s.routes {
		if rt.fits(path) {
			methods = append(methods, rt.Method)
		}
	}
	return methods
}
