// Package elastic serves the part of Elasticsearch's API that other software enrolls with (reference es_enroll):
// enrollment of nodes and Kibanas, API keys, and the endpoints that clients use to identify a server.
package elastic

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster/certs"
	"muster/handlers"
	"muster/store"
)

// elasticVersion is the version that this API reports: clients of the majors 8 and 9 accept a 9.
const (
	spokenVersion = certs.EnrollVersion
	spokenMajor   = 9
	productName   = "Elasticsearch" // official clients reject any other product
)

// Config holds the dependencies of the family.
type Config struct {
	Replica   Replica
	APIKeys   APIKeys
	Members   Members
	Settings  Settings
	Enroller  Enroller
	Cluster   Cluster
	ClusterID string
	Name      string // of this member
	Version   string // of this program
	Commit    string
	Now       func() time.Time
}

// Cluster is the part of the cluster's loops that the family needs.
type Cluster interface {
	Status(m *store.Member) string // "alive", "down", "left" or "unknown", from the leader's probes and m's last word
}

type service struct{ Config }

// New returns the family, with its envelope (reference es_enroll, section 3).
func New(cfg Config) *handlers.Family {
	s := &service{cfg}
	return &handlers.Family{
		Name:   "elastic",
		Paths:  []string{"/_"},
		Speaks: ownMediaType,
		Routes: s.routes(),

		Headers: func(w http.ResponseWriter) {
			w.Header().Set("X-Elastic-Product", productName)
			w.Header().Set("Cache-Control", "no-store")
		},
		Fail: func(w http.ResponseWriter, status int, code store.Code, message string) {
			if code == store.Full {
				status = http.StatusBadRequest // the original's status for exceeded limits
			}
			(&apiError{Status: status, cause: cause{Type: errorTypes[status], Reason: message}}).Write(w)
		},
		NoLeader:       handlers.Failure{Status: http.StatusServiceUnavailable, Text: "no cluster leader"},
		UnknownOutcome: handlers.Failure{Status: http.StatusServiceUnavailable, Text: "the outcome is not known"},
		Wrap:           newShaper,
		NoRoute: func(w http.ResponseWriter, r *http.Request) {
			writeJSON(w, http.StatusBadRequest, struct {
				Error string `json:"error"`
			}{fmt.Sprintf("no handler found for uri [%s] and method [%s]", r.URL.RequestURI(), r.Method)})
		},
		NoMethod: func(w http.ResponseWriter, r *http.Request, allowed []string) {
			if r.URL.Path == "/" { // the original has the header there only
				allowed = append(allowed, http.MethodHead)
			}
			w.Header().Set("Allow", strings.Join(allowed, ","))
			if r.Method == http.MethodOptions {
				w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
				w.WriteHeader(http.StatusOK)
				return
			}
			textError(http.StatusMethodNotAllowed,
				fmt.Sprintf("Incorrect HTTP method for uri [%s] and method [%s], allowed: [%s]",
					r.URL.RequestURI(), r.Method, strings.Join(allowed, ", "))).Write(w)
		},
	}
}

// ownMediaType reports whether a request has the original's media type, as official clients send it. They also request
// paths below index names, which do not begin with "/_".
func ownMediaType(r *http.Request) bool {
	return slices.ContainsFunc(slices.Concat(r.Header["Accept"], r.Header["Content-Type"]), func(text string) bool {
		return strings.Contains(strings.ToLower(text), "application/vnd.elasticsearch+")
	})
}

// errorTypes are the error types for errors of which only the status is known.
var errorTypes = map[int]string{
	http.StatusBadRequest:            "illegal_argument_exception",
	http.StatusUnauthorized:          "security_exception",
	http.StatusForbidden:             "security_exception",
	http.StatusNotFound:              "resource_not_found_exception",
	http.StatusConflict:              "version_conflict_engine_exception",
	http.StatusRequestEntityTooLarge: "content_too_long_exception",
	http.StatusTooManyRequests:       "es_rejected_execution_exception",
	http.StatusInternalServerError:   "exception",
	http.StatusServiceUnavailable:    "master_not_discovered_exception",
}

// cause is an error without its envelope, fields in wire order.
type cause struct {
	Type       string              `json:"type"`
	Reason     string              `json:"reason"`
	Additional string              `json:"additional_unsuccessful_credentials,omitempty"`
	CausedBy   *cause              `json:"caused_by,omitempty"`
	Header     map[string][]string `json:"header,omitempty"`
}

// apiError is an error with the full envelope, or with only a text where the original has no more.
type apiError struct {
	cause
	Status int
	text   string
}

func (e *apiError) Error() string { return e.text + e.Reason }

// challenges are the values of WWW-Authenticate, in the original's order.
var challenges = []string{`Basic realm="security", charset="UTF-8"`, `Bearer realm="security"`, "ApiKey"}

// HTTPStatus is the status of the answer.
func (e *apiError) HTTPStatus() int { return e.Status }

// Write answers with the error.
func (e *apiError) Write(w http.ResponseWriter) {
	for _, c := range e.Header["WWW-Authenticate"] {
		w.Header().Add("WWW-Authenticate", c)
	}
	if e.text != "" {
		writeJSON(w, e.Status, struct {
			Error  string `json:"error"`
			Status int    `json:"status"`
		}{e.text, e.Status})
		return
	}
	root := e.cause
	root.CausedBy = nil
	type whole struct {
		RootCause []cause `json:"root_cause"`
		cause
	}
	writeJSON(w, e.Status, struct {
		Error  whole `json:"error"`
		Status int   `json:"status"`
	}{whole{[]cause{root}, e.cause}, e.Status})
}

// writeJSON writes v on one line, without HTML escaping.
func writeJSON(w http.ResponseWriter, status int, v any) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
}

func refuse(status int, kind, format string, args ...any) error {
	return &apiError{Status: status, cause: cause{Type: kind, Reason: fmt.Sprintf(format, args...)}}
}

func illegalArgument(format string, args ...any) error {
	return refuse(http.StatusBadRequest, "illegal_argument_exception", format, args...)
}

func textError(status int, text string) *apiError {
	return &apiError{Status: status, text: text}
}

// endpoint is a route with the attributes that only this family has.
type endpoint struct {
	handlers.Route
	action     string   // its name in refusals
	privileges string   // the cluster privileges of the original that grant it
	params     []string // of the query, besides commonParams
	gated      bool     // only while enrollment is enabled
	body       bool     // it accepts a body
}

const (
	privilegesManage  = "manage_security,all"
	privilegesOwnKey  = "manage_own_api_key,manage_api_key,manage_security,all"
	privilegesMonitor = "monitor,manage,all"
)

// commonParams are accepted by every endpoint; the Boolean ones come first.
var commonParams = []string{"pretty", "human", "error_trace", "filter_path", "format"}

const booleanParams = 3

// mediaVersion reads the version of an Elasticsearch media type
// ("application/vnd.elasticsearch+json;compatible-with=8").
func mediaVersion(header string) (version string, found bool) {
	for part := range strings.SplitSeq(header, ",") {
		kind, params, err := mime.ParseMediaType(part)
		if err == nil && strings.HasPrefix(kind, "application/vnd.elasticsearch+") {
			return params["compatible-with"], params["compatible-with"] != ""
		}
	}
	return "", false
}

// spoken reports whether answers can have this version. It accepts one major more than the original, so that clients of
// 7, 8 and 9 work.
func spoken(version string) bool {
	n, err := strconv.Atoi(version)
	return err == nil && n <= spokenMajor && n >= spokenMajor-2
}

// checkAccept rejects unsupported versions in Accept, before anything else.
func checkAccept(r *http.Request) error { return checkMedia(r, "Accept") }

func checkMedia(r *http.Request, name string) error {
	header := r.Header.Get(name)
	version, found := mediaVersion(header)
	if !found || spoken(version) {
		return nil
	}
	why := fmt.Sprintf("%s version must be either version %d or %d, but found %s. %s=%s", name, spokenMajor,
		spokenMajor-1, version, name, header)
	return &apiError{Status: http.StatusBadRequest, cause: cause{Type: "media_type_header_exception", Reason: why,
		CausedBy: &cause{Type: "status_exception", Reason: why}}}
}

// checkBody rejects bodies of unsupported types; like the original it does so before authentication.
func checkBody(q *handlers.Request) error {
	if !q.HasBody {
		return nil
	}
	header := q.Header.Get("Content-Type")
	if header == "" {
		return textError(http.StatusNotAcceptable, "Content-Type header is missing")
	}
	if kind, _, err := mime.ParseMediaType(header); err != nil || kind != "application/json" &&
		kind != "application/vnd.elasticsearch+json" {
		return textError(http.StatusNotAcceptable, "Content-Type header ["+header+"] is not supported")
	}
	return checkMedia(q.Request, "Content-Type")
}

// unzip decompresses a body: official clients can be configured to compress them.
func unzip(q *handlers.Request) error {
	if len(q.Content) == 0 || !strings.EqualFold(q.Header.Get("Content-Encoding"), "gzip") {
		return nil
	}
	r, err := gzip.NewReader(bytes.NewReader(q.Content))
	var data []byte
	if err == nil {
		data, err = io.ReadAll(io.LimitReader(r, handlers.BodyLimit+1))
	}
	switch {
	case err != nil:
		return illegalArgument("the body is not gzip, as its Content-Encoding says")
	case len(data) > handlers.BodyLimit:
		return refuse(http.StatusRequestEntityTooLarge, errorTypes[http.StatusRequestEntityTooLarge],
			"the body must not be larger than 1 MiB")
	}
	if err := handlers.CheckValues(data); err != nil {
		return err
	}
	q.Content = data
	q.Header.Del("Content-Encoding") // the request may be repeated or forwarded
	return nil
}

// routes returns the family's rows of the route table.
func (s *service) routes() []handlers.Route {
	endpoints := s.endpoints()
	rows := make([]handlers.Route, len(endpoints))
	for i := range endpoints {
		ep := &endpoints[i]
		rows[i] = ep.Route
		rows[i].Check, rows[i].HasBody = checkAccept, ep.body
		rows[i].Admit = func(q *handlers.Request) error { return s.admit(ep, q) }
	}
	return rows
}

// admit admits a request in the documented order: authentication, parameters and body, whether enrollment is enabled,
// authorization.
func (s *service) admit(ep *endpoint, q *handlers.Request) error {
	if err := checkBody(q); err != nil {
		return err
	}
	denial, err := q.Identify()
	if err != nil {
		return err
	}
	if denial != nil {
		return notIdentified(q, denial, s.Now())
	}
	if err := unzip(q); err != nil {
		return err
	}
	if err := ep.checkParams(q.Request); err != nil {
		return err
	}
	if q.HasBody && !ep.body {
		return illegalArgument("request [%s %s] does not support having a body", q.Method, q.URL.Path)
	}
	if ep.gated {
		o, err := s.Settings.Enrollment(q.Context(), store.AsLeader)
		if err != nil {
			return err
		}
		if !o.Enabled {
			return refuse(http.StatusForbidden, "security_exception",
				"Enrollment mode is not enabled. Set [xpack.security.enrollment.enabled] to true, in order to use this API.")
		}
	}
	if ep.Scope != "" && !q.Allows(ep.Scope) {
		return handlers.Lacks(ep.Scope, unauthorizedFor(q, ep.action, ep.privileges))
	}
	return nil
}

func (ep *endpoint) checkParams(r *http.Request) error {
	query := r.URL.Query()
	var unknown []string
	for name := range query {
		if !slices.Contains(commonParams, name) && !slices.Contains(ep.params, name) {
			unknown = append(unknown, "["+name+"]")
		}
	}
	slices.Sort(unknown)
	switch len(unknown) {
	case 0:
	case 1:
		return illegalArgument("request [%s] contains unrecognized parameter: %s", r.URL.Path, unknown[0])
	default:
		return illegalArgument("request [%s] contains unrecognized parameters: %s", r.URL.Path, strings.Join(unknown, ", "))
	}
	if _, err := parseFilterPath(query.Get("filter_path")); err != nil {
		return err
	}
	for _, name := range commonParams[:booleanParams] {
		if _, err := boolParam(query, name); err != nil {
			return err
		}
	}
	return nil
}

// boolParam reads a flag of the query; a flag without a value is on.
func boolParam(query url.Values, name string) (on bool, err error) {
	switch v := query.Get(name); v {
	case "true", "":
		return query.Has(name), nil
	case "false":
		return false, nil
	default:
		return false, illegalArgument("Failed to parse value [%s] as only [true] or [false] are allowed.", v)
	}
}

// unauthorizedFor refuses an authenticated caller that lacks the privileges for an action.
func unauthorizedFor(q *handlers.Request, action, privileges string) error {
	who := fmt.Sprintf("user [%s] with effective roles [%s]", q.Token.Name, strings.Join(q.Token.Scopes, ","))
	if q.Key != nil {
		who = fmt.Sprintf("API key id [%s] of user [%s]", q.Key.ID, q.Key.OwnerName)
	}
	return refuse(http.StatusForbidden, "security_exception",
		"action [%s] is unauthorized for %s, this action is granted by the cluster privileges [%s]",
		action, who, privileges)
}
