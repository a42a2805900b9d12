package handlers

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"muster/store"
)

// Route is one line of the table of everything that muster answers. A family gives its own; the engine does the rest.
type Route struct {
	Method  string
	Path    string
	Family  *Family // set by the engine
	Scope   string  // what the API token must allow; "" is open to everybody
	At      Place
	Within  time.Duration // how long an answer may take; 0 stands for AnswerWithin
	Whole   bool          // body and answer are streams of any length
	Plain   bool          // served without TLS too, where that is switched on
	Keyed   bool          // makes something new each time, although it is no POST
	Enrolls bool          // what an enrollment token is for
	Stream  bool          // a stream of events; Serve is not used
	Blocks  bool          // knows blocking queries (index, wait)
	NoHead  bool          // a GET whose original refuses HEAD
	HasBody bool          // a DELETE whose body means something
	Proves  bool          // its body holds a credential, which is good if it succeeds

	// What is wrong with the request whoever is calling: its line and headers, its body, and what is checked against this
	// member's own replica. Each may be nil; Check of a HereStale route is CheckStale then.
	Check     func(*http.Request) error
	Vet       func(*Request) error
	CheckHere func(*http.Request) error

	// Admit lets a request in and sets its Token and Key; nil stands for the common way.
	Admit func(*Request) error
	Serve func(*Request) error
}

// Place says which member answers.
type Place int

const (
	AtLeader  Place = iota // the leader, wherever the request arrives
	Here                   // the member that was asked
	HereStale              // the leader, or the member that was asked when the query says ?stale
)

// Slow is how long a request may take that waits for machines, not for the database.
const Slow = 70 * time.Second

// Long is how long a snapshot or its restoration may take; the listener's own limit is a little longer.
const Long = 9 * time.Minute

// Changes reports whether the method is one that changes something.
func (rt *Route) Changes() bool { return rt.Method != http.MethodGet && rt.Method != http.MethodHead }

// Sensitive reports whether refused attempts at the route are kept: all that change something, and reading what not
// every reader of the cluster may.
func (rt *Route) Sensitive() bool {
	switch rt.Scope {
	case store.ScopeClusterRead, store.ScopePeeringRead:
		return rt.Changes()
	case "":
		return rt.Changes()
	}
	return true
}

// Heads reports whether the route answers HEAD as well: each GET does, but those whose original refuses it and those
// that make something new each time.
func (rt *Route) Heads() bool { return rt.Method == http.MethodGet && !rt.Keyed && !rt.NoHead }

// asks reports whether the route wants to know who is calling.
func (rt *Route) asks() bool { return rt.Scope != "" || rt.Admit != nil }

// fits reports whether a path has the shape of the route's, in which {x} stands for one segment.
func (rt *Route) fits(path string) bool {
	p, q := strings.Split(rt.Path, "/"), strings.Split(path, "/")
	return slices.EqualFunc(p, q, func(p, q string) bool { return p == q || strings.HasPrefix(p, "{") })
}

// Routes returns the table, of all families.
func (s *Server) Routes() []*Route { return s.routes }

// enter adds the families and their rows.
func (s *Server) enter(families []*Family) {
	s.families = append(s.families, families...)
	for _, f := range families {
		for i := range f.Routes {
			f.Routes[i].Family = f
			s.routes = append(s.routes, &f.Routes[i])
		}
	}
}

// familyOf finds the family that a request belongs to: that of a row of its path's shape, or else one whose client sends
// it, or the one that claims the longest beginning of the path.
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

// methodsOf lists the methods of the rows that a path fits.
func (s *Server) methodsOf(path string) (methods []string) {
	for _, rt := range s.routes {
		if rt.fits(path) {
			methods = append(methods, rt.Method)
		}
	}
	return methods
}
