// Package described compares requests and answers in tests with the description of the API: every answer must be
// described, to the last field, and every request that a member has carried out must be one of those described.
package described

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

// Exchange is one request of a test and the answer of a member.
type Exchange struct {
	Method, Target string
	Header         http.Header
	Body           string
	Status         int
	Answer         http.Header
	Text           string // the body of the answer
}

// Book holds one exchange of each shape: what differs in numbers alone is the same.
type Book struct {
	mu   sync.Mutex
	list []Exchange
	seen map[[32]byte]bool
}

var digits = regexp.MustCompile(`[0-9a-f]*[0-9][0-9a-f]*`)

// Record keeps an exchange, and reports whether it is the first of its shape.
func (b *Book) Record(x Exchange) bool {
	shape := digits.ReplaceAllString(strings.Join([]string{x.Target, x.Body, x.Text}, "\n"), "0")
	key := sha256.Sum256(fmt.Appendf(nil, "%s %d %s %s", x.Method, x.Status, x.Answer.Get("Content-Type"), shape))
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.seen[key] {
		return false
	}
	if b.seen == nil {
		b.seen = map[[32]byte]bool{}
	}
	b.seen[key] = true
	b.list = append(b.list, x)
	return true
}

// Check fails the test if the exchange is the first of its shape and not as described.
func (b *Book) Check(t testing.TB, x Exchange) {
	t.Helper()
	if !b.Record(x) {
		return
	}
	if err := x.compare(description()); err != nil {
		t.Errorf("handlers/native/openapi: %v", x.line(err))
	}
}

// Undescribed compares all that was recorded. It lists what is not described, one line for each kind.
func (b *Book) Undescribed() (lines []string, compared int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	kinds := map[string]bool{}
	for i := range b.list {
		x := &b.list[i]
		err := x.compare(description())
		if err == nil {
			continue
		}
		if kind := digits.ReplaceAllString(fmt.Sprintf("%s %s: %v", x.Method, x.Target, err), "0"); !kinds[kind] {
			kinds[kind] = true
			lines = append(lines, x.line(err))
		}
	}
	slices.Sort(lines)
	return lines, len(b.list)
}

func (x *Exchange) line(err error) string {
	return fmt.Sprintf("%s %s: %v\n  request %s\n  answer  %d %s %.600s", x.Method, x.Target, err, shortened(x.Body),
		x.Status, x.Answer.Get("Content-Type"), x.Text)
}

// description finds the operation of a request in the document, whose answers are closed.
var description = sync.OnceValue(func() routers.Router {
	doc, err := openapi3.NewLoader().LoadFromData(openapi.Document())
	if err != nil {
		panic(err)
	}
	doc.Servers = nil // whichever member was asked
	closeAnswers(doc)
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		panic(err)
	}
	openapi3filter.RegisterBodyDecoder("application/vnd.elasticsearch+json", openapi3filter.JSONBodyDecoder)
	return router
})

func shortened(body string) string {
	if body == "" {
		return "without a body"
	}
	return fmt.Sprintf("%.300s", body)
}

func (x *Exchange) compare(router routers.Router) error {
	target, err := url.ParseRequestURI(x.Target)
	if err != nil || target.Path == "/ui" || strings.HasPrefix(target.Path, "/ui/") {
		return nil // not a request for which there could be a description, or the web page
	}
	method := x.Method
	if method == http.MethodHead && x.Status < 300 {
		method = http.MethodGet // the document says once that it is served alike
	}
	if bare := strings.TrimSuffix(target.Path, "/"); bare != "" && x.Status < 300 &&
		!strings.HasPrefix(bare, "/v1/peering") {
		target.Path = bare // the same
	}
	req := (&http.Request{Method: method, URL: target, Header: x.Header, Host: "member"}).WithContext(context.Background())
	route, params, err := router.FindRoute(req)
	if err != nil {
		switch x.Status {
		case http.StatusNotFound, http.StatusMethodNotAllowed,
			http.StatusBadRequest,        // for unknown paths of the enrollment family
			http.StatusTemporaryRedirect: // to the clean path, in the peering family
			return nil
		}
		if x.Method == http.MethodOptions {
			return nil
		}
		return fmt.Errorf("not described: %w", err)
	}
	if method != x.Method {
		return nil // there is no body to compare
	}
	if partial(req, x) {
		return nil
	}
	return x.validate(req, params, route)
}

// partial reports whether an answer is only a part of what is described, or compressed.
func partial(req *http.Request, x *Exchange) bool {
	if _, part := req.URL.Query()["filter_path"]; part && x.Status < 300 || x.Answer.Get("Content-Encoding") != "" {
		return true
	}
	// the peering family's answer to a path or a query that cannot be read
	return x.Status == http.StatusBadRequest && x.Text == "" && x.Answer.Get("Content-Type") == ""
}

// validate compares a request that was carried out, and any answer, with an operation.
func (x *Exchange) validate(req *http.Request, params map[string]string, route *routers.Route) error {
	options := &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc,
		IncludeResponseStatus: true, MultiError: true, SkipSettingDefaults: true}
	in := &openapi3filter.RequestValidationInput{Request: req, PathParams: params, Route: route, Options: options}
	if x.Status < 300 && !sloppy(x.Body) {
		body := canonical(route.Operation, x.Body)
		req.ContentLength, req.Body = int64(len(body)), io.NopCloser(strings.NewReader(body))
		if req.Header.Get("Content-Type") == "" && body != "" {
			req.Header.Set("Content-Type", "application/json") // only the join asks for it
		}
		if err := openapi3filter.ValidateRequest(req.Context(), in); err != nil {
			return fmt.Errorf("the request is carried out and not described: %w", err)
		}
	}
	if response := route.Operation.Responses.Status(x.Status); response != nil &&
		len(response.Value.Content) == 0 && x.Text != "" {
		return errors.New("the answer is described without a body")
	}
	err := openapi3filter.ValidateResponse(req.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in,
		Status:                 x.Status,
		Header:                 x.Answer,
		Options:                options,
		Body:                   io.NopCloser(bytes.NewReader([]byte(x.Text))),
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
