package consul

import (
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"unicode"

	"muster/handlers"
	"muster/store"
)

const peeringPrefix = "/v1/peering"

// peeringPaths answers before routing what the original's router answers itself: redirects, wrong methods and unknown
// paths (reference consul_peering, section 1.1).
type peeringPaths struct{ routes []handlers.Route }

// methods lists the methods of a path of the family; none for an unknown path. A path that a route names is an
// endpoint, never the name of a peering.
func (p peeringPaths) methods(path string) (exact []string) {
	var named []string
	for i := range p.routes {
		rt := &p.routes[i]
		before, _, variable := strings.Cut(rt.Path, "{")
		switch {
		case rt.Path == path:
			exact = append(exact, rt.Method)
		case variable && strings.HasPrefix(path, before):
			named = append(named, rt.Method)
		}
	}
	if exact == nil {
		return named
	}
	return exact
}

// cleanPath removes empty and dotted segments of a path; it keeps a trailing slash.
func cleanPath(p string) string {
	clean := path.Clean("/" + p)
	if clean != "/" && strings.HasSuffix(p, "/") {
		clean += "/"
	}
	return clean
}

// takes reports whether a request belongs to the family and no route serves it.
func (p peeringPaths) takes(r *http.Request) bool {
	clean := cleanPath(r.URL.Path)
	if !strings.HasPrefix(clean, peeringPrefix) {
		return false
	}
	_, err := url.ParseQuery(r.URL.RawQuery)
	return err != nil || clean != r.URL.Path || !printablePath(clean) || !slices.Contains(p.methods(clean), r.Method)
}

func printablePath(p string) bool {
	return strings.IndexFunc(p, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

// serve answers the requests that takes accepts.
func (p peeringPaths) serve(w http.ResponseWriter, r *http.Request) {
	clean := cleanPath(r.URL.Path)
	if clean == peeringPrefix {
		clean += "/"
	}
	methods := p.methods(clean)
	_, err := url.ParseQuery(r.URL.RawQuery)
	switch {
	case !printablePath(clean), err != nil:
		w.WriteHeader(http.StatusBadRequest)
	case clean != r.URL.Path:
		to := url.URL{Path: clean, RawQuery: r.URL.RawQuery}
		w.Header().Set("Location", to.String())
		w.WriteHeader(http.StatusTemporaryRedirect)
	case len(methods) == 0:
		w.Header().Del("X-Consul-Default-Acl-Policy")
		handlers.PlainFail(w, http.StatusNotFound, store.NotFound, "Invalid URL path: not a recognized HTTP API endpoint\n")
	case r.Method == http.MethodOptions:
		w.Header().Set("Allow", "OPTIONS,"+strings.Join(methods, ","))
		emptyAnswer(w)
	default:
		w.Header().Set("Allow", "OPTIONS,"+strings.Join(methods, ","))
		handlers.PlainFail(w, http.StatusMethodNotAllowed, store.Invalid, "method "+r.Method+" not allowed")
	}
}

func emptyAnswer(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusOK)
}

// anonymousToken is the name of the identity of requests without a token.
const anonymousToken = "anonymous"

// peeringCredential reads the token from the places that the family documents, in that order; the first that is not
// empty counts. Only this family accepts a token in the query; queries are never logged.
func peeringCredential(r *http.Request) (handlers.Credential, bool) {
	for _, secret := range []string{r.URL.Query().Get("token"), strings.TrimSpace(r.Header.Get("X-Consul-Token")),
		bearerOf(r)} {
		if secret != "" {
			return handlers.Credential{Secret: secret}, secret != anonymousToken
		}
	}
	return handlers.Credential{}, false
}

func bearerOf(r *http.Request) string {
	if f := strings.Fields(r.Header.Get("Authorization")); len(f) > 1 && strings.EqualFold(f[0], "bearer") {
		return f[1]
	}
	return ""
}

// deniedPeering words a refusal (reference consul_peering, section 6).
func deniedPeering(q *handlers.Request, d *handlers.Denial) error {
	_, shown := peeringCredential(q.Request)
	switch {
	case d.Reason == handlers.MissingScope:
		return handlers.Fail(http.StatusForbidden,
			"Permission denied: token with AccessorID '"+q.Token.ID+"' lacks permission '"+d.Scope+"'")
	case shown:
		return handlers.Fail(http.StatusForbidden, "ACL not found")
	}
	return handlers.Fail(http.StatusForbidden, "Permission denied: anonymous token lacks permission '"+d.Scope+
		"'. The anonymous token is used implicitly when a request does not specify a token.")
}
