package elastic

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"muster/handlers"
	"muster/store"
)

const (
	actionCreateKey     = "cluster:admin/xpack/security/api_key/create"
	actionGetKey        = "cluster:admin/xpack/security/api_key/get"
	actionInvalidateKey = "cluster:admin/xpack/security/api_key/invalidate"
)

// privilegeScopes maps cluster privileges of the original to muster's scopes. Other privileges are stored with the key
// and grant nothing.
var privilegeScopes = map[string]string{
	"all":                                        store.ScopeManagement,
	"manage_security":                            store.ScopeEnroll,
	"cluster:admin/xpack/security/*":             store.ScopeEnroll,
	"cluster:admin/xpack/security/enroll/*":      store.ScopeEnroll,
	"cluster:admin/xpack/security/enroll/node":   store.ScopeEnroll,
	"cluster:admin/xpack/security/enroll/kibana": store.ScopeEnrollKibana,
	"manage":  store.ScopeClusterManage,
	"monitor": store.ScopeClusterRead,
}

// invalidRequest is the original's refusal of a request that fails validation.
func invalidRequest(text string) error {
	return refuse(http.StatusBadRequest, "action_request_validation_exception", "Validation Failed: 1: %s;", text)
}

// strictObject decodes a body and rejects unknown fields.
func strictObject(body []byte, parser string, known ...string) (map[string]json.RawMessage, error) {
	if len(body) == 0 {
		return nil, refuse(http.StatusBadRequest, "parse_exception", "request body is required")
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(body, &m); err != nil || m == nil {
		return nil, refuse(http.StatusBadRequest, "x_content_parse_exception",
			"[%s] the request body must be a JSON object", parser)
	}
	for name := range m {
		if !slices.Contains(known, name) {
			return nil, refuse(http.StatusBadRequest, "x_content_parse_exception", "[%s] unknown field [%s]", parser, name)
		}
	}
	return m, nil
}

// field decodes one field; absent and null leave v unchanged.
func field(m map[string]json.RawMessage, parser, name string, v any) error {
	raw, ok := m[name]
	if !ok || string(raw) == "null" {
		return nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return refuse(http.StatusBadRequest, "x_content_parse_exception", "[%s] failed to parse field [%s]", parser, name)
	}
	return nil
}

// createAPIKey creates a key. It grants the scopes that its role descriptors request and the caller has, or without
// role descriptors all scopes of the caller.
func (s *service) createAPIKey(q *handlers.Request) error {
	k, ttl, err := keyRequest(q)
	if err != nil {
		return err
	}
	q.OwnKey(&k, ttl)
	if k, err = s.APIKeys.Create(q.Context(), q.Actor, k); err != nil {
		return err
	}
	type answer struct {
		ID         string `json:"id"`
		Name       string `json:"name"`
		Expiration int64  `json:"expiration,omitempty"` // milliseconds since 1970
		APIKey     string `json:"api_key"`
		Encoded    string `json:"encoded"` // for the header "Authorization: ApiKey …"
	}
	out := answer{ID: k.ID, Name: k.Name, APIKey: k.Secret,
		Encoded: base64.StdEncoding.EncodeToString([]byte(k.ID + ":" + k.Secret))}
	if k.ExpiresAt != nil {
		out.Expiration = k.ExpiresAt.UnixMilli()
	}
	writeJSON(q.W, http.StatusOK, out)
	return nil
}

// keyRequest reads the body of the creation of a key.
func keyRequest(q *handlers.Request) (k store.APIKey, ttl time.Duration, err error) {
	const parser = "create_api_key_request"
	m, err := strictObject(q.Content, parser, "name", "expiration", "role_descriptors", "metadata")
	if err != nil {
		return k, 0, err
	}
	k.Kind = store.KeyKindAPI
	var expiration *string
	var roles, metadata map[string]json.RawMessage
	for name, v := range map[string]any{"name": &k.Name, "expiration": &expiration, "role_descriptors": &roles,
		"metadata": &metadata} {
		if err := field(m, parser, name, v); err != nil {
			return k, 0, err
		}
	}
	if err := checkKeyName(k.Name); err != nil {
		return k, 0, err
	}
	for name := range metadata {
		if strings.HasPrefix(name, "_") {
			return k, 0, invalidRequest("API key metadata keys may not start with [_]")
		}
	}
	if expiration != nil { // empty is not absent: such a key would never expire
		if ttl, err = timeValue("expiration", *expiration); err != nil {
			return k, 0, err
		}
	}
	for _, name := range []string{"role_descriptors", "metadata"} {
		if err := checkDocument(name, m[name]); err != nil {
			return k, 0, err
		}
	}
	if len(roles) > 0 {
		k.RoleDescriptors = m["role_descriptors"]
	}
	if len(metadata) > 0 {
		k.Metadata = m["metadata"]
	}
	return k, ttl, grant(q, &k, roles)
}

// checkDocument rejects a document that is too large or too deep to be stored.
func checkDocument(name string, text json.RawMessage) error {
	if most := store.MaxSize("api_keys", name); len(text) > most {
		return invalidRequest(fmt.Sprintf("[%s] must be at most %d bytes long", name, most))
	}
	if depth(text) > maxDocumentDepth {
		return invalidRequest(fmt.Sprintf("[%s] must have at most %d levels", name, maxDocumentDepth))
	}
	return nil
}

// maxDocumentDepth bounds the nesting of a stored document: the size of its indented form grows with the square of it.
const maxDocumentDepth = 20

// depth returns the nesting depth of a JSON text.
func depth(text json.RawMessage) (deepest int) {
	level, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			quoted = !quoted
		case quoted && c == '\\':
			i++
		case quoted:
		case c == '{' || c == '[':
			level++
			deepest = max(deepest, level)
		case c == '}' || c == ']':
			level--
		}
	}
	return deepest
}

// grant sets the scopes of a key: those that its role descriptors request and the caller has.
func grant(q *handlers.Request, k *store.APIKey, roles map[string]json.RawMessage) (err error) {
	if k.Scopes, err = grantedScopes(q, roles); err != nil {
		return err
	}
	if q.Key != nil && (len(k.Scopes) > 0 || !emptyRoles(roles)) {
		return illegalArgument("creating derived api keys requires an explicit role descriptor " +
			"that is empty (has no privileges)")
	}
	return nil
}

// emptyRoles reports whether there are role descriptors and none has a privilege: a key can create only such keys.
func emptyRoles(roles map[string]json.RawMessage) bool {
	for _, raw := range roles {
		var role map[string]json.RawMessage
		if json.Unmarshal(raw, &role) != nil {
			return false
		}
		for _, v := range role {
			switch strings.Join(strings.Fields(string(v)), "") {
			case "[]", "{}", "null", "false":
			default:
				return false
			}
		}
	}
	return len(roles) > 0
}

func checkKeyName(name string) error {
	switch {
	case name == "":
		return invalidRequest("api key name is required")
	case utf8.RuneCountInString(name) > 256:
		return invalidRequest("api key name may not be more than 256 characters long")
	case strings.TrimSpace(name) != name:
		return invalidRequest("api key name may not begin or end with whitespace")
	case strings.HasPrefix(name, "_"):
		return invalidRequest("api key name may not begin with an underscore")
	case !utf8.ValidString(name), strings.ContainsFunc(name, unicode.IsControl):
		return invalidRequest("api key name may not contain control characters")
	}
	return nil
}

// grantedScopes returns the scopes that role descriptors grant, limited to the caller's.
func grantedScopes(q *handlers.Request, roles map[string]json.RawMessage) ([]string, error) {
	if len(roles) == 0 {
		return q.Token.Scopes, nil
	}
	scopes := []string{}
	for name, raw := range roles {
		var role struct {
			Cluster []string `json:"cluster"`
		}
		if err := json.Unmarshal(raw, &role); err != nil || string(raw) == "null" {
			return nil, refuse(http.StatusBadRequest, "parse_exception",
				"failed to parse role [%s]: it must be an object, and cluster an array of strings", name)
		}
		for _, privilege := range role.Cluster {
			scope, known := privilegeScopes[privilege]
			switch {
			case !known:
			case q.Token.Allows(scope):
				scopes = append(scopes, scope)
			case scope == store.ScopeManagement: // all scopes of the caller
				scopes = append(scopes, q.Token.Scopes...)
			}
		}
	}
	slices.Sort(scopes)
	return slices.Compact(scopes), nil
}

// timeValue parses Elasticsearch's durations: an integer and one of d, h, m, s, ms, micros and nanos.
func timeValue(name, text string) (time.Duration, error) {
	bad := func(why string) error {
		return illegalArgument("failed to parse setting [%s] with value [%s] as a time value: %s", name, text, why)
	}
	digits := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyz")
	units := map[string]time.Duration{"d": 24 * time.Hour, "h": time.Hour, "m": time.Minute, "s": time.Second,
		"ms":     time.Millisecond,
		"micros": time.Microsecond, "nanos": time.Nanosecond}
	unit, known := units[text[len(digits):]]
	if !known {
		return 0, bad("unit is missing or unrecognized")
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return 0, bad("it must begin with a whole number")
	}
	if n < 1 {
		return 0, bad("it must be positive")
	}
	if n > int64(handlers.MaxTokenTTL*time.Second/unit) {
		return 0, bad("it must not be longer than ten years")
	}
	return max(time.Duration(n)*unit, time.Second), nil
}
