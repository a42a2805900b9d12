package handlers

import (
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"unicode"

	"muster/store"
)

const peeringPrefix = "/v1/peering"

// peeringMethods lists what a path of the family answers to; ok is false for one that it does not have. The names token
// and establish are endpoints, never peerings.
func peeringMethods(path string) (methods []string, ok bool) {
	switch {
	case path == "/v1/peering/token", path == "/v1/peering/establish":
		return []string{"POST"}, true
	case path == "/v1/peerings":
		return []string{"GET"}, true
	case strings.HasPrefix(path, "/v1/peering/"):
		return []string{"GET", "DELETE"}, true
	}
	return nil, false
}

// cleanPath is a path without empty and dotted segments; a slash at the end stays.
func cleanPath(p string) string {
	clean := path.Clean("/" + p)
	if clean != "/" && strings.HasSuffix(p, "/") {
		clean += "/"
	}
	return clean
}

// peeringPaths answers what the family's own router would, before the table of routes is asked: redirects, methods and
// paths that are none (reference consul_peering, section 1.1).
func (s *Server) peeringPaths(o origin, next http.Handler) http.Handler {
	other := s.guard(&route{method: "other", path: "other", family: consul}, o, otherPeeringRequest)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		clean := cleanPath(r.URL.Path)
		if !strings.HasPrefix(clean, peeringPrefix) {
			next.ServeHTTP(w, r)
			return
		}
		methods, ok := peeringMethods(r.URL.Path)
		_, err := url.ParseQuery(r.URL.RawQuery)
		if ok && err == nil && clean == r.URL.Path && printablePath(clean) && slices.Contains(methods, r.Method) {
			next.ServeHTTP(w, r)
			return
		}
		other.ServeHTTP(w, r)
	})
}

func printablePath(p string) bool {
	return strings.IndexFunc(p, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

// otherPeeringRequest answers what is no request to an endpoint.
func otherPeeringRequest(w http.ResponseWriter, r *http.Request) {
	clean := cleanPath(r.URL.Path)
	if clean == peeringPrefix {
		clean += "/"
	}
	methods, ok := peeringMethods(clean)
	_, err := url.ParseQuery(r.URL.RawQuery)
	switch {
	case !printablePath(clean), err != nil:
		w.WriteHeader(http.StatusBadRequest)
	case clean != r.URL.Path:
		to := url.URL{Path: clean, RawQuery: r.URL.RawQuery}
		w.Header().Set("Location", to.String())
		w.WriteHeader(http.StatusTemporaryRedirect)
	case !ok:
		w.Header().Del("X-Consul-Default-Acl-Policy")
		consul.fail(w, http.StatusNotFound, store.NotFound, "Invalid URL path: not a recognized HTTP API endpoint\n")
	case r.Method == http.MethodOptions:
		w.Header().Set("Allow", "OPTIONS,"+strings.Join(methods, ","))
		emptyAnswer(w)
	default:
		w.Header().Set("Allow", "OPTIONS,"+strings.Join(methods, ","))
		consul.fail(w, http.StatusMethodNotAllowed, store.Invalid, "method "+r.Method+" not allowed")
	}
}

func emptyAnswer(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusOK)
}

// anonymousToken is how clients of the family name the identity of who shows no token.
const anonymousToken = "anonymous"

// peeringCredential reads the token from where the family has it, in its order; the first that is not empty counts. Only
// here may it stand in the query, of which nothing is ever logged.
func peeringCredential(r *http.Request) (credential, bool) {
	for _, secret := range []string{r.URL.Query().Get("token"), strings.TrimSpace(r.Header.Get("X-Consul-Token")), bearerOf(r)} {
		if secret != "" {
			return credential{secret: secret}, secret != anonymousToken
		}
	}
	return credential{}, false
}

func bearerOf(r *http.Request) string {
	if f := strings.Fields(r.Header.Get("Authorization")); len(f) > 1 && strings.EqualFold(f[0], "bearer") {
		return f[1]
	}
	return ""
}

// deniedPeering says who may not do what (reference consul_peering, section 6).
func deniedPeering(q *request, token *store.APIToken, scope string) error {
	_, shown := peeringCredential(q.Request)
	switch {
	case token != nil:
		return fail(http.StatusForbidden, "Permission denied: token with AccessorID '"+token.ID+"' lacks permission '"+scope+"'")
	case shown:
		return fail(http.StatusForbidden, "ACL not found")
	}
	return fail(http.StatusForbidden, "Permission denied: anonymous token lacks permission '"+scope+
		"'. The anonymous token is used implicitly when a request does not specify a token.")
}
