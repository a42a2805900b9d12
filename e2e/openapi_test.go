package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"muster/handlers/native/openapi"
)

// TestOpenAPI: a member serves the description to anybody.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	c := found(t)
	a := c.nobody(t).do(c.members[0], "GET", "/api/v1/openapi.yaml", "")
	if a.status != 200 || a.body != string(openapi.Document()) || a.header.Get("Content-Type") != "application/yaml" {
		t.Errorf("%d %s, %d bytes", a.status, a.header.Get("Content-Type"), len(a.body))
	}
}

// exchange is one request of a test and the answer of a member.
type exchange struct {
	method, target string
	header         http.Header
	body           string
	answer         answer
}

// recorded holds one exchange of each shape: what differs in numbers alone is the same.
var recorded = struct {
	sync.Mutex
	list []exchange
	seen map[[32]byte]bool
}{seen: map[[32]byte]bool{}}

var digits = regexp.MustCompile(`[0-9a-f]*[0-9][0-9a-f]*`)

// record keeps an exchange for the end of the run, when it is compared with the description of the API.
func record(req *http.Request, body string, a answer) {
	if a.err != nil {
		return
	}
	x := exchange{req.Method, req.URL.RequestURI(), req.Header.Clone(), body, a}
	shape := digits.ReplaceAllString(strings.Join([]string{x.target, body, a.body}, "\n"), "0")
	key := sha256.Sum256(fmt.Appendf(nil, "%s %d %s %s", x.method, a.status, a.header.Get("Content-Type"), shape))
	recorded.Lock()
	defer recorded.Unlock()
	if !recorded.seen[key] {
		recorded.seen[key] = true
		recorded.list = append(recorded.list, x)
	}
}

// undescribed compares what was recorded with the description: every answer must be described, to the last field, and
// every request that a member has carried out must be one of those described. It lists what is not, one line for each
// kind.
func undescribed() (lines []string, compared int) {
	recorded.Lock()
	defer recorded.Unlock()
	doc, err := openapi3.NewLoader().LoadFromData(openapi.Document())
	if err != nil {
		return []string{err.Error()}, 0
	}
	doc.Servers = nil // whichever member was asked
	closeAnswers(doc)
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		return []string{err.Error()}, 0
	}
	openapi3filter.RegisterBodyDecoder("application/vnd.elasticsearch+json", openapi3filter.JSONBodyDecoder)
	kinds := map[string]bool{}
	for i := range recorded.list {
		x := &recorded.list[i]
		err := x.compare(router)
		if err == nil {
			continue
		}
		line := fmt.Sprintf("%s %s: %v", x.method, x.target, err)
		if kind := digits.ReplaceAllString(line, "0"); !kinds[kind] {
			kinds[kind] = true
			lines = append(lines, fmt.Sprintf("%s\n  request %s\n  answer  %d %s %.600s", line, shortened(x.body),
				x.answer.status, x.answer.header.Get("Content-Type"), x.answer.body))
		}
	}
	slices.Sort(lines)
	return lines, len(recorded.list)
}

func shortened(body string) string {
	if body == "" {
		return "without a body"
	}
	return fmt.Sprintf("%.300s", body)
}

func (x *exchange) compare(router routers.Router) error {
	target, err := url.ParseRequestURI(x.target)
	if err != nil || target.Path == "/ui" || strings.HasPrefix(target.Path, "/ui/") {
		return nil // not a request for which there could be a description, or the web page
	}
	method := x.method
	if method == http.MethodHead && x.answer.status < 300 {
		method = http.MethodGet // the document says once that it is served alike
	}
	if bare := strings.TrimSuffix(target.Path, "/"); bare != "" && x.answer.status < 300 &&
		!strings.HasPrefix(bare, "/v1/peering") {
		target.Path = bare // the same
	}
	req := (&http.Request{Method: method, URL: target, Header: x.header, Host: "member"}).WithContext(context.Background())
	route, params, err := router.FindRoute(req)
	if err != nil {
		switch x.answer.status {
		case http.StatusNotFound, http.StatusMethodNotAllowed,
			http.StatusBadRequest,        // for unknown paths of the enrollment family
			http.StatusTemporaryRedirect: // to the clean path, in the peering family
			return nil
		}
		if x.method == http.MethodOptions {
			return nil
		}
		return fmt.Errorf("not described: %w", err)
	}
	if method != x.method {
		return nil // there is no body to compare
	}
	if _, part := req.URL.Query()["filter_path"]; part && x.answer.status < 300 ||
		x.answer.header.Get("Content-Encoding") != "" {
		return nil // a part of what is described, or compressed
	}
	if x.answer.status == http.StatusBadRequest && x.answer.body == "" && x.answer.header.Get("Content-Type") == "" {
		return nil // the peering family's answer to a path or a query that cannot be read
	}
	options := &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc,
		IncludeResponseStatus: true, MultiError: true, SkipSettingDefaults: true}
	in := &openapi3filter.RequestValidationInput{Request: req, PathParams: params, Route: route, Options: options}
	if x.answer.status < 300 && !sloppy(x.body) {
		body := canonical(route.Operation, x.body)
		req.ContentLength, req.Body = int64(len(body)), io.NopCloser(strings.NewReader(body))
		if req.Header.Get("Content-Type") == "" && body != "" {
			req.Header.Set("Content-Type", "application/json") // only the join asks for it
		}
		if err := openapi3filter.ValidateRequest(req.Context(), in); err != nil {
			return fmt.Errorf("the request is carried out and not described: %w", err)
		}
	}
	if response := route.Operation.Responses.Status(x.answer.status); response != nil &&
		len(response.Value.Content) == 0 && x.answer.body != "" {
		return errors.New("the answer is described without a body")
	}
	err = openapi3filter.ValidateResponse(req.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in,
		Status:                 x.answer.status,
		Header:                 x.answer.header,
		Options:                options,
		Body:                   io.NopCloser(bytes.NewReader([]byte(x.answer.body))),
	})
	if err != nil {
		return fmt.Errorf("the answer is not described: %w", err)
	}
	return nil
}

// sloppy reports whether a test has sent what a description cannot express and the members take all the same: white
// space, or more behind the JSON value.
func sloppy(body string) bool {
	return body != "" && !json.Valid([]byte(body))
}

// canonical gives the fields of a body the case that they are described in: members do not mind it.
func canonical(op *openapi3.Operation, body string) string {
	var fields map[string]json.RawMessage
	if op.RequestBody == nil || json.Unmarshal([]byte(body), &fields) != nil {
		return body
	}
	media := op.RequestBody.Value.Content.Get("application/json")
	if media == nil || media.Schema == nil {
		return body
	}
	for described := range media.Schema.Value.Properties {
		for given, value := range fields {
			if given != described && strings.EqualFold(given, described) {
				delete(fields, given)
				fields[described] = value
			}
		}
	}
	text, _ := json.Marshal(fields)
	return string(text)
}

// closeAnswers forbids in every answer what is not described. (The document leaves objects open, as a client must.)
func closeAnswers(doc *openapi3.T) {
	seen := map[*openapi3.Schema]bool{}
	var visit func(ref *openapi3.SchemaRef)
	visit = func(ref *openapi3.SchemaRef) {
		if ref == nil || ref.Value == nil || seen[ref.Value] {
			return
		}
		s := ref.Value
		seen[s] = true
		if len(s.Properties) > 0 && s.AdditionalProperties.Has == nil && s.AdditionalProperties.Schema == nil {
			s.AdditionalProperties.Has = new(bool)
		}
		visit(s.Items)
		visit(s.AdditionalProperties.Schema)
		for _, p := range s.Properties {
			visit(p)
		}
		for _, list := range []openapi3.SchemaRefs{s.AllOf, s.AnyOf, s.OneOf} {
			for _, p := range list {
				visit(p)
			}
		}
	}
	for _, item := range doc.Paths.Map() {
		for _, op := range item.Operations() {
			for _, response := range op.Responses.Map() {
				for _, media := range response.Value.Content {
					visit(media.Schema)
				}
			}
		}
	}
}
